//! A line of an access log, for a collector.

use std::sync::Arc;
use std::time::SystemTime;

use super::trace::SpanContext;

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When what it tells of began.
    pub time: SystemTime,
    /// The line, where it is one.
    pub text: Option<String>,
    /// Its members, where it has some, each once.
    pub members: Vec<(Arc<str>, String)>,
    /// The span it belongs to.
    pub span: Option<SpanContext>,
}
