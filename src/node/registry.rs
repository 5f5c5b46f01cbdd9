//! Inbound connections that policies may still end (`spec/labels-and-policy.md` §6): each is
//! registered before it is judged, so that no change slips between, and stays so while it is open.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::identity::SpiffeId;
use crate::model::inbound::{self, Caller, Refusal};
use crate::model::policy::{Denial, Guard, Request, Verdict};
use crate::model::view::View;
use crate::model::workload::Workload;

/// Connections judged before other tasks of the thread have their turn.
const AT_ONCE: usize = 256;

/// What a connection is judged by.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    /// Who asks; none on a plain connection.
    pub(super) identity: Option<SpiffeId>,
    /// Where he connects from; none where that is not proven, or may be elsewhere by now.
    pub(super) source: Option<IpAddr>,
    /// The workload's address and port.
    pub(super) destination: SocketAddr,
    /// The host name of the service addressed, where that is said.
    pub(super) host: Option<Arc<str>>,
    /// It came by a waypoint. That stays true, whatever becomes of the waypoint.
    pub(super) by_waypoint: bool,
}

/// What connections are judged by.
pub(super) struct Judge<'a> {
    pub(super) guard: &'a Guard,
    /// As of the same mesh.
    pub(super) view: &'a View,
    pub(super) workload: &'a Workload,
}

/// Why a connection is not let in.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    #[error("{0}")]
    Denied(Denial),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Judge<'_> {
    /// Lets a connection in, or tells why not.
    pub(super) fn judge(&self, of: &Attributes) -> Result<(), Unwelcome> {
        if let Verdict::Denied(denial) = self.guard.judge(&of.request()) {
            return Err(Unwelcome::Denied(denial));
        }
        if of.by_waypoint {
            return Ok(());
        }
        let caller = Caller {
            peer: of.identity.as_ref(),
            host: of.host.as_deref(),
        };
        Ok(inbound::guarded(self.view, self.workload, caller)?)
    }
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
    cut: oneshot::Sender<Unwelcome>,
}

/// Keeps a connection registered.
pub(super) struct Registration {
    registry: Registry,
    id: u64,
    cut: oneshot::Receiver<Unwelcome>,
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
    pub(super) async fn review(&self, judge: &Judge<'_>) -> usize {
        let open = self.open();
        let mut ended = 0;
        for some in open.chunks(AT_ONCE) {
            let unwelcome = some
                .iter()
                .filter_map(|(id, attributes)| Some((*id, judge.judge(attributes).err()?)));
            ended += self.end(unwelcome.collect());
            tokio::task::yield_now().await;
        }
        ended
    }

    fn open(&self) -> Vec<(u64, Attributes)> {
        let list = self.lock();
        let open = list.open.iter().map(|(id, e)| (*id, e.attributes.clone()));
        open.collect()
    }

    fn end(&self, unwelcome: Vec<(u64, Unwelcome)>) -> usize {
        let mut list = self.lock();
        let mut ended = 0;
        for (id, why) in unwelcome {
            if let Some(entry) = list.open.remove(&id) {
                // Whoever does not listen any more has ended by himself.
                ended += usize::from(entry.cut.send(why).is_ok());
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
    pub(super) fn ended(&mut self) -> Option<Unwelcome> {
        self.cut.try_recv().ok()
    }

    /// Waits until the connection is let in no more, and tells why.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn over(&mut self) -> Unwelcome {
        match (&mut self.cut).await {
            Ok(why) => why,
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
    use crate::model::testing::{service, view, waypoint_named, workload};

    fn attributes(account: &str) -> Attributes {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        Attributes {
            identity: Some(identity.parse().unwrap()),
            source: "10.1.0.12".parse().ok(),
            destination: "10.1.0.11:8080".parse().unwrap(),
            host: None,
            by_waypoint: false,
        }
    }

    /// Judges by a guard, with no waypoints in the mesh.
    async fn review(registry: &Registry, guard: &Guard) -> usize {
        let judge = Judge {
            guard,
            view: &View::default(),
            workload: &workload("me", &["10.1.0.11"]),
        };
        registry.review(&judge).await
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
        assert_eq!(review(&registry, &Guard::default()).await, 0);
        assert_eq!(review(&registry, &denies("web")).await, 1);
        let why = web.over().await;
        assert!(
            matches!(&why, Unwelcome::Denied(d) if &**d.policy() == "shop/deny"),
            "{why}"
        );
        assert!(api.cut.try_recv().is_err(), "the other one stays");
        assert_eq!(review(&registry, &denies("web")).await, 0, "ended once");
        drop((web, api));
        assert!(registry.lock().open.is_empty());
    }

    #[tokio::test]
    async fn those_that_passed_no_waypoint_are_ended_where_one_must_be_passed() {
        let registry = Registry::default();
        let mut open = Vec::new();
        for (name, account, host, by_waypoint) in [
            ("to the service", "web", Some("cart"), false),
            ("to the workload", "web", None, false),
            ("from a waypoint", "wp", Some("cart"), false),
            ("from one that is gone", "old", Some("cart"), true),
        ] {
            let entered = registry.enter(Attributes {
                host: host.map(|host| Arc::from(format!("{host}.shop.mesh.internal"))),
                by_waypoint,
                ..attributes(account)
            });
            open.push((name, entered));
        }
        let mut reviewed = async |own: bool, behind: bool| {
            let mut me = workload("cart-1", &["10.1.0.11"]).of("cart");
            me.waypoint = own.then(|| waypoint_named("wp"));
            let mut cart = service("cart", &["10.9.0.1"]);
            cart.waypoint = behind.then(|| waypoint_named("wp"));
            let wp = workload("wp", &["10.1.0.9"]).of("wp");
            let services = vec![cart, service("wp", &["10.9.0.9"])];
            let view = view(vec![me.clone(), wp], services);
            let judge = Judge {
                guard: &Guard::default(),
                view: &view,
                workload: &me,
            };
            let ended = registry.review(&judge).await;
            open.retain_mut(|(_, registration)| registration.ended().is_none());
            let left: Vec<_> = open.iter().map(|(name, _)| *name).collect();
            (ended, left)
        };
        let all = vec![
            "to the service",
            "to the workload",
            "from a waypoint",
            "from one that is gone",
        ];
        assert_eq!(reviewed(false, false).await, (0, all.clone()));
        assert_eq!(reviewed(false, true).await, (1, all[1..].to_vec()));
        assert_eq!(reviewed(true, true).await, (1, all[2..].to_vec()));
    }
}
