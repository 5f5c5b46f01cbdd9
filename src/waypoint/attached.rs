//! What is attached to what was asked for, in the form that requests are judged by: made once per
//! revision, when it is first asked for.

use std::sync::OnceLock;

use crate::model::attached::PolicyKey;
use crate::model::authorization::Set;
use crate::model::waypoint::{AttachedSet, Resources};

/// What has been made so far.
#[derive(Default)]
pub(super) struct Attached {
    policies: OnceLock<Set>,
}

/// What is in force for one request or connection.
#[derive(Clone, Copy)]
pub(super) struct InForce<'a> {
    told: &'a Resources,
    set: &'a AttachedSet,
    made: &'a Attached,
}

impl<'a> InForce<'a> {
    /// What `set` names among what is told.
    pub(super) fn new(told: &'a Resources, set: &'a AttachedSet, made: &'a Attached) -> Self {
        Self { told, set, made }
    }

    /// Its authorization policies. One that nobody has told of denies everything.
    pub(super) fn policies(self) -> &'a Set {
        self.made.policies.get_or_init(|| {
            let named = self.set.policies.iter();
            let known = |key: &&PolicyKey| self.told.policies.contains_key(*key);
            let missing = named.clone().find(|key| !known(key)).cloned();
            let policies = named.filter_map(|key| self.told.policies.get(key).cloned());
            Set::new(policies, missing)
        })
    }
}
