//! The control plane.
pub mod audit;
pub mod ca;
pub mod caller;
pub mod citadel;
pub mod enrolment;
pub mod join;

pub use caller::Caller;
