//! What arrives on this host's own network and is dealt to one data plane thread: found out whose it is,
//! then served by that workload's [`Lane`]. What is nobody's is refused.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::StatusCode;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::board::Board;
use crate::capture::{Arrival as Datagram, Captured, near, original_destination};
use crate::causes::chain;
use crate::hbone::{self, Arrival, Authority, Carries, Incoming};
use crate::identity::SpiffeId;
use crate::model::inbound::Target;
use crate::node::carried::carry;
use crate::node::lane::{Hands, Lane, ServerConfigError};
use crate::node::listener::serve;
use crate::node::local::HBONE;
use crate::node::{Shared, datagrams, inbound, outbound, passthrough};
use crate::telemetry::access_log::denied;
use crate::tls::{Asked, NamedServer, ServerSide, Svid};

/// Who is who, and who serves each on one thread.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) board: Arc<Board>,
    pub(super) lanes: HashMap<Arc<str>, Arc<Lane>>,
}

/// One thread's part of the host's ports.
pub(super) struct Desk {
    shared: Arc<Shared>,
    roster: ArcSwap<Roster>,
    /// By the address that tunnels arrive at; built once per certificates.
    servers: Mutex<HashMap<IpAddr, Arc<NamedServer>>>,
    stop: CancellationToken,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self {
            shared,
            roster: ArcSwap::default(),
            servers: Mutex::default(),
            stop,
        }
    }

    /// Replaces who is who. Whoever has been found before is served as then.
    pub(super) fn post(&self, roster: Roster) {
        self.roster.store(Arc::new(roster));
    }

    /// Serves what is dealt until stopped, then lets what is open finish. Returns how many connections
    /// were cut.
    pub(super) async fn run(self: Arc<Self>, hands: Hands) -> usize {
        let (stop, drain) = (&self.stop, self.shared.drain);
        let datagrams = async {
            if let Some(captured) = hands.datagrams {
                self.datagrams(captured).await;
            }
        };
        let (a, b, c, d, ()) = tokio::join!(
            serve(hands.outbound, stop, drain, |(stream, peer)| {
                Arc::clone(&self).outbound(stream, peer)
            }),
            serve(hands.plaintext, stop, drain, |(stream, peer)| {
                Arc::clone(&self).plaintext(stream, peer)
            }),
            serve(hands.tunnels, stop, drain, |(stream, peer)| {
                Arc::clone(&self).tunnels(stream, peer)
            }),
            serve(hands.quic, stop, drain, |arrival| Arc::clone(&self)
                .quic(arrival)),
            datagrams,
        );
        a + b + c + d
    }

    /// The lane of a workload; none where there is no workload, or where it is leaving.
    fn lane(roster: &Roster, uid: Option<&Arc<str>>) -> Option<Arc<Lane>> {
        roster.lanes.get(uid?).map(Arc::clone)
    }

    /// The lane of the guest of this address.
    fn guest(&self, address: IpAddr) -> Option<Arc<Lane>> {
        let roster = self.roster.load();
        Self::lane(&roster, roster.board.guest(address))
    }

    /// Serves captured datagrams of everybody. Whose a program's are their mark says.
    async fn datagrams(&self, captured: Captured) {
        let sender = |arrival: &Datagram<'_>| {
            let roster = self.roster.load();
            Self::lane(&roster, roster.board.client(arrival.mark?.bits()))
        };
        let receiver = |arrival: &Datagram<'_>| {
            let roster = self.roster.load();
            Self::lane(&roster, roster.board.udp_server(arrival.to))
        };
        let served = datagrams::serve(captured, self.stop.clone(), sender, receiver).await;
        if let Err(error) = served {
            warn!(%error, "captured datagrams of this host's network cannot be read, they are dropped");
        }
    }

    /// A program has connected to somebody. Whose it is its mark says, which the rules gave it.
    async fn outbound(self: Arc<Self>, stream: TcpStream, source: SocketAddr) {
        let lane = {
            let roster = self.roster.load();
            let client = match SockRef::from(&stream).mark() {
                Ok(mark) => roster.board.client(mark),
                Err(_unmarked) => None,
            };
            Self::lane(&roster, client)
        };
        let Some(lane) = lane else {
            let to = original_destination(&stream).ok();
            let reason = "the program is no captured workload's of this host";
            denied("outbound", source, to, reason);
            return hbone::reset(stream);
        };
        drop(self);
        let served = outbound::handle(Arc::clone(&lane), stream, source);
        lane.visited(served).await;
    }

    /// Somebody has connected to a declared port in plain text.
    async fn plaintext(self: Arc<Self>, stream: TcpStream, source: SocketAddr) {
        let to = original_destination(&stream);
        let lane = {
            let roster = self.roster.load();
            let server = to.as_ref().ok().and_then(|to| roster.board.server(*to));
            Self::lane(&roster, server)
        };
        let Some(lane) = lane else {
            let reason = match &to {
                Ok(_) => "no workload of this host declares the port".to_owned(),
                Err(e) => chain(e),
            };
            denied("inbound", source, to.ok(), &reason);
            return hbone::reset(stream);
        };
        drop(self);
        let served = passthrough::handle(Arc::clone(&lane), stream, source);
        lane.visited(served).await;
    }

    /// A peer has connected, with tunnels for any of those at the address.
    async fn tunnels(self: Arc<Self>, stream: TcpStream, source: SocketAddr) {
        // A guest's from this host have been redirected.
        let arrived = match original_destination(&stream) {
            Ok(arrived) => arrived,
            Err(e) => return denied("inbound", source, None, &chain(&e)),
        };
        if let Some(lane) = self.guest(arrived.ip()) {
            // Its address is its own, and so is all that arrives there.
            let served = inbound::handle_at(Arc::clone(&lane), stream, source, arrived);
            return lane.visited(served).await;
        }
        near::tunnel(&stream);
        let (tls, asked) = match self.server(arrived.ip()).await {
            Ok(server) => server,
            Err(e) => return denied("inbound", source, Some(arrived), &chain(&e)),
        };
        let stop = self.stop.clone();
        let limits = self.shared.limits.clone();
        let handler = Arc::new(Handler {
            desk: self,
            local_ip: arrived.ip(),
            asked,
        });
        let served = hbone::serve(stream, source, tls, &limits, handler, stop).await;
        if let Err(e) = served {
            denied("inbound", source, Some(arrived), &chain(&e));
        }
    }

    /// The same by QUIC.
    async fn quic(self: Arc<Self>, arrival: Arrival) {
        let source = arrival.remote();
        let Some(at) = arrival.local_ip() else {
            arrival.refuse();
            return denied("inbound", source, None, "the address called is not known");
        };
        if let Some(lane) = self.guest(at) {
            let served = inbound::handle_quic(Arc::clone(&lane), arrival);
            return lane.visited(served).await;
        }
        let arrived = SocketAddr::new(at, HBONE);
        let (tls, asked) = match self.server(at).await {
            Ok(server) => server,
            Err(e) => {
                arrival.refuse();
                return denied("inbound", source, Some(arrived), &chain(&e));
            }
        };
        let stop = self.stop.clone();
        let limits = self.shared.limits.clone();
        let handler = Arc::new(Handler {
            desk: self,
            local_ip: at,
            asked,
        });
        let served = hbone::serve_quic(arrival, tls, &limits, handler, stop).await;
        if let Err(e) = served {
            denied("inbound", source, Some(arrived), &chain(&e));
        }
    }

    /// TLS settings for a connection that arrived at an address, and what tells whom its peer asks for.
    async fn server(&self, at: IpAddr) -> Result<(Arc<ServerSide>, Asked), ServerConfigError> {
        let svids = self.svids(at).await?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = servers.get(&at).filter(|server| server.serves(&svids));
        let server = match known {
            Some(server) => Arc::clone(server),
            None => {
                let made = NamedServer::new(svids)?;
                let made = Arc::new(made.ok_or(ServerConfigError::UnknownWorkload)?);
                servers.insert(at, Arc::clone(&made));
                made
            }
        };
        server
            .connection()
            .ok_or(ServerConfigError::UnknownWorkload)
    }

    /// Certificates of those at an address. For one that is not there yet the others do not wait, unless
    /// there is none at all.
    async fn svids(&self, at: IpAddr) -> Result<Vec<Arc<Svid>>, ServerConfigError> {
        let board = Arc::clone(&self.roster.load().board);
        let identities = board.sharing.identities(at);
        let first = identities
            .first()
            .ok_or(ServerConfigError::UnknownWorkload)?;
        let held = identities
            .iter()
            .filter_map(|id| self.shared.certs.held(id));
        let held: Vec<_> = held.collect();
        match held.is_empty() {
            true => Ok(vec![self.shared.certs.get(first).await?]),
            false => Ok(held),
        }
    }

    /// Who is meant by a request for a tunnel.
    fn meant(
        &self,
        at: IpAddr,
        request: &Incoming,
        named: Option<&SpiffeId>,
    ) -> Result<Arc<Lane>, StatusCode> {
        let roster = self.roster.load();
        let refuse = |status: u16, reason: &str| {
            let to = SocketAddr::new(at, request.authority.port());
            denied("inbound", request.remote, Some(to), reason);
            StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
        };
        let sharing = &roster.board.sharing;
        let meant = match (request.carries, &request.authority) {
            (Carries::Bytes, Authority::Address(address)) => {
                sharing.meant(at, Target::Address(*address), named)
            }
            (Carries::Bytes, Authority::Name { host, port }) => {
                sharing.meant(at, Target::Name { host, port: *port }, named)
            }
            (Carries::Datagrams, Authority::Address(to)) => {
                sharing.meant_by_datagrams(at, *to, named)
            }
            (Carries::Datagrams, Authority::Name { .. }) => {
                return Err(refuse(400, "datagrams are for an address, not for a name"));
            }
        };
        let meant = meant.map_err(|refusal| refuse(refusal.status(), &chain(&refusal)))?;
        let lane = Self::lane(&roster, Some(&meant.uid));
        lane.ok_or_else(|| refuse(503, "the workload is leaving this host"))
    }
}

/// Serves the tunnels of one connection.
struct Handler {
    desk: Arc<Desk>,
    local_ip: IpAddr,
    /// Whom its peer has asked for.
    asked: Asked,
}

impl hbone::Handler for Handler {
    async fn handle(self: Arc<Self>, request: Incoming) {
        let named = self.asked.identity();
        let lane = match self.desk.meant(self.local_ip, &request, named) {
            Ok(lane) => lane,
            Err(status) => return request.refuse(status),
        };
        let (own, at) = (Arc::clone(&lane), self.local_ip);
        match request.carries {
            Carries::Bytes => lane.visited(carry(inbound::open(own, at, request))).await,
            Carries::Datagrams => lane.visited(datagrams::arrived(own, at, request)).await,
        }
    }
}
