//! HTTP/3 as tunnels need it, on QUIC: CONNECT to bytes both ways and CONNECT to datagrams
//! (RFC 9114, 9204, 9220, 9297, 9298). Nothing here knows what they carry, or who speaks.
//!
//! [`client()`] and [`server()`] take a [`quinn::Connection`] whose handshake is done, and give what
//! makes or takes requests beside a [`Driver`] that keeps the connection going. Either way a
//! request ends in a [`Stream`], which a CONNECT for UDP turns into a [`Flow`].
//!
//! QUIC's transport is the caller's to set, best with [`Closable`] about its congestion control.
//!
//! It is written on QUIC directly, since a tunnel has to know an end from a cut both ways, to send
//! without copying, and to wait for either in one poll.

mod budget;
mod capsule;
mod client;
mod congestion;
mod control;
mod datagram;
mod driver;
mod error;
mod flow;
mod frame;
mod head;
mod linger;
mod message;
mod qpack;
mod reader;
mod server;
mod settings;
mod shared;
mod stream;
mod varint;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use capsule::UdpCapsules;
pub use client::{Client, client};
pub use congestion::Closable;
pub use driver::Driver;
pub use error::{Code, Ended, Fault, RequestError, StreamError};
pub use flow::{Flow, Oversize, Sent};
pub use head::{Request, Response};
pub use server::{Incoming, Responder, Server, server};
pub use settings::Settings;
pub use stream::Stream;

/// The bounds of a connection. How many streams there may be, and how much may be on the way, is
/// QUIC's to bound.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a head that we take, decoded and with 32 for each field (RFC 9114 §4.2.2);
    /// 64 KiB.
    pub field_section: u64,
    /// Fields of a head that we take; 128.
    pub fields: usize,
    /// Whether datagrams are taken, as QUIC's transport is set to take them or not; true.
    pub datagrams: bool,
    /// How long what was sent on a stream that is closed may take to arrive; 30 s.
    pub linger: Duration,
    /// Frames and streams beside requests that a peer may send in a minute, none of which it needs
    /// often; 60.
    pub chatter: u32,
    /// Requests in a minute that a peer may withdraw before they are answered, or send malformed, and
    /// as many again that it may make after our GOAWAY: no fewer than it may have open; 200.
    pub wasted: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            field_section: 64 << 10,
            fields: 128,
            datagrams: true,
            linger: Duration::from_secs(30),
            chatter: 60,
            wasted: 200,
        }
    }
}
