//! Datagrams: those of tunnels, and those that are captured.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::Socket;
use tokio::io::Interest;
use tokio::sync::watch;

use super::{Sockets, canonical};
use crate::capture::keeping::{self, Keeping};
use crate::capture::kept::protocol::Family;
use crate::capture::netns::Netns;
use crate::capture::open::{Kind, udp};
use crate::capture::place::{Origin, Place};
use crate::capture::reconcile::{Reconcile, State};
use crate::capture::ruleset::host::Mark;
use crate::capture::ruleset::{OUTBOUND_PORT, PLAINTEXT_PORT, WantedDatagrams};
use crate::sys;

/// Longest datagram there is, with room to spare.
const LONGEST: usize = 64 << 10;

/// The sockets that what is captured comes to.
#[derive(Debug)]
pub struct Captured {
    /// What the workload sends into the mesh.
    pub outbound: UdpSocket,
    /// What comes from outside to ports that the workload declares, in plain text.
    pub inbound: UdpSocket,
}

/// What comes to one of the sockets of [`Captured`], one datagram after the other.
#[derive(Debug)]
pub struct Arrivals {
    socket: tokio::net::UdpSocket,
    buffer: Box<[u8]>,
}

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// What it carries, whole.
    pub payload: &'a [u8],
    /// Who sent it; of IPv4 never a mapped address.
    pub from: SocketAddr,
    /// Where it was sent to; of IPv4 never a mapped address.
    pub to: SocketAddr,
    /// On the host's own network, of what workloads send, whose it is.
    pub mark: Option<Mark>,
}

/// How a datagram came, but for what it carries.
struct Head {
    length: usize,
    from: SocketAddr,
    to: SocketAddr,
    mark: Option<Mark>,
}

