//! What operators and probes ask a running process: readiness and metrics over TCP, everything
//! else over a unix socket that only its owner may open (`spec/reliability.md` §2 row 46).

pub mod client;
pub mod server;

pub use server::{Answer, Listener, Routes, serve};

/// Name of the unix socket, in the runtime directory.
pub const SOCKET: &str = "admin.sock";
