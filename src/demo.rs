//! The quickstart mesh as a show: three hosts on this machine, ordinary programs talking, and what
//! the mesh and the wire say of it.

pub mod fleet;
pub mod metrics;
pub mod summary;

pub use fleet::{DemoError, Fleet};
pub use summary::Summary;
