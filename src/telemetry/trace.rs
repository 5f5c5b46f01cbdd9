//! Distributed tracing (`spec/waypoint-l7.md` §6.4): which trace a request belongs to, whether it is kept,
//! and what is told of it. Pure: who makes spans is the waypoint, who takes them is reached by it.

mod b3;
mod context;
mod propagation;
mod sampling;
mod span;
mod w3c;
mod zipkin;

pub use context::{Decision, Incoming, SpanContext, SpanId, TraceId};
pub use propagation::Propagation;
pub use sampling::Share;
pub use span::{Kind, Span, Value, cut};
pub use zipkin::json as zipkin;
