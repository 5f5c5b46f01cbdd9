//! The real binary in rigs: two nodes, a control plane and a machine outside, shared by all cases but
//! those of [`waypoints`], [`routing`], [`tracing`], [`units`] and [`churn`], which have rigs of their own.
//!
//! Runs as root and as an ordinary user, where user namespaces are allowed; where a rig cannot be
//! built every case fails with the one line that says why.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::result_large_err,
    reason = "a test fails by panicking, with all it last saw"
)]

mod churn;
mod datagrams;
mod demo;
mod discovery;
mod dns;
mod doctor;
mod guest;
mod harm;
mod health;
mod joining;
mod lossy;

mod outage;
mod policy;
mod programs;
mod refusals;
mod routing;
mod support;
mod tracing;
mod traffic;
mod trust;
mod udp;
mod units;
mod units_udp;
mod waypoints;
