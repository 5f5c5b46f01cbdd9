//! What is attached to what was asked for, in the form that requests are judged by: made once per
//! revision, when it is first asked for.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::limits::Counted;
use super::routing::Untold;
use crate::model::attached::PolicyKey;
use crate::model::authentication;
use crate::model::authorization::Set;
use crate::model::waypoint::{AttachedSet, Extension, Resources};

/// What has been made so far.
#[derive(Default)]
pub(super) struct Attached {
    policies: OnceLock<Set>,
    authentications: OnceLock<authentication::Set>,
    limits: OnceLock<Result<Vec<Arc<Counted>>, PolicyKey>>,
}

/// What is in force for one request or connection.
#[derive(Clone, Copy)]
pub(super) struct InForce<'a> {
    told: &'a Resources,
    set: &'a AttachedSet,
    made: &'a Attached,
    counted: &'a HashMap<PolicyKey, Arc<Counted>>,
}

impl<'a> InForce<'a> {
    /// What `set` names among what is told.
    pub(super) fn new(
        told: &'a Resources,
        set: &'a AttachedSet,
        made: &'a Attached,
        counted: &'a HashMap<PolicyKey, Arc<Counted>>,
    ) -> Self {
        Self {
            told,
            set,
            made,
            counted,
        }
    }

    /// Its authorization policies. One that nobody has told of denies everything.
    pub(super) fn policies(self) -> &'a Set {
        let made = || self.told.policies_of(self.set);
        self.made.policies.get_or_init(made)
    }

    /// A provider that its policies name; none is one that nobody has told of.
    pub(super) fn extension(self, name: &str) -> Option<&'a Extension> {
        self.told.extensions.get(name).map(|extension| &**extension)
    }

    /// Its request authentications. One that nobody has told of lets nothing pass.
    pub(super) fn authentications(self) -> &'a authentication::Set {
        let made = || self.told.authentications_of(self.set);
        self.made.authentications.get_or_init(made)
    }

    /// Its rate limits.
    ///
    /// # Errors
    /// One that nobody has told of.
    pub(super) fn limits(self) -> Result<&'a [Arc<Counted>], Untold> {
        let counted = |key: &PolicyKey| self.counted.get(key).cloned().ok_or_else(|| key.clone());
        let made = || self.set.limits.iter().map(counted).collect();
        let limits = self.made.limits.get_or_init(made);
        match limits {
            Ok(limits) => Ok(limits),
            Err(key) => Err(Untold::Limit(key.clone())),
        }
    }
}
