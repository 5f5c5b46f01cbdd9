//! A waypoint between a real client and real endpoints, in one process.

mod http;
mod tcp;
