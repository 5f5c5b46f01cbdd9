//! What is attached to what was asked for, in the form that requests are judged by: made once per
//! revision, when it is first asked for.

use std::sync::OnceLock;

use crate::model::authentication;
use crate::model::authorization::Set;
use crate::model::waypoint::{AttachedSet, Extension, Resources};

/// What has been made so far.
#[derive(Default)]
pub(super) struct Attached {
    policies: OnceLock<Set>,
    authentications: OnceLock<authentication::Set>,
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
}
