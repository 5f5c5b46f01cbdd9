//! How QUIC is set (`spec/hbone-dataplane.md` §11.1).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
};
use quinn_proto::HashedConnectionIdGenerator;

use super::ResetKey;
use super::links::LONGEST;
use super::near::ByDistance;
use crate::h3::Closable;
use crate::hbone::Limits;
use crate::tls;

/// QUIC version 1 (RFC 9000 §15).
const VERSION: u32 = 1;
/// Streams of a peer's own beside requests: HTTP/3 has three.
const UNI: u32 = 8;
/// How long a connection may be silent, in milliseconds.
const IDLE: VarInt = VarInt::from_u32(30_000);
/// How often an end says that it is there, to which nothing comes.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The same of one that may be elsewhere all of a sudden: what comes goes to where it was until it speaks.
const KEEP_ALIVE_ROAMING: Duration = Duration::from_secs(3);
/// Datagrams that wait, in bytes, each way.
const DATAGRAMS: usize = 1 << 20;
/// How long it may keep an acknowledgement to itself, where it does as it is asked
/// (draft-ietf-quic-ack-frequency). What nothing comes after is known to be lost only after that, and the
/// 25 ms of RFC 9000 (§18.2) are many times the round trip between machines of one room.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Handshakes that nobody has taken up yet, and what of their packets is kept meanwhile.
const INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_BYTES_ALL: u64 = 16 << 20;

/// How much may be on the way at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// By the rate at which it arrives (BBR): a lossy link is not a full one.
    #[default]
    Bbr,
    /// By loss (RFC 9438).
    Cubic,
}

pub(super) fn endpoint(network: &str, reset: ResetKey) -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::new(Arc::new(reset.tokens(network)));
    let ids = reset.ids(network);
    config
        .max_udp_payload_size(LONGEST)
        .map_err(io::Error::other)?
        .supported_versions(vec![VERSION])
        // Else packets for a process that is gone would not even be taken for such.
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    Ok(config)
}

/// For handshakes until it is known whom they are for: nobody is here.
pub(super) fn nobody() -> io::Result<ServerConfig> {
    let tls = tls::quic_nobody().map_err(io::Error::other)?;
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL);
    Ok(config)
}

/// The same at both ends, to a peer towards which packets have a payload of `longest` bytes at most.
pub(super) fn transport(limits: &Limits, longest: u16) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(longest);
    let keep_alive = match limits.quic.roaming {
        true => KEEP_ALIVE_ROAMING,
        false => KEEP_ALIVE,
    };
    config
        .max_concurrent_bidi_streams(limits.streams_in.into())
        .max_concurrent_uni_streams(UNI.into())
        .max_idle_timeout(Some(IDLE.into()))
        .keep_alive_interval(Some(keep_alive))
        .stream_receive_window(limits.stream_window.into())
        .receive_window(limits.connection_window.into())
        .send_window(limits.connection_window.into())
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .mtu_discovery_config(Some(mtu));
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(ACK_DELAY));
    config.ack_frequency_config(Some(acks));
    config.congestion_controller_factory(Arc::new(match limits.quic.congestion {
        Congestion::Bbr => Closable::new(ByDistance::new(BbrConfig::default())),
        Congestion::Cubic => Closable::new(ByDistance::new(CubicConfig::default())),
    }));
    config
}
