//! Every socket of the data path: opened inside a workload's namespace, marked, and where needed
//! allowed to bear a foreign address (`spec/hbone-dataplane.md` §2.1, §3.5, §6.5).
//!
//! What asks for sockets does not care where they come from: that is what lets the privileged half
//! become a process of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::netns::Netns;
use super::ruleset::PROXY_MARK;
use crate::sys;

/// Connections that may wait to be accepted (`spec/hbone-dataplane.md` §6.5).
const BACKLOG: i32 = 4096;
/// Longest TCP connect (§2.6).
const CONNECT: Duration = Duration::from_secs(10);
/// Silence before the first keepalive, and between further ones (§10).
const KEEPALIVE: Duration = Duration::from_secs(180);
/// Keepalives without an answer that end a connection (§10).
const KEEPALIVES: u32 = 9;

/// Opens sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets(());

impl Sockets {
    /// Sockets opened by this process itself, which must be privileged for it.
    pub fn new() -> Self {
        Self(())
    }

    /// Listens on a port of every address of the namespace, IPv4 and IPv6.
    ///
    /// # Errors
    /// When the port is taken or the namespace may not be entered.
    pub async fn listen(&self, ns: &Netns, port: u16) -> io::Result<TcpListener> {
        let listener = ns.within(|| {
            let both = listener(Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
            match both {
                // IPv6 is switched off in this namespace.
                Err(e) if is_no_ipv6(&e) => {
                    listener(Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
                }
                other => other,
            }
        })??;
        TcpListener::from_std(listener.into())
    }

    /// Connects from inside the namespace, within 10 s; `from` is an address to appear as.
    ///
    /// # Errors
    /// As TCP has them; [`io::ErrorKind::TimedOut`] when the time is over.
    pub async fn connect(
        &self,
        ns: &Netns,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<TcpStream> {
        let socket = ns.within(|| connector(to, from))??;
        let socket = TcpSocket::from_std_stream(socket.into());
        match tokio::time::timeout(CONNECT, socket.connect(to)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer from {to} within {} s", CONNECT.as_secs()),
            )),
        }
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    no_family || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listener(domain: Domain, any: IpAddr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn connector(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    tune(&SockRef::from(&socket))?;
    if let Some(from) = from.filter(|f| f.is_ipv4() == to.is_ipv4()) {
        match from {
            IpAddr::V4(_) => {
                socket.set_ip_transparent_v4(true)?;
                socket.set_freebind_v4(true)?;
            }
            IpAddr::V6(_) => {
                sys::set_ipv6_transparent(&socket)?;
                socket.set_freebind_v6(true)?;
            }
        }
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    Ok(socket)
}

/// Settings of every connection that carries a program's bytes.
///
/// # Errors
/// When the socket is gone.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(KEEPALIVES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Where a redirected connection was going.
///
/// # Errors
/// When the socket is gone.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    // The IPv4 option also works on a dual-stack socket, so it is asked first.
    let redirected = socket
        .original_dst_v4()
        .or_else(|_| socket.original_dst_v6());
    let address = match redirected {
        Ok(address) => address.as_socket(),
        // Not redirected at all: the connection is for the address it arrived at.
        Err(_) => None,
    };
    let address = match address {
        Some(address) => address,
        None => stream.local_addr()?,
    };
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}
