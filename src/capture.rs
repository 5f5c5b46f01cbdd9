//! Takes over the traffic of a workload that lives in a network namespace of its own: one
//! `inet lateen` table and a return route there, and every socket the data path uses (DESIGN §7).
//!
//! [`attach`] finds the namespace. [`ruleset`] says what the rules are, [`mod@apply`] puts them in
//! place and removes them, [`reconcile`] keeps them there. [`sockets`] is the only place data-path
//! sockets come from, and opens them in a [`place`], by itself or by asking [the
//! keeper](kept), which is where the powers are; [`privilege`] is about having them, and [`mod@command`] about
//! programs that have none. Nothing here knows what the mesh means.

pub mod apply;
pub mod attach;
pub mod cgroups;
pub mod command;
mod elements;
mod error;
pub mod host;
pub mod keeping;
pub mod kept;
mod links;
mod listing;
pub mod near;
pub mod netns;
mod open;
pub mod place;
pub mod preflight;
pub mod privilege;
pub mod reconcile;
mod replace;
pub mod rollback;
mod routes;
pub mod ruleset;
pub mod sockets;
mod spawn;
pub mod strict;
pub mod terms;
mod tool;
pub mod users;
mod watch;

pub use apply::{Applied, apply, clear};
pub use attach::{AttachError, Target};
pub use command::Ran;
pub use error::CaptureError;
pub use host::{Host, Wanted};
pub use keeping::Keeping;
pub use netns::Netns;
pub use place::Place;
pub use preflight::{PreflightError, preflight};
pub use privilege::{Exemption, PrivilegeError};
pub use reconcile::Reconcile;
pub use ruleset::host::Mark;
pub use ruleset::{Datagrams, Exclusions, HostPlan, Plan, WantedDatagrams, plan};
pub use sockets::{Arrival, Arrivals, Captured, ConnectError, Sockets, original_destination};
pub use strict::Strict;
pub use terms::Terms;
