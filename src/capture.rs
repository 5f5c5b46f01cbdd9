//! Takes over the traffic of a workload that lives in a network namespace of its own: one
//! `inet lateen` table and a return route there, and every socket the data path uses (DESIGN §7).
//!
//! [`ruleset`] says what the rules are, [`apply`] puts them in place, mends and removes them,
//! [`sockets`] is the only place data-path sockets come from, so that the half of this that needs
//! privileges can become a process of its own. Nothing here knows what the mesh means.

pub mod apply;
pub mod netns;
pub mod privilege;
pub mod ruleset;
pub mod sockets;
mod tool;
pub mod watch;

pub use apply::{Applied, CaptureError, apply, clear};
pub use netns::Netns;
pub use privilege::{Exemption, PrivilegeError};
pub use ruleset::{Plan, plan};
pub use sockets::{Sockets, original_destination};
pub use watch::Changes;
