//! Moves bytes between peers: HTTP/2 CONNECT in mutual TLS 1.3 over TCP, wire-compatible with
//! Istio's HBONE (`spec/hbone-dataplane.md` §1).
//!
//! [`Pool::connect`] opens a [`Tunnel`] to a peer whose identity it proves, [`serve`] accepts them,
//! [`relay`] carries a TCP connection through one. Nothing here knows workloads or policy: whom to
//! reach and whom to let in are handed over.

mod accept;
pub mod activity;
mod authority;
mod connect;
mod copy;
mod flow;
pub mod headers;
mod io;
mod liveness;
mod masque;
mod memory;
mod pool;
mod quic;
mod socket;
mod stream;
mod tunnel;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use accept::{AcceptError, Handler, Incoming, Refusal, serve};
pub use authority::{Authority, AuthorityError};
pub use connect::{
    Carries, ConnectError, ConnectRequest, ConnectResponse, Connector, DialError, Hop, Transport,
};
pub use copy::{RelayError, Traffic, relay, relay_tcp, relay_tunnels, reset};
pub use flow::Flow;
pub use io::{Closer, TunnelIo};
pub use pool::Pool;
pub use quic::{Arrival, Congestion, Endpoint, Links, Quic, QuicError, ResetKey, serve_quic};
pub use tunnel::{Tunnel, TunnelError};

/// The limits of tunnels; the defaults are those of `spec/hbone-dataplane.md` §1.
#[derive(Clone, Debug)]
pub struct Limits {
    /// TCP, TLS and HTTP/2 preface together, either end; 10 s.
    pub handshake: Duration,
    /// QUIC, TLS and HTTP/3 together, from the client's end; 3 s, after which UDP counts as blocked.
    pub quic_handshake: Duration,
    /// How long a peer is left alone that QUIC does not reach, where TCP does instead; 5 min, and twice as
    /// long each time after.
    pub probe: Duration,
    /// How this host speaks QUIC.
    pub quic: Quic,
    /// From our CONNECT to its answer; 15 s, past the peer's own connect budget of 10 s.
    pub response: Duration,
    /// Streams on one connection that we open, where the peer allows as many; 100.
    pub streams_out: usize,
    /// Streams on one connection that a peer may open; 200.
    pub streams_in: u32,
    /// Connections per peer and identity opened for load; more only when all their streams are
    /// taken; 4.
    pub connections: usize,
    /// Live streams on the least loaded connection from which another is opened; 64. Many small
    /// streams are cheapest together, where one write carries what several of them say.
    pub busy: usize,
    /// Connections per peer and identity in all; 256, with 100 streams each more than a workload's
    /// connections.
    pub connections_max: usize,
    /// Share of its time in percent that a connection's task is at work from which another is
    /// opened, since one task is one core at most; 70.
    pub busy_share: u32,
    /// Bytes per second, both ways together, from which a connection counts as taken up by bulk, and
    /// the next stream has one of its own; 16 MiB.
    pub bulk: u64,
    /// How long a new stream waits for a connection being made so, rather than be carried behind the
    /// bulk; 50 ms.
    pub aside: Duration,
    /// How long a connection is kept that lends no stream; 5 min.
    pub idle: Duration,
    /// How long a peer may keep a connection without a tunnel; 1 h.
    pub idle_in: Duration,
    /// How long a failed dial answers for further ones; 1 s.
    pub negative: Duration,
    /// The same where nobody listens: that is told at once, costs little to ask again, and may be over as
    /// soon as somebody does; 100 ms.
    pub refused: Duration,
    /// Silence after which a connection is pinged; 10 s.
    pub ping_after: Duration,
    /// Longest wait for the answer to a ping; 20 s.
    pub ping_timeout: Duration,
    /// Receive window of a stream; 4 MiB.
    pub stream_window: u32,
    /// Receive window of a connection; 16 MiB, above the stream's so that one stalled stream
    /// cannot block the others.
    pub connection_window: u32,
    /// Largest frame we take; 1 MiB.
    pub frame: u32,
    /// Bytes of one stream of ours that wait for the network before its program is held back;
    /// 256 KiB, twice what a relay reads at once.
    pub send_buffer: usize,
    /// How long a stream that we reset is remembered; 30 s. What a peer had on the way to it is
    /// thrown away meanwhile; after that it counts as the peer's offence, and enough offences close
    /// the connection under all its tunnels.
    pub reset_memory: Duration,
    /// How many streams are remembered so; 1024.
    pub resets_kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            quic_handshake: Duration::from_secs(3),
            probe: Duration::from_secs(300),
            quic: Quic::default(),
            response: Duration::from_secs(15),
            streams_out: 100,
            streams_in: 200,
            connections: 4,
            busy: 64,
            busy_share: 70,
            connections_max: 256,
            bulk: 16 << 20,
            aside: Duration::from_millis(50),
            idle: Duration::from_secs(300),
            idle_in: Duration::from_secs(3600),
            negative: Duration::from_secs(1),
            refused: Duration::from_millis(100),
            ping_after: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame: 1 << 20,
            send_buffer: 256 << 10,
            reset_memory: Duration::from_secs(30),
            resets_kept: 1024,
        }
    }
}
