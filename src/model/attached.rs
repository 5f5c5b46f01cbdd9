//! What `target-refs` attach to a service or to a whole waypoint, by name (`spec/labels-and-policy.md` §2.2).

use std::fmt;
use std::sync::Arc;

/// What names something that is attached; which kind it is of, whoever holds it knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
