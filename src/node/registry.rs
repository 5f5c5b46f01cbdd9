//! Inbound connections that policies may still end (`spec/labels-and-policy.md` §6): each is
//! registered before it is judged, so that no change slips between, and stays so while it is open.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::identity::SpiffeId;
use crate::model::policy::{Denial, Guard, Request, Verdict};

/// Connections judged before other tasks of the thread have their turn.
const AT_ONCE: usize = 256;

/// What a connection is judged by.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    /// Who asks; none on a plain connection.
    pub(super) identity: Option<SpiffeId>,
    /// Where he connects from.
    pub(super) source: IpAddr,
    /// The workload's address and port.
    pub(super) destination: SocketAddr,
}

impl Attributes {
    pub(super) fn request(&self) -> Request {
        Request::new(self.identity.as_ref(), self.source, self.destination)
    }
}

/// The connections of one workload on one thread.
#[derive(Clone, Default)]
pub(super) struct Registry {
    list: Arc<Mutex<List>>,
}

#[derive(Default)]
struct List {
    next: u64,
    open: HashMap<u64, Entry>,
}

struct Entry {
    attributes: Attributes,
    cut: oneshot::Sender<Denial>,
}

/// Keeps a connection registered.
pub(super) struct Registration {
    registry: Registry,
    id: u64,
    cut: oneshot::Receiver<Denial>,
}

impl Registry {
    /// Registers a connection.
    pub(super) fn enter(&self, attributes: Attributes) -> Registration {
        let (tell, cut) = oneshot::channel();
        let mut list = self.lock();
        let id = list.next;
        list.next += 1;
        list.open.insert(
            id,
            Entry {
                attributes,
                cut: tell,
            },
        );
        Registration {
            registry: self.clone(),
            id,
            cut,
        }
    }

    /// Judges all of them anew and ends those that are not let in any more; tells how many. Those that
    /// come meanwhile have been judged by what is newer.
    pub(super) async fn review(&self, guard: &Guard) -> usize {
        let open = self.open();
        let mut ended = 0;
        for some in open.chunks(AT_ONCE) {
            let denied = some.iter().filter_map(|(id, attributes)| {
                match guard.judge(&attributes.request()) {
                    Verdict::Allowed(_) => None,
                    Verdict::Denied(denial) => Some((*id, denial)),
                }
            });
            ended += self.end(denied.collect());
            tokio::task::yield_now().await;
        }
        ended
    }

    fn open(&self) -> Vec<(u64, Attributes)> {
        let list = self.lock();
        let open = list.open.iter().map(|(id, e)| (*id, e.attributes.clone()));
        open.collect()
    }

    fn end(&self, denied: Vec<(u64, Denial)>) -> usize {
        let mut list = self.lock();
        let mut ended = 0;
        for (id, denial) in denied {
            if let Some(entry) = list.open.remove(&id) {
                // Whoever does not listen any more has ended by himself.
                ended += usize::from(entry.cut.send(denial).is_ok());
            }
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Why the connection is let in no more, if it is not.
    pub(super) fn ended(&mut self) -> Option<Denial> {
        self.cut.try_recv().ok()
    }

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

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{
        Clause, Effect, Match, Pattern, Policies, Policy, Rule, Scope, Values,
    };
    use crate::model::testing::workload;

    fn attributes(account: &str) -> Attributes {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        Attributes {
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
        let registry = Registry::default();
        let (mut web, mut api) = (
            registry.enter(attributes("web")),
            registry.enter(attributes("api")),
        );
        let gone = registry.enter(attributes("web"));
        drop(gone);
        assert_eq!(registry.review(&Guard::default()).await, 0);
        assert_eq!(registry.review(&denies("web")).await, 1);
        assert_eq!(&**web.over().await.policy(), "shop/deny");
        assert!(api.cut.try_recv().is_err(), "the other one stays");
        assert_eq!(registry.review(&denies("web")).await, 0, "ended once");
        drop((web, api));
        assert!(registry.lock().open.is_empty());
    }
}
