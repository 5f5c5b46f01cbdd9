//! A waypoint between a real client and real endpoints, in one process.

mod attempts;
mod calls;
mod changes;
mod custom;
mod exports;
mod framing;
mod headers;
mod http;
mod http2;
mod logs;
mod mirrors;
mod outside;
mod program;
mod raw;
mod routes;
pub(super) mod secure;
mod sessions;
mod silence;
mod sniff;
mod tcp;
mod telling;
mod tokens;
mod traces;
mod traffic;
