//! The control plane: compiles the mesh, serves it, says who is who, and hears from nodes how it
//! goes.
//!
//! [`compile`] turns declarations into numbered [`revision`]s and publishes them; [`discovery`]
//! serves them to nodes; [`health`] collects what nodes report, which flows back into the next
//! revision. [`ca`] signs; [`enrolment`] knows which machines may ask, [`join`] and [`citadel`] are
//! how they do; [`bearer`] is for proxies that cannot present a certificate. [`store`] keeps what can be rebuilt.

mod aside;
pub mod audit;
pub mod bearer;
pub mod ca;
pub mod caller;
mod challenge;
pub mod citadel;
pub mod compile;
pub mod discovery;
pub mod enrolment;
pub mod gate;
pub mod health;
pub mod history;
pub mod issued;
pub mod join;
mod listener;
#[cfg(test)]
pub(crate) mod loopback;
pub mod peer;
pub mod readiness;
pub mod revision;
pub mod rotation;
pub mod server;
pub mod source;
pub mod store;
pub mod trust;

pub use caller::Caller;
