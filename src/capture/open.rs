//! Opens sockets on the network that this thread is in, as they are everywhere on the data path:
//! marked, and where needed allowed to bear a foreign address (`spec/hbone-dataplane.md` §2.1, §3.5,
//! §6.5).

pub(super) mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::kept::protocol::Family;
use super::netns::Netns;
use super::ruleset::{OUTBOUND_PORT, PROXY_MARK};
use crate::sys;

/// Connections that may wait to be accepted (`spec/hbone-dataplane.md` §6.5).
const BACKLOG: i32 = 4096;
/// Silence before the first keepalive, and between further ones (§10).
const KEEPALIVE: Duration = Duration::from_secs(180);
/// Keepalives without an answer that end a connection (§10).
const KEEPALIVES: u32 = 9;

/// Where a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a workload's own namespace. Not IP_TRANSPARENT: what is redirected comes to an address
    /// there, and without it nobody reaches the listener under any other.
    InNamespace,
    /// On the host's network, where connections of guests come under the addresses they are for.
    OnHost,
}

impl Kind {
    /// What listens in a namespace; the host's network is the one of this process.
    pub(super) fn of(ns: &Netns) -> io::Result<Self> {
        Ok(match Netns::current()? == *ns {
            true => Self::OnHost,
            false => Self::InNamespace,
        })
    }

    /// What a listener bears. What it accepts takes the mark of its opener's packets where the
    /// listener has none.
    fn mark(self, port: u16) -> Option<u32> {
        match self {
            Self::OnHost if port == OUTBOUND_PORT => None,
            Self::OnHost | Self::InNamespace => Some(PROXY_MARK),
        }
    }
}

/// Listens on a port of every address, IPv4 and IPv6.
pub(super) fn listen(kind: Kind, port: u16) -> io::Result<Socket> {
    match listener(kind, Ipv6Addr::UNSPECIFIED.into(), port) {
        // IPv6 is switched off in this namespace.
        Err(e) if is_no_ipv6(&e) => listener(kind, Ipv4Addr::UNSPECIFIED.into(), port),
        other => other,
    }
}

/// Has a socket of every address, or of all of IPv4, take what is for others.
fn transparent(socket: &Socket, any: IpAddr) -> io::Result<()> {
    // Of an IPv6 socket this is said for what comes by IPv4.
    socket.set_ip_transparent_v4(true)?;
    match any {
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    let no_family = error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error());
    no_family || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listener(kind: Kind, any: IpAddr, port: u16) -> io::Result<Socket> {
    let at = SocketAddr::new(any, port);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if kind == Kind::OnHost {
        transparent(&socket, any)?;
    }
    // Not SO_REUSEPORT: another program of the same user could take a share of the connections.
    socket.set_reuse_address(true)?;
    if let Some(mark) = kind.mark(port) {
        socket.set_mark(mark)?;
    }
    socket.set_nonblocking(true)?;
    // What is accepted has these too.
    tune(&socket)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// To connect to `to` with, as `from` where that can be.
pub(super) fn connector(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
    let family = Family::of(to.ip());
    let socket = stream(family)?;
    if source(to, from).is_some() {
        any_address(&socket, family)?;
    }
    appear(&socket, to, from)?;
    Ok(socket)
}

/// To connect with from whatever address.
pub(super) fn dialer(family: Family) -> io::Result<Socket> {
    let socket = stream(family)?;
    any_address(&socket, family)?;
    Ok(socket)
}

fn stream(family: Family) -> io::Result<Socket> {
    let socket = Socket::new(family.domain(), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    tune(&socket)?;
    Ok(socket)
}

/// Lets a socket bear an address that is not this network's.
fn bear_any(socket: &Socket, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => {
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)
        }
        Family::V6 => {
            socket.set_ip_transparent_v6(true)?;
            socket.set_freebind_v6(true)
        }
    }
}

/// The same of a socket to connect with.
fn any_address(socket: &Socket, family: Family) -> io::Result<()> {
    bear_any(socket, family)?;
    // Else one client would have no more ports than there are, over all of a host's programs.
    sys::set_bind_address_no_port(socket)
}

/// Has a connection to `to` appear to come from `from`, where it can.
pub(super) fn appear(socket: &Socket, to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    match source(to, from) {
        Some(from) => socket.bind(&SocketAddr::new(from, 0).into()),
        None => Ok(()),
    }
}

/// The address to appear as: never the destination's own, since a program that answers itself
/// needs no bending of routes (§3.5).
fn source(to: SocketAddr, from: Option<IpAddr>) -> Option<IpAddr> {
    let from = from?.to_canonical();
    (from.is_ipv4() == to.is_ipv4() && from != to.ip()).then_some(from)
}

/// Settings of every connection that carries a program's bytes, and of listeners, whose
/// connections inherit them.
fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(KEEPALIVES);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_borrowed_only_where_it_can_and_need_be() {
        for (name, to, from, want) in [
            ("a client", "10.0.0.2:80", "10.0.0.9", Some("10.0.0.9")),
            ("mapped", "10.0.0.2:80", "::ffff:10.0.0.9", Some("10.0.0.9")),
            ("itself", "10.0.0.2:80", "10.0.0.2", None),
            ("other family", "10.0.0.2:80", "fd00::9", None),
            ("IPv6", "[fd00::2]:80", "fd00::9", Some("fd00::9")),
        ] {
            let got = source(to.parse().unwrap(), Some(from.parse().unwrap()));
            assert_eq!(got, want.map(|w| w.parse().unwrap()), "{name}");
        }
    }
}
