//! What the mesh means. Pure: no I/O, no async, no clock, no protobuf.
//!
//! Two forms of the same mesh live here. [`declaration`] is what the operator wrote, checked and
//! with every default filled in; [`compile`] turns it into the [`workload`]s and [`service`]s that
//! every process sees, indexed by [`view`]. [`outbound`] and [`inbound`] are the decisions a node
//! takes with that view, [`udp`] those on datagrams, [`waypoint`] those of a waypoint; [`balance`] picks an endpoint, [`sharing`] tells
//! apart who shares an address. [`names`] says what a name means to whom, [`binding`] who is behind which waypoint.
//! [`route`] is what a waypoint does with requests and [`traffic`] how it treats endpoints; [`authorization`]
//! is what it lets through, [`limit`] how much of that, [`attached`] how both are named. [`telemetry`] is what
//! it tells of all this, by [`expression`]s and in [`log_format`]s.
//! [`shared`] holds what most changes leave as it is.

pub mod attached;
pub mod authentication;
pub mod authorization;
pub mod balance;
pub mod binding;
pub mod compile;
pub mod condition;
pub mod declaration;
pub mod expression;
pub mod inbound;
pub mod limit;
pub mod log_format;
pub mod names;
pub mod outbound;
pub mod policy;
pub mod route;
pub mod service;
pub mod shared;
pub mod sharing;
pub mod telemetry;
#[cfg(test)]
pub(crate) mod testing;
pub mod traffic;
pub mod udp;
pub mod view;
pub mod waypoint;
pub mod workload;
