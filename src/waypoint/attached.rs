//! What is attached to what was asked for, in the form that requests are judged by: made once per
//! revision, when it is first asked for.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tracing::warn;

use super::limits::Counted;
use super::records::Records;
use super::routing::Untold;
use super::tracer::Tracer;
use crate::model::attached::PolicyKey;
use crate::model::authentication;
use crate::model::authorization::Set;
use crate::model::telemetry::{Exporter, Merged, Setup, Traces};
use crate::model::waypoint::{AttachedSet, Extension, Resources};

/// What has been made so far.
#[derive(Default)]
pub(super) struct Attached {
    policies: OnceLock<Set>,
    authentications: OnceLock<authentication::Set>,
    tracer: OnceLock<Option<Arc<Tracer>>>,
    records: OnceLock<Option<Arc<Records>>>,
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

    /// How it is traced, as `make` makes it out of what is said of that and of whom spans are told.
    pub(super) fn tracer(
        self,
        make: impl FnOnce(&Traces, &Exporter) -> Option<Tracer>,
    ) -> Option<Arc<Tracer>> {
        let tracer = self.made.tracer.get_or_init(|| {
            let setup = &self.told.gateway.as_ref()?.options.telemetry;
            let traces = self.told.merged_of(self.set).traces?;
            let exporter = setup.providers.get(&traces.provider);
            let tracer = exporter.and_then(|exporter| make(&traces, exporter));
            if tracer.is_none() {
                // The mesh's files are checked: it is one that this build does not know.
                warn!(provider = %traces.provider, "no such provider of spans, there are none");
            }
            tracer.map(Arc::new)
        });
        tracer.clone()
    }

    /// What is counted and written of it, as `make` makes it out of what is said of that and of whom there
    /// is to tell.
    pub(super) fn records(
        self,
        make: impl FnOnce(Merged, &Setup) -> Records,
    ) -> Option<Arc<Records>> {
        let records = self.made.records.get_or_init(|| {
            let setup = &self.told.gateway.as_ref()?.options.telemetry;
            Some(Arc::new(make(self.told.merged_of(self.set), setup)))
        });
        records.clone()
    }

    /// The telemetry that is named and that nobody has told of.
    pub(super) fn untold_telemetry(self) -> Option<&'a PolicyKey> {
        let mut named = self.set.telemetry.iter();
        named.find(|key| !self.told.telemetry.contains_key(*key))
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
