//! A waypoint between a real client and real endpoints, in one process.

mod attempts;
mod changes;
mod http;
mod mirrors;
mod program;
mod routes;
mod secure;
mod sessions;
mod tcp;
mod traffic;
