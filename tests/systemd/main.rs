//! The units, installed by `make`: systemd's own judgement of them, and how they run under a real
//! systemd in namespaces of its own.
//!
//! Where systemd is not there, or its namespaces cannot be had, a case says by name that it is
//! skipped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, with all it last saw, and says that it is skipped"
)]

mod control;
mod install;
mod machine;
mod node;
mod units;
