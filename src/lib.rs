//! Lateen: a service mesh for machines that run no Kubernetes.
//!
//! Data moves one way: [`config`] → [`model`] → [`control`] → [`wire`] → [`agent`] → [`node`] →
//! [`hbone`]. `ARCHITECTURE.md` has the picture.

pub mod control;
pub mod identity;
pub mod model;
pub mod wire;
