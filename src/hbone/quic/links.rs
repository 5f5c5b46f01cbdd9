//! How long packets may be on the link towards a peer, as far as this host knows before it sends any.
//!
//! What a path takes QUIC finds out for itself, by packets that may be lost (RFC 8899, spec
//! `hbone-dataplane.md` §11.1); but it must be told up to where it is worth trying. Where links have room for
//! 9,000 bytes a packet carries six times as much, and packets are most of what QUIC costs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use rustix::net::connect_unspec;
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};

/// Longest payload of a packet, whatever the link: that of a jumbo frame by IPv4.
pub(super) const LONGEST: u16 = 9000 - IPV4;
/// The same where nobody knows the link: what Ethernet takes by IPv6.
const USUAL: u16 = 1500 - IPV6;
/// The least that QUIC does with (RFC 9000 §14).
const LEAST: u16 = 1200;
/// Headers before the payload.
const IPV4: u16 = 20 + 8;
const IPV6: u16 = 40 + 8;

/// What the routes of one network say of links. Clones of an endpoint share them.
#[derive(Debug, Default)]
pub struct Links {
    ipv4: Option<Mutex<UdpSocket>>,
    ipv6: Option<Mutex<UdpSocket>>,
}

impl Links {
    /// Asks the kernel by these sockets, of IPv4 and of IPv6, neither bound nor connected: in their network and
    /// with their mark. Without one, links to peers of that family count as Ethernet.
    pub fn new(ipv4: Option<UdpSocket>, ipv6: Option<UdpSocket>) -> Self {
        Self {
            ipv4: ipv4.map(Mutex::new),
            ipv6: ipv6.map(Mutex::new),
        }
    }

    /// Those of the network that this process is in.
    pub fn here() -> Self {
        let open = |any: IpAddr| UdpSocket::bind((any, 0)).ok();
        Self::new(
            open(Ipv4Addr::UNSPECIFIED.into()),
            open(Ipv6Addr::UNSPECIFIED.into()),
        )
    }

    /// Longest payload that the link towards a peer has room for, in bytes: from 1,200 to [`LONGEST`].
    pub(super) fn longest(&self, to: SocketAddr) -> u16 {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.room(to).unwrap_or(USUAL).clamp(LEAST, LONGEST)
    }

    fn room(&self, to: SocketAddr) -> Option<u16> {
        let (socket, headers) = match to {
            SocketAddr::V4(_) => (self.ipv4.as_ref()?, IPV4),
            SocketAddr::V6(_) => (self.ipv6.as_ref()?, IPV6),
        };
        // Two that ask at the same time must not get each other's answer.
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        // Else it would look for the route of the address that it spoke from last.
        connect_unspec(&*socket).ok()?;
        // Of a datagram socket this sends nothing: it looks for the route.
        socket.connect(to).ok()?;
        let mtu = match to {
            SocketAddr::V4(_) => ip_mtu(&*socket),
            SocketAddr::V6(_) => ipv6_mtu(&*socket),
        };
        let mtu = u16::try_from(mtu.ok()?).unwrap_or(u16::MAX);
        Some(mtu.saturating_sub(headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_tells_how_long_packets_may_be() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 15008);
        // The loopback's is 65,536.
        for (links, to, want) in [
            (Links::here(), "127.0.0.1", LONGEST),
            (Links::here(), "::ffff:127.0.0.1", LONGEST),
            (Links::here(), "::1", LONGEST),
            (Links::default(), "127.0.0.1", USUAL),
            (Links::default(), "::1", USUAL),
        ] {
            assert_eq!(links.longest(at(to)), want, "{to}");
        }
    }
}
