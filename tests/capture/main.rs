//! Capture, in real network namespaces: what is redirected, what is let alone, and that nothing
//! gets past.
//!
//! Each case runs in a process of its own, in namespaces of its own: as root among many users,
//! where the rules know the proxy by its user, and, as anybody, in a user namespace of one user,
//! where they know it by its mark. Where namespaces cannot be had every case fails and says so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, with all it last saw"
)]

mod churn;
mod coexistence;
mod command;
mod escape;
mod forgery;
mod guests;
mod guests_bridge;
mod guests_quic;
mod guests_udp;
mod host;
mod host_udp;
mod keeper;
mod names;
mod privileges;
mod programs;
mod proxy;
mod quic;
mod redirection;
mod relay;
mod room;
mod sets;
mod site;
mod smuggling;
mod udp;
mod upkeep;
mod wire;
