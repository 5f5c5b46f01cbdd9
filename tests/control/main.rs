//! The control role as a process of its own on loopback: what its port lets in, and what its state
//! directory survives; and what verbs print. Needs neither root nor namespaces, but for the one case that
//! fills a disk.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, with all it last saw"
)]

mod damage;
mod full_disk;
mod joining;
mod kills;
mod peers;
mod port;
mod printing;
mod support;
