//! Every socket of the data path: opened inside a workload's namespace, marked, and where needed
//! allowed to bear a foreign address (`spec/hbone-dataplane.md` §2.1, §3.5, §6.5).
//!
//! What asks for sockets does not care where they come from: this process, or the keeper, where
//! this one has no powers. The capture rules know the proxy's sockets by the user who *opened* them
//! and by their mark, so whoever opens them is a user of its own, and leaves none unmarked.

mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::apply::clear;
use super::attach::{AttachError, Target};
use super::command::{self, Ran};
use super::error::CaptureError;
use super::keeping::{self, Keeping};
use super::kept::link::Link;
use super::kept::protocol::{Family, Network};
use super::kept::{Kept, unattached};
use super::netns::Netns;
use super::open::{self, Kind};
use super::place::{Origin, Place};
use super::reconcile::{Reconcile, State};
use super::terms::Terms;

pub use udp::{Arrival, Arrivals, Captured};

/// Longest TCP connect (§2.6).
const CONNECT: Duration = Duration::from_secs(10);

/// Opens sockets, and has rules kept.
#[derive(Clone, Debug)]
pub struct Sockets(By);

/// Who does it.
#[derive(Clone, Debug)]
enum By {
    /// This process, by rules on these terms, which must know it.
    Own(Arc<Terms>),
    /// The keeper.
    Kept(Kept),
}

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
    /// Sockets opened by this process itself, which must be privileged for it, and rules on these
    /// terms, which must know it.
    pub fn own(terms: impl Into<Terms>) -> Self {
        Self(By::Own(Arc::new(terms.into())))
    }

    /// What rules that this process itself makes go by.
    pub(in crate::capture) fn terms(&self) -> Option<&Terms> {
        match &self.0 {
            By::Own(terms) => Some(terms),
            By::Kept(_) => None,
        }
    }

    /// Sockets opened by the keeper that listens at `path`, with the component that asks it.
    pub fn kept(path: &Path) -> (Self, Link) {
        let (kept, link) = Kept::at(path);
        (Self(By::Kept(kept)), link)
    }

    /// The network of this host.
    ///
    /// # Errors
    /// When /proc is not there, or the keeper is not.
    pub async fn host(&self) -> io::Result<Place> {
        match &self.0 {
            By::Own(_) => Ok(Netns::current()?.into()),
            By::Kept(kept) => Ok(Place(Origin::Kept(kept.attach(Network::Host).await?))),
        }
    }

    /// The network a workload is on.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::Missing`] may pass when the workload starts.
    pub async fn attach(&self, target: &Target) -> Result<Place, AttachError> {
        let By::Kept(kept) = &self.0 else {
            return Ok(target.attach()?.into());
        };
        let network = match target {
            Target::Netns(name) => Network::Netns(Arc::clone(name)),
            _on_host => Network::Host,
        };
        let name = Arc::from(network.name());
        let attached = kept.attach(network).await;
        let attached = attached.map_err(|e| unattached(&name, e))?;
        Ok(Place(Origin::Kept(attached)))
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
        match (&place.0, &self.0) {
            (Origin::Own(ns), By::Own(terms)) => {
                let (reconcile, state) = Reconcile::on(terms, ns.clone(), dns, None)?;
                Ok((Keeping(keeping::By::Own(Box::new(reconcile))), state))
            }
            (Origin::Own(_), By::Kept(_)) => Err(io::ErrorKind::Unsupported.into()),
            (Origin::Kept(kept), _) => {
                let state = kept.keep(dns).await?;
                Ok((Keeping(keeping::By::Kept(Arc::clone(kept))), state))
            }
        }
    }

    /// Removes our rules from a place; what is not there is left alone.
    ///
    /// # Errors
    /// [`CaptureError`] when something of ours could not be removed.
    pub async fn release(&self, place: &Place) -> Result<(), CaptureError> {
        match &place.0 {
            Origin::Own(ns) => clear(ns).await,
            Origin::Kept(kept) => kept.release().await,
        }
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
        match &place.0 {
            Origin::Own(ns) => command::run(ns.clone(), command, timeout).await,
            Origin::Kept(kept) => kept.run(command, timeout).await,
        }
    }

    /// Listens on a port of every address of the place, IPv4 and IPv6. Accepted connections
    /// inherit the mark; on the host's own network those of the outbound port bear the mark of the
    /// workload that opened them. It does not block, and belongs to no event loop yet.
    ///
    /// # Errors
    /// When the port is taken or the place may not be entered.
    pub async fn listen(&self, place: &Place, port: u16) -> io::Result<TcpListener> {
        match &place.0 {
            Origin::Own(ns) => {
                let kind = Kind::of(ns)?;
                Ok(ns.within(|| open::listen(kind, port))??.into())
            }
            Origin::Kept(kept) => Ok(kept.listen(port).await?.into()),
        }
    }

    /// A datagram socket that is bound to `at` and answers from there. It does not block, and
    /// belongs to no event loop yet.
    ///
    /// # Errors
    /// When the address is taken or not there, or the place may not be entered.
    pub async fn listen_udp(&self, place: &Place, at: SocketAddr) -> io::Result<UdpSocket> {
        match &place.0 {
            Origin::Own(ns) => {
                let socket =
                    ns.within(|| open::udp::datagrams(Domain::for_address(at), Some(at)))??;
                Ok(socket.into())
            }
            Origin::Kept(kept) => Ok(kept.listen_udp(at).await?.into()),
        }
    }

    /// A datagram socket to ask hosts of the same family as `to` with. It is neither bound nor
    /// connected, does not block, and belongs to no event loop yet.
    ///
    /// # Errors
    /// When the place may not be entered or has no such family.
    pub async fn udp(&self, place: &Place, to: IpAddr) -> io::Result<UdpSocket> {
        match &place.0 {
            Origin::Own(ns) => {
                let domain = Domain::for_address(SocketAddr::new(to, 0));
                Ok(ns.within(|| open::udp::datagrams(domain, None))??.into())
            }
            Origin::Kept(kept) => Ok(kept.udp(to).await?.into()),
        }
    }

    /// Whether an address is one of the place's own now.
    pub async fn owns(&self, place: &Place, ip: IpAddr) -> bool {
        let ns = match &place.0 {
            Origin::Own(ns) => ns,
            Origin::Kept(kept) => return kept.owns(ip).await,
        };
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
        let socket = match &place.0 {
            Origin::Own(ns) => ns
                .within(|| open::connector(to, from))
                .and_then(|opened| opened),
            Origin::Kept(kept) => kept.dialer(to.ip()).await.and_then(|socket| {
                open::appear(&socket, to, from)?;
                Ok(socket)
            }),
        };
        let socket = socket.map_err(|source| ConnectError::Local { to, source })?;
        let socket = TcpSocket::from_std_stream(socket.into());
        match tokio::time::timeout(CONNECT, socket.connect(to)).await {
            Ok(connected) => connected.map_err(|e| ConnectError::new(to, e)),
            Err(_elapsed) => Err(ConnectError::TimedOut { to }),
        }
    }

    /// Sockets for somebody without powers to connect with: marked, allowed to bear any address,
    /// neither bound nor connected.
    ///
    /// # Errors
    /// When the place may not be entered, or this process is out of descriptors.
    pub(crate) fn dialers(
        &self,
        place: &Place,
        family: Family,
        count: usize,
    ) -> io::Result<Vec<OwnedFd>> {
        let Origin::Own(ns) = &place.0 else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        ns.within(|| {
            (0..count)
                .map(|_| Ok(open::dialer(family)?.into()))
                .collect()
        })?
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
    use crate::capture::Exemption;
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
