//! What `target-refs` attach policies to at a waypoint (`spec/labels-and-policy.md` §2.2).

use std::collections::HashMap;
use std::sync::Arc;

use super::sites::{Is, Site};
use crate::model::attached::PolicyKey;
use crate::model::binding::CLASSES;
use crate::model::declaration::{
    Attachment, AuthorizationPolicy, Origin, RateLimit, RequestAuthentication, TargetKind,
    TargetRef, Telemetry,
};
use crate::model::waypoint::WaypointName;

/// What can be attached.
pub(super) trait Attachable {
    fn origin(&self) -> &Origin;
    fn key(&self) -> PolicyKey;
    fn namespace(&self) -> &str;
    fn attachment(&self) -> &Attachment;
}

/// All of them have these fields.
macro_rules! attachable {
    ($($kind:ty),+) => {
        $(impl Attachable for $kind {
            fn origin(&self) -> &Origin {
                &self.origin
            }

            fn key(&self) -> PolicyKey {
                PolicyKey {
                    namespace: Arc::clone(&self.namespace),
                    name: Arc::clone(&self.name),
                }
            }

            fn namespace(&self) -> &str {
                &self.namespace
            }

            fn attachment(&self) -> &Attachment {
                &self.attachment
            }
        })+
    };
}

attachable!(
    AuthorizationPolicy,
    RateLimit,
    RequestAuthentication,
    Telemetry
);

/// The policies of one kind by what they are attached to.
pub(super) struct Targets<'a, T> {
    /// By kind, namespace and name.
    of: HashMap<(TargetKind, &'a str, &'a str), Vec<&'a T>>,
    /// Those of all waypoints.
    of_class: Vec<&'a T>,
}

impl<'a, T: Attachable> Targets<'a, T> {
    /// Those of a mesh with this root namespace.
    pub(super) fn new(all: impl IntoIterator<Item = &'a T>, root: &str) -> Self {
        let mut targets = Self {
            of: HashMap::new(),
            of_class: Vec::new(),
        };
        for one in all {
            let Attachment::Targets(refs) = one.attachment() else {
                continue;
            };
            for TargetRef { kind, name } in refs {
                match kind {
                    TargetKind::GatewayClass => {
                        if one.namespace() == root && CLASSES.contains(&&**name) {
                            targets.of_class.push(one);
                        }
                    }
                    TargetKind::Service | TargetKind::ServiceEntry | TargetKind::Gateway => {
                        let key = (*kind, one.namespace(), &**name);
                        targets.of.entry(key).or_default().push(one);
                    }
                }
            }
        }
        targets
    }

    /// Those that hold for a service behind a waypoint, or without one for what is addressed to
    /// workloads; each once, in ORDER.
    pub(super) fn on(&self, waypoint: &WaypointName, site: Option<&Site<'a>>) -> Vec<&'a T> {
        let gateway = (TargetKind::Gateway, &*waypoint.namespace, &*waypoint.name);
        let service = site.map(|site| match site.is {
            Is::Service(s) => (TargetKind::Service, &*s.namespace, &*s.name),
            Is::Entry(e) => (TargetKind::ServiceEntry, &*e.namespace, &*e.name),
        });
        let named = [Some(gateway), service].into_iter().flatten();
        let named = named.filter_map(|key| self.of.get(&key)).flatten();
        let mut all: Vec<&T> = named.chain(&self.of_class).copied().collect();
        all.sort_by_key(|one| one.origin());
        all.dedup_by(|a, b| std::ptr::eq(*a, *b));
        all
    }
}
