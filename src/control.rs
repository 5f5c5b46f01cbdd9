//! The control plane: compiles the mesh, serves it, and hears from nodes how it goes.
//!
//! [`compile`] turns declarations into numbered [`revision`]s and publishes them; [`discovery`]
//! serves them to nodes; [`health`] collects what nodes report, which flows back into the next
//! revision. [`store`] keeps what can be rebuilt.

pub mod caller;
pub mod compile;
pub mod discovery;
pub mod health;
pub mod history;
#[cfg(test)]
pub(crate) mod loopback;
pub mod revision;
pub mod store;

pub use caller::Caller;