impl Sockets {
    /// Prepares to keep the rules in a place, with those for questions for names or without, and with
    /// those for the datagrams that `datagrams` tells of. While that is `None`, what rules of before
    /// capture is captured. A change of it is in force some 20 ms later; meanwhile what was captured and
    /// is to be goes on to be.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub async fn keep_udp(
        &self,
        place: &Place,
        dns: bool,
        datagrams: watch::Receiver<WantedDatagrams>,
    ) -> io::Result<(Keeping, watch::Receiver<State>)> {
        match (&place.0, self.terms()) {
            (Origin::Own(ns), Some(terms)) => {
                let (reconcile, state) = Reconcile::on(terms, ns.clone(), dns, Some(datagrams))?;
                Ok((Keeping(keeping::By::Own(Box::new(reconcile))), state))
            }
            (Origin::Own(_), None) => Err(io::ErrorKind::Unsupported.into()),
            (Origin::Kept(kept), _) => {
                let state = kept.keep_udp(dns).await?;
                let kept = Arc::clone(kept);
                Ok((Keeping(keeping::By::KeptUdp(kept, datagrams)), state))
            }
        }
    }

    /// A datagram socket on the port of tunnels, of every address of the place, IPv4 and IPv6 (IPv4
    /// alone where IPv6 is off): what arrives by IPv4 comes from a mapped address. It is marked, has
    /// buffers of 4 MiB or the most that this system gives, does not block, and belongs to no event loop
    /// yet. On the host's network it takes, and answers, what the rules bring it for guests as well.
    ///
    /// One at a time: there is no second one while another process or generation holds it.
    ///
    /// # Errors
    /// When the port is taken, or the place may not be entered.
    pub async fn listen_tunnels_udp(&self, place: &Place) -> io::Result<UdpSocket> {
        match &place.0 {
            Origin::Own(ns) => {
                let kind = Kind::of(ns)?;
                Ok(ns.within(|| udp::tunnels(kind))??.into())
            }
            Origin::Kept(kept) => Ok(kept.listen_tunnels_udp().await?.into()),
        }
    }

    /// The sockets that captured datagrams come to in a place whose rules are kept by
    /// [`Self::keep_udp`], or on the host's network by [`Self::keep_host`]: there what workloads send tells
    /// whose it is. They do not block, and belong to no event loop yet: [`Arrivals`] reads them.
    ///
    /// From the keeper, every generation has the same two, and what comes is whoever reads it first: one
    /// reads them once the other has stopped.
    ///
    /// # Errors
    /// When a port is taken, or the place may not be entered; on the host's network also where the kernel
    /// does not tell marks ([`sys::tells_marks`]).
    pub async fn capture_udp(&self, place: &Place) -> io::Result<Captured> {
        let (outbound, inbound) = match &place.0 {
            Origin::Own(ns) => {
                let shared = Netns::current()? == *ns;
                ns.within(|| -> io::Result<_> {
                    let outbound = udp::captured(OUTBOUND_PORT)?;
                    if shared {
                        sys::tell_marks(outbound.as_fd())?;
                    }
                    Ok((outbound.into(), udp::captured(PLAINTEXT_PORT)?.into()))
                })??
            }
            Origin::Kept(kept) => kept.capture_udp().await?,
        };
        Ok(Captured { outbound, inbound })
    }

    /// A datagram socket whose datagrams are from `from`, to answer with: programs of the place that sent
    /// to `from` elsewhere, or clients outside that sent to the workload there. It sends to anybody
    /// (`send_to`) and serves to send alone: what is sent to `from` comes to [`Captured`]. There may be
    /// several for the same end.
    ///
    /// Its own port is another, which [`UdpSocket::local_addr`] tells; the rules put the right one into
    /// what leaves, of every destination and port that they capture or have since they were first kept.
    /// It does not block, and belongs to no event loop yet.
    ///
    /// # Errors
    /// When the place may not be entered, has no such family, or no port left under that address.
    pub async fn answer_udp(&self, place: &Place, from: SocketAddr) -> io::Result<UdpSocket> {
        match &place.0 {
            Origin::Own(ns) => Ok(ns.within(|| udp::answering(from))??.into()),
            Origin::Kept(kept) => Ok(kept.answer_udp(canonical(from)).await?.into()),
        }
    }

    /// A datagram socket connected to a program of the place, that appears there as `from`; what the
    /// program answers comes to it. An address of the other family, or the destination's own, is passed
    /// over, and so is a port that is 0, below 1024, or a program's of the place: then another one is
    /// taken under the address.
    ///
    /// Of one client there may be several at the same port, each for another `to`. It does not block, and
    /// belongs to no event loop yet.
    ///
    /// # Errors
    /// When the place may not be entered, or has no way to `to`.
    pub async fn dial_udp(
        &self,
        place: &Place,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) -> io::Result<UdpSocket> {
        let (to, from) = (canonical(to), from.map(canonical));
        let socket = self.borne(place, Family::of(to.ip())).await?;
        udp::speak(&socket, to, from)?;
        Ok(socket.into())
    }

    /// Datagram sockets to ask the kernel with how things leave the place, of IPv4 and of IPv6: marked, neither
    /// bound nor connected. None where the place has no such family, or may not be entered.
    pub async fn scouts(&self, place: &Place) -> [Option<UdpSocket>; 2] {
        let scout = async |family| self.borne(place, family).await.ok().map(Into::into);
        [scout(Family::V4).await, scout(Family::V6).await]
    }

    async fn borne(&self, place: &Place, family: Family) -> io::Result<Socket> {
        match &place.0 {
            Origin::Own(ns) => ns.within(|| udp::borne(family))?,
            Origin::Kept(kept) => Ok(kept.speaker(family).await?.into()),
        }
    }

    /// A socket for somebody without powers to speak to programs with: marked, allowed to bear any
    /// address, neither bound nor connected.
    ///
    /// # Errors
    /// When the place may not be entered, or has no such family.
    pub(crate) fn speaker(&self, place: &Place, family: Family) -> io::Result<UdpSocket> {
        match &place.0 {
            Origin::Own(ns) => Ok(ns.within(|| udp::borne(family))??.into()),
            Origin::Kept(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Arrivals {
    /// Reads a socket of [`Captured`], in this task's runtime.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            buffer: vec![0; LONGEST].into(),
        })
    }

    /// The next datagram.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a datagram stays in the socket until it is returned.
    ///
    /// # Errors
    /// When the socket cannot be read any more.
    pub async fn recv(&mut self) -> io::Result<Arrival<'_>> {
        let head = std::future::poll_fn(|cx| self.poll(cx)).await?;
        Ok(self.arrival(&head))
    }

    /// The next datagram, where there is one now; whoever has awaited one takes all that came with it.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn try_recv(&mut self) -> io::Result<Option<Arrival<'_>>> {
        match self.take() {
            Ok(head) => Ok(Some(self.arrival(&head))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The next datagram, where there is one now; else the task is woken when there is.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival<'_>>> {
        let head = ready!(self.poll(cx))?;
        Poll::Ready(Ok(self.arrival(&head)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Head>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            match self.take() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn take(&mut self) -> io::Result<Head> {
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        socket.try_io(Interest::READABLE, || {
            loop {
                let (datagram, to) = sys::receive_sent_to(socket.as_fd(), buffer)?;
                // Where it goes must be known, and is of whatever a socket of ours was given.
                if let Some(to) = to {
                    return Ok(Head {
                        length: datagram.length,
                        from: canonical(datagram.from),
                        to: canonical(to),
                        mark: Mark::of(datagram.mark),
                    });
                }
            }
        })
    }

    fn arrival(&self, head: &Head) -> Arrival<'_> {
        Arrival {
            payload: self.buffer.get(..head.length).unwrap_or_default(),
            from: head.from,
            to: head.to,
            mark: head.mark,
        }
    }
}
