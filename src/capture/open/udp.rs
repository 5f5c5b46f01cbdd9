//! Datagram sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;

use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Kind, bear_any, is_no_ipv6, source, transparent};
use crate::capture::kept::protocol::Family;
use crate::capture::ruleset::{HBONE_PORT, PROXY_MARK, priority};
use crate::sys;

/// Bytes that a socket which many speak to holds for whoever reads it, and for the link: 30 ms of a
/// gigabit per second.
const BUFFER: usize = 4 << 20;

/// For datagrams, bound where told.
pub(in crate::capture) fn datagrams(domain: Domain, at: Option<SocketAddr>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    if let Some(at) = at {
        socket.bind(&at.into())?;
    }
    Ok(socket)
}

/// For tunnels over QUIC: their datagrams arrive at this port of every address, IPv4 and IPv6; on the host's
/// network of guests' too.
pub(in crate::capture) fn tunnels(kind: Kind) -> io::Result<Socket> {
    for_both(|socket, any| {
        if kind == Kind::OnHost {
            transparent(socket, any)?;
        }
        wide(socket, any, HBONE_PORT)
    })
}

/// For what is captured and brought to this port, whatever its destination, of which the kernel tells.
pub(in crate::capture) fn captured(port: u16) -> io::Result<Socket> {
    for_both(|socket, any| {
        transparent(socket, any)?;
        sys::tell_destinations(socket.as_fd(), any.is_ipv6())?;
        wide(socket, any, port)
    })
}

/// A socket of every address, IPv4 and IPv6, that is made ready so.
fn for_both(ready: impl Fn(&Socket, IpAddr) -> io::Result<()>) -> io::Result<Socket> {
    let made = |any: IpAddr| {
        let socket = datagrams(Domain::for_address(SocketAddr::new(any, 0)), None)?;
        if any.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        ready(&socket, any)?;
        Ok(socket)
    };
    match made(Ipv6Addr::UNSPECIFIED.into()) {
        // IPv6 is switched off in this namespace.
        Err(e) if is_no_ipv6(&e) => made(Ipv4Addr::UNSPECIFIED.into()),
        other => other,
    }
}

fn wide(socket: &Socket, any: IpAddr, port: u16) -> io::Result<()> {
    widen(socket)?;
    // Not SO_REUSEADDR: of datagrams, whoever bound last would get all.
    socket.bind(&SocketAddr::new(any, port).into())
}

/// Room for what arrives while a thread of the proxy does something else, as far as this system lets
/// us have it.
fn widen(socket: &Socket) -> io::Result<()> {
    // Beyond the limit of net.core only with NET_ADMIN over the host, which a user namespace has not.
    if set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    if set_socket_send_buffer_size_force(socket, BUFFER).is_err() {
        socket.set_send_buffer_size(BUFFER)?;
    }
    Ok(())
}

/// To answer programs and clients with, as from where they asked. Its own port is any: the rules put the
/// right one into what it sends, since a program here may have that, or it may take powers.
pub(in crate::capture) fn answering(from: SocketAddr) -> io::Result<Socket> {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let socket = borne(Family::of(from.ip()))?;
    socket.set_priority(priority(from.port()))?;
    socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
    Ok(socket)
}

/// To speak to programs with, from whatever address; neither bound nor connected.
pub(in crate::capture) fn borne(family: Family) -> io::Result<Socket> {
    let socket = datagrams(family.domain(), None)?;
    bear_any(&socket, family)?;
    Ok(socket)
}

/// Connects a socket of [`borne`] as from `from`, where it can appear so; the port is another where this
/// one is somebody's here, or takes powers.
pub(in crate::capture) fn speak(
    socket: &Socket,
    to: SocketAddr,
    from: Option<SocketAddr>,
) -> io::Result<()> {
    if let Some(ip) = source(to, from.map(|from| from.ip())) {
        let port = from.map_or(0, |from| from.port());
        if port == 0 || !bound(socket, SocketAddr::new(ip, port))? {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
    }
    socket.connect(&to.into())
}

/// Whether a socket could be bound to a port that others of ours may be bound to as well, who speak to
/// other programs.
fn bound(socket: &Socket, at: SocketAddr) -> io::Result<bool> {
    socket.set_reuse_address(true)?;
    match socket.bind(&at.into()) {
        Ok(()) => Ok(true),
        Err(e) if is_taken(&e) => {
            // Of ports that the kernel chooses, each is one socket's.
            socket.set_reuse_address(false)?;
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}
