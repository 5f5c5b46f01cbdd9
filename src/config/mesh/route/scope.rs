//! What the fields of a route need to know of it, and whom they name elsewhere in the mesh.

use std::cell::RefCell;
use std::sync::Arc;

use crate::config::source::{At, Place};
use crate::model::route::{BackendRef, Kind};

/// Somebody whom a rule asks.
#[derive(Clone, Debug)]
pub(in crate::config) struct Asked {
    /// Who.
    pub backend: BackendRef,
    /// What for.
    pub role: Role,
}

/// What somebody is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Role {
    /// A share of the requests.
    Share,
    /// Copies of them.
    Mirror,
}

/// A route while its rules are read.
pub(super) struct Scope {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, which backends are in unless they say otherwise.
    pub namespace: Arc<str>,
    asked: RefCell<Vec<At<Asked>>>,
    prefix_changes: RefCell<Vec<Place>>,
}

impl Scope {
    pub(super) fn new(kind: Kind, namespace: &Arc<str>) -> Self {
        Self {
            kind,
            namespace: Arc::clone(namespace),
            asked: RefCell::default(),
            prefix_changes: RefCell::default(),
        }
    }

    /// Whether it says anything of requests, rather than of connections.
    pub(super) fn is_of_requests(&self) -> bool {
        matches!(self.kind, Kind::Http | Kind::Grpc)
    }

    /// Keeps in mind whom a value asks.
    pub(super) fn ask(&self, place: &Place, backend: &BackendRef, role: Role) {
        let asked = Asked {
            backend: backend.clone(),
            role,
        };
        self.asked.borrow_mut().push(At::new(asked, place.clone()));
    }

    /// Everybody asked.
    pub(super) fn into_asked(self) -> Vec<At<Asked>> {
        self.asked.into_inner()
    }

    /// Keeps in mind that a rule changes the prefix it has matched.
    pub(super) fn change_prefix(&self, place: &Place) {
        self.prefix_changes.borrow_mut().push(place.clone());
    }

    /// Where the rule that was read changes the prefix it has matched.
    pub(super) fn take_prefix_changes(&self) -> Vec<Place> {
        self.prefix_changes.take()
    }
}
