//! Every socket of the data path: opened inside a workload's namespace, marked, and where needed
//! allowed to bear a foreign address (`spec/hbone-dataplane.md` §2.1, §3.5, §6.5).
//!
//! What asks for sockets does not care where they come from: that is what lets the privileged half
//! become a process of its own. The capture rules know the proxy by the user who *opened* a socket
//! and by its mark, so whoever opens them does it as the proxy's user, and leaves none unmarked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::apply::{CaptureError, clear};
use super::attach::{AttachError, Target};
use super::command::{self, Ran};
use super::keeping::{By, Keeping};
use super::netns::Netns;
use super::place::{Origin, Place};
use super::privilege::Exemption;
use super::reconcile::{Reconcile, State};
use super::ruleset::{PROXY_MARK, plan};
use crate::sys;

/// Connections that may wait to be accepted (`spec/hbone-dataplane.md` §6.5).
const BACKLOG: i32 = 4096;
/// Longest TCP connect (§2.6).
const CONNECT: Duration = Duration::from_secs(10);
/// Silence before the first keepalive, and between further ones (§10).
const KEEPALIVE: Duration = Duration::from_secs(180);
/// Keepalives without an answer that end a connection (§10).
const KEEPALIVES: u32 = 9;

/// Opens sockets, and has rules kept.
#[derive(Clone, Debug)]
pub struct Sockets(Exemption);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody said anything: a firewall, or a host that is gone.
    #[error("no answer from {to} within {} s", CONNECT.as_secs())]
    TimedOut {
        /// Where to.
        to: SocketAddr,
    },
    /// The host is there and nothing listens.
    #[error("{to} refused the connection")]
    Refused {
        /// Where to.
        to: SocketAddr,
    },
    /// There is no way there, as this namespace's routes or a router on the way say.
    #[error("cannot reach {to}")]
    Unreachable {
        /// Where to.
        to: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The fault is on this side: no descriptor, no port or no right to the source address.
    #[error("cannot open a connection to {to}")]
    Local {
        /// Where to.
        to: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Sockets {
    /// Sockets opened by this process itself, which must be privileged for it, and by rules that
    /// know it by `exemption`.
    pub fn own(exemption: Exemption) -> Self {
        Self(exemption)
    }

    /// The network of this host.
    ///
    /// # Errors
    /// When /proc is not there.
    pub async fn host(&self) -> io::Result<Place> {
        Ok(Netns::current()?.into())
    }

    /// The network a workload is on.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::Missing`] may pass when the workload starts.
    pub async fn attach(&self, target: &Target) -> Result<Place, AttachError> {
        Ok(target.attach()?.into())
    }

    /// Prepares to keep the rules in a place, with those for questions for names or without; the
    /// receiver tells how it goes.
    ///
    /// # Errors
    /// When the place may not be entered, or the kernel's notices not be had there.
    pub async fn keep(
        &self,
        place: &Place,
        dns: bool,
    ) -> io::Result<(Keeping, watch::Receiver<State>)> {
        let Origin::Own(ns) = &place.0;
        let plan = plan(&self.0);
        let plan = if dns { plan.with_dns() } else { plan };
        let (reconcile, state) = Reconcile::new(ns.clone(), plan)?;
        Ok((Keeping(By::Own(reconcile)), state))
    }

    /// Removes our rules from a place; what is not there is left alone.
    ///
    /// # Errors
    /// [`CaptureError`] when something of ours could not be removed.
    pub async fn release(&self, place: &Place) -> Result<(), CaptureError> {
        let Origin::Own(ns) = &place.0;
        clear(ns).await
    }

    /// Runs a command in a place, with none of this process's powers; `None` where it takes longer
    /// than `timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future kills the command, at the end of its time at the latest.
    ///
    /// # Errors
    /// When the place may not be entered, or the program not started.
    pub async fn run(
        &self,
        place: &Place,
        command: &[Arc<str>],
        timeout: Duration,
    ) -> io::Result<Option<Ran>> {
        let Origin::Own(ns) = &place.0;
        command::run(ns.clone(), command, timeout).await
    }

    /// Listens on a port of every address of the place, IPv4 and IPv6. Accepted connections
    /// inherit the mark. It does not block, and belongs to no event loop yet.
    ///
    /// # Errors
    /// When the port is taken or the place may not be entered.
    pub async fn listen(&self, place: &Place, port: u16) -> io::Result<std::net::TcpListener> {
        let Origin::Own(ns) = &place.0;
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
        Ok(listener.into())
    }

    /// A datagram socket that is bound to `at` and answers from there. It does not block, and
    /// belongs to no event loop yet.
    ///
    /// # Errors
    /// When the address is taken or not there, or the place may not be entered.
    pub async fn listen_udp(&self, place: &Place, at: SocketAddr) -> io::Result<UdpSocket> {
        let Origin::Own(ns) = &place.0;
        let socket = ns.within(|| datagrams(Domain::for_address(at), Some(at)))??;
        Ok(socket.into())
    }

    /// A datagram socket to ask hosts of the same family as `to` with. It is neither bound nor
    /// connected, does not block, and belongs to no event loop yet.
    ///
    /// # Errors
    /// When the place may not be entered or has no such family.
    pub async fn udp(&self, place: &Place, to: IpAddr) -> io::Result<UdpSocket> {
        let Origin::Own(ns) = &place.0;
        let domain = Domain::for_address(SocketAddr::new(to, 0));
        Ok(ns.within(|| datagrams(domain, None))??.into())
    }

    /// Whether an address is one of the place's own now.
    pub async fn owns(&self, place: &Place, ip: IpAddr) -> bool {
        let Origin::Own(ns) = &place.0;
        let bound = ns.within(|| {
            let any_port = SocketAddr::new(ip, 0);
            let socket = Socket::new(Domain::for_address(any_port), Type::DGRAM, None)?;
            socket.bind(&any_port.into())
        });
        matches!(bound, Ok(Ok(())))
    }

    /// Connects from inside the place, within 10 s; `from` is an address to appear as, and is
    /// passed over where it is of the other family or the destination's own.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        place: &Place,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<TcpStream, ConnectError> {
        let Origin::Own(ns) = &place.0;
        let local = |source| ConnectError::Local { to, source };
        let socket = ns.within(|| connector(to, from));
        let socket = socket.map_err(local)?.map_err(local)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        match tokio::time::timeout(CONNECT, socket.connect(to)).await {
            Ok(connected) => connected.map_err(|e| ConnectError::new(to, e)),
            Err(_elapsed) => Err(ConnectError::TimedOut { to }),
        }
    }
}

impl ConnectError {
    fn new(to: SocketAddr, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::TIMEDOUT) => Self::TimedOut { to },
            // A reset during the handshake is a refusal said late.
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => Self::Refused { to },
            Some(
                Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN
                | Errno::NONET
                | Errno::NOPROTOOPT
                | Errno::PROTO,
            ) => Self::Unreachable { to, source },
            _ => Self::Local { to, source },
        }
    }

    /// What std would call it.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Refused { .. } => io::ErrorKind::ConnectionRefused,
            Self::Unreachable { source, .. } | Self::Local { source, .. } => source.kind(),
        }
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    let no_family = error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error());
    no_family || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listener(domain: Domain, any: IpAddr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    // Not SO_REUSEPORT: another program of the same user could take a share of the connections.
    // Not IP_TRANSPARENT: what is redirected comes to an address of this host, and without it
    // nobody reaches the listener under any other.
    socket.set_reuse_address(true)?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    // What is accepted has these too.
    tune(&socket)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn datagrams(domain: Domain, at: Option<SocketAddr>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    if let Some(at) = at {
        socket.bind(&at.into())?;
    }
    Ok(socket)
}

fn connector(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(PROXY_MARK)?;
    socket.set_nonblocking(true)?;
    tune(&socket)?;
    if let Some(from) = source(to, from) {
        match from {
            IpAddr::V4(_) => {
                socket.set_ip_transparent_v4(true)?;
                socket.set_freebind_v4(true)?;
            }
            IpAddr::V6(_) => {
                socket.set_ip_transparent_v6(true)?;
                socket.set_freebind_v6(true)?;
            }
        }
        // Else one client would have no more ports than there are, over all of a host's programs.
        sys::set_bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    Ok(socket)
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

/// Where a redirected connection was going; the address it arrived at, where nobody redirected it.
///
/// # Errors
/// When the kernel does not say: then it is not known where the connection may go.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let arrived = canonical(stream.local_addr()?);
    // Asked for the wrong family, the kernel looks up another connection's addresses.
    let redirected = match arrived {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match redirected {
        Ok(address) => {
            let address = address.as_socket();
            let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            Ok(canonical(address))
        }
        Err(e) if is_not_tracked(&e) => Ok(arrived),
        Err(e) => Err(e),
    }
}

/// Connection tracking does not know the connection, or does not run.
fn is_not_tracked(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOPROTOOPT)
    )
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn the_kernels_words_are_told_apart() {
        let to: SocketAddr = "192.0.2.1:80".parse().unwrap();
        for (name, errno, want) in [
            ("silence", Errno::TIMEDOUT, "no answer from 192.0.2.1:80"),
            ("nobody listens", Errno::CONNREFUSED, "192.0.2.1:80 refused"),
            ("no route", Errno::NETUNREACH, "cannot reach 192.0.2.1:80"),
            ("no neighbour", Errno::HOSTUNREACH, "cannot reach"),
            ("no ports left", Errno::ADDRNOTAVAIL, "cannot open"),
            ("no descriptors", Errno::MFILE, "cannot open"),
            ("forbidden by a rule", Errno::PERM, "cannot open"),
        ] {
            let error = ConnectError::new(to, errno.into());
            assert!(error.to_string().starts_with(want), "{name}: {error}");
            let std = io::Error::from(errno).kind();
            assert_eq!(io::Error::from(error).kind(), std, "{name}");
        }
    }

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

    #[tokio::test]
    async fn an_address_is_owned_where_it_can_be_bound() {
        let sockets = Sockets::own(Exemption::Mark);
        let here = sockets.host().await.unwrap();
        for (ip, owned) in [("127.0.0.1", true), ("192.0.2.77", false)] {
            let owns = sockets.owns(&here, ip.parse().unwrap()).await;
            assert_eq!(owns, owned, "{ip}");
        }
    }

    #[tokio::test]
    async fn a_connection_nobody_redirected_goes_where_it_arrived() {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(ip.parse().unwrap(), port);
            let _client = TcpStream::connect(to).await.unwrap();
            let (stream, _peer) = listener.accept().await.unwrap();
            assert_eq!(original_destination(&stream).unwrap(), to, "{ip}");
        }
    }
}
