//! What the mesh tells of itself: metrics in Istio's names, one access-log line per finished
//! connection, and the process's log (`spec/hbone-dataplane.md` §8).

pub mod access_log;
pub mod batch;
pub mod capped;
pub mod control;
pub mod dns;
pub mod exports;
pub mod files;
mod key_fetches;
pub mod labels;
mod limits;
pub mod log;
mod marks;
pub mod metrics;
mod providers;
pub mod record;
pub mod requests;
pub mod trace;

pub use capped::{Change, Changes, Labels};
pub use control::ControlMetrics;
pub use dns::DnsLabels;
pub use exports::Exported;
pub use labels::{Carrier, ConnectionLabels, Reporter, Security};
pub use metrics::{Metrics, Series};
pub use providers::Asked;
pub use requests::{Counted, RequestLabels, RequestSeries};
