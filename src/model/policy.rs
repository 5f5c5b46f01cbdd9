//! For whom policies hold that this version does not evaluate (`spec/control-plane.md` §2.2).

mod pattern;

pub use pattern::{Pattern, PatternError};

use std::collections::HashMap;
use std::sync::Arc;

/// How far a policy reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To every workload.
    Mesh,
    /// To every workload of a namespace.
    Namespace(Arc<str>),
    /// To the workloads that it is listed on.
    Listed,
    /// To none: it is only tried.
    Nobody,
}

/// The policies that hold for workloads they are not listed on: of each reach one, to be named.
#[derive(Debug, Default)]
pub struct Wide {
    mesh: Option<Arc<str>>,
    namespaces: HashMap<Arc<str>, Arc<str>>,
}

impl Wide {
    /// Those among these policies, by their names.
    pub fn new(policies: impl IntoIterator<Item = (Arc<str>, Reach)>) -> Self {
        let mut wide = Self::default();
        for (name, reach) in policies {
            match reach {
                Reach::Mesh => wide.mesh = Some(name),
                Reach::Namespace(namespace) => {
                    wide.namespaces.insert(namespace, name);
                }
                Reach::Listed | Reach::Nobody => {}
            }
        }
        wide
    }

    /// One that holds for a namespace's workloads, and whether it holds for the whole mesh.
    pub fn over(&self, namespace: &str) -> Option<(&Arc<str>, bool)> {
        let mesh = self.mesh.as_ref().map(|policy| (policy, true));
        mesh.or_else(|| Some((self.namespaces.get(namespace)?, false)))
    }
}
