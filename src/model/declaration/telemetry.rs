//! Telemetry as the operator declared it (`spec/labels-and-policy.md` §5.2).

use std::sync::Arc;

use super::{Attachment, FileAccessLog, Origin};
use crate::model::telemetry::Sections;

/// `[[telemetry]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Whom it is for. Unlike policies, one for a whole namespace is for waypoints too.
    pub attachment: Attachment,
    /// What it says to servers, which waypoints are.
    pub says: Sections,
}

/// What the `[mesh]` table says of telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryDefaults {
    /// `access-log-file` and how it is written; none unless set.
    pub access_log: Option<FileAccessLog>,
    /// `default-providers.tracing`.
    pub tracing: Vec<Arc<str>>,
    /// `default-providers.metrics`.
    pub metrics: Vec<Arc<str>>,
    /// `default-providers.access-logging`.
    pub access_logging: Vec<Arc<str>>,
}
