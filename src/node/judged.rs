//! Inbound connections that policies may still end (`spec/labels-and-policy.md` §6): each is put on
//! the list before it is judged, so that no change slips between, and stays on it while it is open.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::identity::SpiffeId;
use crate::model::policy::{Denial, Guard, Request, Verdict};

/// What a connection is judged by.
#[derive(Clone, Debug)]
pub(super) struct Plea {
    /// Who asks; none on a plain connection.
    pub(super) identity: Option<SpiffeId>,
    /// Where he connects from.
    pub(super) source: IpAddr,
    /// The workload's address and port.
    pub(super) destination: SocketAddr,
}

impl Plea {
    pub(super) fn request(&self) -> Request {
        Request::new(self.identity.as_ref(), self.source, self.destination)
    }
}

/// The connections of one workload on one thread.
#[derive(Clone, Default)]
pub(super) struct Judged {
    list: Arc<Mutex<List>>,
}

#[derive(Default)]
struct List {
    next: u64,
    open: HashMap<u64, Entry>,
}

struct Entry {
    plea: Plea,
    cut: oneshot::Sender<Denial>,
}

/// A connection's place on the list, until it is dropped.
pub(super) struct Tenure {
    judged: Judged,
    id: u64,
    cut: oneshot::Receiver<Denial>,
}

impl Judged {
    /// Puts a connection on the list.
    pub(super) fn enter(&self, plea: Plea) -> Tenure {
        let (tell, cut) = oneshot::channel();
        let mut list = self.lock();
        let id = list.next;
        list.next += 1;
        list.open.insert(id, Entry { plea, cut: tell });
        Tenure {
            judged: self.clone(),
            id,
            cut,
        }
    }

    /// Judges all of them anew and ends those that are not let in any more; tells how many.
    pub(super) fn review(&self, guard: &Guard) -> usize {
        let mut list = self.lock();
        let denied =
            list.open
                .iter()
                .filter_map(|(id, entry)| match guard.judge(&entry.plea.request()) {
                    Verdict::Allowed(_) => None,
                    Verdict::Denied(denial) => Some((*id, denial)),
                });
        let denied: Vec<_> = denied.collect();
        let ended = denied.len();
        for (id, denial) in denied {
            if let Some(entry) = list.open.remove(&id) {
                // Whoever does not listen any more has ended by himself.
                let _ended = entry.cut.send(denial);
            }
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenure {
    /// Waits until the connection is let in no more, and tells why.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn over(&mut self) -> Denial {
        match (&mut self.cut).await {
            Ok(denial) => denial,
            // Only the list ends it.
            Err(_list_is_gone) => std::future::pending().await,
        }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.judged.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{
        Clause, Effect, Match, Pattern, Policies, Policy, Rule, Scope, Values,
    };
    use crate::model::testing::workload;

    fn plea(account: &str) -> Plea {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        Plea {
            identity: Some(identity.parse().unwrap()),
            source: "10.1.0.12".parse().unwrap(),
            destination: "10.1.0.11:8080".parse().unwrap(),
        }
    }

    fn denies(account: &str) -> Guard {
        let principal = format!("cluster.local/ns/shop/sa/{account}");
        let only = Match {
            principals: Values {
                any: vec![Pattern::Exact(Arc::from(principal))],
                not: Vec::new(),
            },
            ..Match::default()
        };
        let clause = Clause {
            matches: vec![only],
        };
        let policy = Policy {
            key: Arc::from("shop/deny"),
            namespace: Arc::from("shop"),
            name: Arc::from("deny"),
            scope: Scope::Mesh,
            effect: Effect::Deny,
            dry_run: false,
            rules: vec![Rule {
                line: 0,
                clauses: vec![clause],
            }],
            origin: None,
            unreadable: None,
        };
        Policies::new([Arc::new(policy)]).guard(&workload("me", &["10.1.0.11"]))
    }

    #[tokio::test]
    async fn those_that_are_let_in_no_more_are_ended_and_no_others() {
        let judged = Judged::default();
        let (mut web, mut api) = (judged.enter(plea("web")), judged.enter(plea("api")));
        let gone = judged.enter(plea("web"));
        drop(gone);
        assert_eq!(judged.review(&Guard::default()), 0);
        assert_eq!(judged.review(&denies("web")), 1);
        assert_eq!(&**web.over().await.policy(), "shop/deny");
        assert!(api.cut.try_recv().is_err(), "the other one stays");
        assert_eq!(judged.review(&denies("web")), 0, "ended once");
        drop((web, api));
        assert!(judged.lock().open.is_empty());
    }
}
