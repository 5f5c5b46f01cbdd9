//! A waypoint between a real client and real endpoints, in one process.

mod framing;
mod headers;
mod http;
mod http2;
mod raw;
mod sniff;
mod tcp;
