//! Connections that leave a workload (`spec/hbone-dataplane.md` §2): each is asked of the model,
//! then tunnelled, sent plainly, or refused so that the program sees a reset and the log a reason.

use std::future::{Future, ready};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::carried::{Carried, Guest, Onward, carry};
use super::inbound::{Asked, admit};
use super::lane::{Lane, Stay};
use super::local::HBONE;
use super::patience::Patience;
use super::quic::transport;
use super::session::{Forth, Session};
use crate::agent::MeshState;
use crate::capture::original_destination;
use crate::causes::chain;
use crate::hbone::{self, ConnectError, ConnectRequest, Hop, Tunnel, headers};
use crate::identity::SpiffeId;
use crate::model::outbound::{Refusal, Route, Tunnelled};
use crate::model::view::View;
use crate::model::workload::Workload;
use crate::telemetry::access_log::{Entry, denied};
use crate::telemetry::{Carrier, ConnectionLabels, Reporter};

/// Endpoints tried before a connection is given up: nothing of the program's has left until the
/// peer says 200, so another endpoint is safe (§1.4).
const ATTEMPTS: usize = 2;

/// Addresses of a name tried before a connection is given up.
const BY_NAME: usize = 4;

/// Serves one captured connection to its end.
pub(super) fn handle(
    local: Arc<Lane>,
    stream: TcpStream,
    source: SocketAddr,
) -> impl Future<Output = ()> + Send {
    carry(open(local, stream, source))
}

/// Opens the way, or refuses and says why.
async fn open(local: Arc<Lane>, stream: TcpStream, source: SocketAddr) -> Option<Carried> {
    let started = Instant::now();
    let destination = match original_destination(&stream) {
        Ok(destination) => destination,
        Err(e) => {
            refuse(stream, source, None, &chain(&e));
            return None;
        }
    };
    let Some((mesh, workload)) = local.workload().await else {
        let reason = "the workload is not in the mesh view";
        refuse(stream, source, Some(destination), reason);
        return None;
    };
    let outbound = Outbound {
        local: &local,
        mesh,
        workload,
        source,
        destination,
        started,
    };
    outbound.run(stream).await
}

fn refuse(stream: TcpStream, source: SocketAddr, to: Option<SocketAddr>, reason: &str) {
    denied("outbound", source, to, reason);
    hbone::reset(stream);
}

/// A connection about to be handed over.
struct Handing {
    lane: Arc<Lane>,
    stay: Stay,
    /// Who it comes from.
    peer: SpiffeId,
}

struct Outbound<'a> {
    local: &'a Lane,
    mesh: Arc<MeshState>,
    workload: Arc<Workload>,
    source: SocketAddr,
    destination: SocketAddr,
    started: Instant,
}

impl Outbound<'_> {
    async fn run(self, stream: TcpStream) -> Option<Carried> {
        match self.decide(&[]) {
            Err(refusal) => {
                let reason = chain(&refusal);
                refuse(stream, self.source, Some(self.destination), &reason);
                None
            }
            Ok(Route::Passthrough { to }) => self.plain(stream, &[to], &self.entry(to)).await,
            Ok(Route::Plain { endpoint, service }) => {
                let entry = Entry {
                    destination_workload: Some(endpoint.workload),
                    service,
                    ..self.entry(endpoint.address)
                };
                self.plain(stream, &[endpoint.address], &entry).await
            }
            Ok(Route::Named {
                workload,
                port,
                service,
            }) => {
                let entry = Entry {
                    destination_workload: Some(workload),
                    service,
                    ..self.entry(self.destination)
                };
                self.by_name(stream, port, &entry).await
            }
            Ok(Route::Tunnel(first)) => self.tunnel(stream, first).await,
        }
    }

    fn decide(&self, tried: &[SocketAddr]) -> Result<Route, Refusal> {
        let view = &self.mesh.view;
        let picks = &self.local.shared.picks;
        picks.decide(view, &self.workload, self.destination, tried)
    }

    fn entry(&self, to: SocketAddr) -> Entry {
        Entry {
            direction: "outbound",
            source: self.source,
            source_workload: Some(Arc::clone(&self.workload)),
            source_identity: None,
            destination: to,
            tunnelled: None,
            carrier: Carrier::none,
            service: None,
            destination_workload: None,
            destination_identity: None,
        }
    }

    fn session(&self, entry: Entry) -> Box<Session> {
        let labels = ConnectionLabels::new(
            Reporter::source,
            Some(&self.workload),
            entry.destination_workload.as_deref(),
            entry.service.as_deref(),
        );
        let labels = match (&entry.source_identity, &entry.destination_identity) {
            (Some(source), Some(destination)) => labels.secured(source, destination),
            _ => labels,
        };
        let (shared, uid) = (&self.local.shared, &self.local.uid);
        Session::open(shared, uid, entry, labels, Forth::ToServer, self.started)
    }

    /// To the first of these that answers.
    async fn plain(&self, stream: TcpStream, to: &[SocketAddr], entry: &Entry) -> Option<Carried> {
        let sockets = &self.local.shared.sockets;
        for to in to {
            let session = self.session(Entry {
                destination: *to,
                ..entry.clone()
            });
            match sockets.connect(&self.local.place, *to, None).await {
                Ok(onward) => {
                    return Some(Carried {
                        session,
                        program: stream,
                        onward: Onward::Plain(onward),
                    });
                }
                Err(e) => session.failed("CONNECT", format!("cannot connect to {to}: {e}")),
            }
        }
        hbone::reset(stream);
        None
    }

    /// To the host that a workload is known by.
    async fn by_name(&self, stream: TcpStream, port: u16, entry: &Entry) -> Option<Carried> {
        let workload = entry.destination_workload.as_ref();
        let name = workload
            .map(|w| Arc::clone(&w.hostname))
            .unwrap_or_default();
        let addresses = self.local.shared.names.addresses(&name).await;
        let outside = match addresses {
            Ok(addresses) => outside(&self.mesh.view, &name, &addresses),
            Err(e) => Err(format!("cannot resolve {name}: {e}")),
        };
        match outside {
            Ok(addresses) => {
                let to = in_turn(&addresses, rand::random::<u32>() as usize);
                let to: Vec<_> = to.map(|ip| SocketAddr::new(ip, port)).collect();
                self.plain(stream, &to, entry).await
            }
            Err(reason) => {
                self.session(entry.clone()).failed("CONNECT", reason);
                hbone::reset(stream);
                None
            }
        }
    }

    async fn tunnel(mut self, stream: TcpStream, mut route: Tunnelled) -> Option<Carried> {
        let (mut tried, mut patience) = (Vec::new(), Patience::default());
        let mut session = self.session(self.tunnel_entry(&route));
        loop {
            let error = match self.onward(&route, &session).await {
                Ok(onward) => {
                    session.carried(onward.carrier());
                    return Some(Carried {
                        session,
                        program: stream,
                        onward,
                    });
                }
                Err(error) => error,
            };
            // An endpoint is known by where it is, an instance of a waypoint by the hop.
            tried.extend([route.hop, route.target]);
            let next = match self.another(&route, &error, &tried) {
                None if error.passes() && is_waypoint(&route) => {
                    tried.clear();
                    self.later(&mut patience).await
                }
                next => next,
            };
            // The same once more is the same attempt, to whoever counts.
            if next.as_ref().is_none_or(|next| differs(next, &route)) {
                session.failed(error.flag(), chain(&error));
                match &next {
                    Some(next) => session = self.session(self.tunnel_entry(next)),
                    None => {
                        hbone::reset(stream);
                        return None;
                    }
                }
            }
            route = next?;
        }
    }

    /// Another endpoint, or another instance of a waypoint.
    fn another(
        &self,
        route: &Tunnelled,
        error: &OpenError,
        tried: &[SocketAddr],
    ) -> Option<Tunnelled> {
        let retry = error.retryable() && tried.len() < 2 * ATTEMPTS;
        // Asked only to retry: a turn taken for nothing would give the next connection to the
        // endpoint that has just failed.
        match retry.then(|| self.decide(tried)) {
            Some(Ok(Route::Tunnel(next))) if differs(&next, route) => Some(next),
            _ => None,
        }
    }

    /// Any instance of the waypoint, a little later and as the mesh is then; none when it has been
    /// waited for long enough.
    async fn later(&mut self, patience: &mut Patience) -> Option<Tunnelled> {
        let shared = &self.local.shared;
        let mut news = shared.mesh.clone();
        loop {
            let latest = Arc::clone(&news.borrow_and_update());
            // What has changed since this connection last looked is news.
            let waited = match Arc::ptr_eq(&latest, &self.mesh) {
                true => patience.wait(&shared.waiting, news.changed()).await,
                false => patience.wait(&shared.waiting, ready(())).await,
            };
            if !waited {
                return None;
            }
            (self.mesh, self.workload) = self.local.known()?;
            match self.decide(&[]) {
                Ok(Route::Tunnel(next)) => return Some(next),
                Ok(_) => return None,
                // There may be an instance again in a moment.
                Err(_refusal) => {}
            }
        }
    }

    fn tunnel_entry(&self, route: &Tunnelled) -> Entry {
        Entry {
            source_identity: self.workload.identity().ok(),
            tunnelled: Some(route.target.to_string()),
            service: route.service.clone(),
            destination_identity: expected(route),
            destination_workload: Some(Arc::clone(&route.workload)),
            ..self.entry(route.hop)
        }
    }

    /// Opens the way to the next hop: inside this process where that is a workload of this host.
    async fn onward(&self, route: &Tunnelled, session: &Session) -> Result<Onward, OpenError> {
        match self.next_door(route).await {
            Some(handing) => self.hand_over(handing, route, session).await,
            None => self.open(route).await.map(Onward::Tunnel),
        }
    }

    /// The workload at the next hop, where it is served here and everything is proven that a tunnel
    /// would prove. Where anything is not, the tunnel decides.
    async fn next_door(&self, route: &Tunnelled) -> Option<Handing> {
        // In a tunnel the server sees an address that answers went to; here the program names it.
        let named = |workload: &Workload, ip: IpAddr| workload.addresses.contains(&ip);
        let source = self.source.ip().to_canonical();
        // From an address of the other family the tunnel would come from another one of its own.
        let alike = source.is_ipv4() == route.hop.ip().to_canonical().is_ipv4();
        if route.hop.port() != HBONE || !alike {
            return None;
        }
        let lane = self.local.shared.neighbours.of(&route.workload)?;
        if !self.local.calls_from(&self.workload, source).await {
            return None;
        }
        let (_mesh, now) = lane.workload().await?;
        let ip = route.hop.ip().to_canonical();
        if !named(&now, ip) || !lane.has(ip).await {
            return None;
        }
        let ours = self.local.svid(&self.workload).await.ok()?;
        let theirs = lane.svid(&now).await.ok()?;
        let trust = theirs.trust().bundle();
        let believed = ours.stands()
            && theirs.stands()
            && trust.knows(ours.id().trust_domain(), theirs.id().trust_domain())
            && route.accepted.contains(theirs.id());
        if !believed {
            return None;
        }
        let peer = ours.id().clone();
        let stay = lane.receive([ours, theirs])?;
        Some(Handing { lane, stay, peer })
    }

    /// Hands the connection over to a neighbour, who decides as he does for tunnels.
    async fn hand_over(
        &self,
        to: Handing,
        route: &Tunnelled,
        session: &Session,
    ) -> Result<Onward, OpenError> {
        let authority = route.target.into();
        let asked = Asked {
            peer: Some(to.peer),
            remote: self.source,
            proven_ip: Some(self.source.ip()),
            carrier: Carrier::none,
            authority: &authority,
            host: route.service.as_ref().map(|s| &*s.key.hostname),
        };
        let refused = |status| ConnectError::Refused { status };
        let local_ip = route.hop.ip().to_canonical();
        let admitted = admit(&to.lane, local_ip, &asked).await.map_err(refused)?;
        let (mut theirs, program) = admitted.deliver(&to.lane).await.map_err(refused)?;
        theirs.share(session);
        Ok(Onward::Guest(Box::new(Guest {
            session: theirs,
            program,
            stay: to.stay,
        })))
    }

    async fn open(&self, route: &Tunnelled) -> Result<Tunnel, OpenError> {
        let svid = self.local.svid(&self.workload).await;
        let svid = svid.map_err(|e| OpenError::Certificate(chain(&e)))?;
        let hop = Hop {
            to: route.hop,
            svid,
            accepted: Arc::clone(&route.accepted),
            name: route.name.clone(),
            transport: transport(&self.workload, &route.workload),
        };
        let service = route.service.as_ref().map(|s| &*s.key.hostname);
        let request = ConnectRequest {
            authority: route.target.into(),
            baggage: baggage(&self.workload).render(),
            forwarded: headers::forwarded(self.source, service),
            traceparent: headers::new_traceparent(),
            carries: hbone::Carries::Bytes,
        };
        let (tunnel, _answer) = self.local.pool.connect(&hop, &request).await?;
        Ok(tunnel)
    }
}

/// Where a name of the outside leads to outside; in words why nowhere. Whoever answers for it must not have
/// a workload of the mesh reached in clear text and as nobody.
fn outside(view: &View, name: &str, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    let outside = view.outside(addresses);
    match outside.is_empty() {
        true => Err(format!("{name} stands for addresses of the mesh")),
        false => Ok(outside),
    }
}

/// Addresses of a name to try one after another, beginning anywhere and with one of each family.
fn in_turn(addresses: &[IpAddr], start: usize) -> impl Iterator<Item = IpAddr> {
    let (mut v4, mut v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|a| a.is_ipv4());
    for family in [&mut v4, &mut v6] {
        let by = start.checked_rem(family.len()).unwrap_or_default();
        family.rotate_left(by);
    }
    let longest = v4.len().max(v6.len());
    let turns = (0..longest).flat_map(move |at| [v4.get(at).copied(), v6.get(at).copied()]);
    turns.flatten().take(BY_NAME)
}

/// Whether another peer is asked, or another workload of those that share its address.
fn differs(a: &Tunnelled, b: &Tunnelled) -> bool {
    (a.hop, a.target) != (b.hop, b.target)
}

/// Whether the hop is not who the tunnel is for.
fn is_waypoint(route: &Tunnelled) -> bool {
    !route.workload.addresses.contains(&route.target.ip())
}

/// Who the peer will have proven to be, where there is one it can be.
fn expected(route: &Tunnelled) -> Option<SpiffeId> {
    route.workload.identity().ok()
}

/// What a tunnel tells of a workload.
pub(crate) fn baggage(workload: &Workload) -> headers::Baggage {
    headers::Baggage {
        cluster: workload.cluster_id.to_string(),
        namespace: workload.namespace.to_string(),
        workload: workload.workload_name.to_string(),
        service: workload.canonical_name.to_string(),
        version: workload.canonical_revision.to_string(),
        region: workload.locality.region.to_string(),
        zone: workload.locality.zone.to_string(),
    }
}

/// Why a tunnel could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    Certificate(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl OpenError {
    fn retryable(&self) -> bool {
        match self {
            Self::Certificate(_) => false,
            Self::Connect(e) => e.retryable(),
        }
    }

    /// Whether it may be over in a moment, and is told at once if not.
    fn passes(&self) -> bool {
        match self {
            Self::Certificate(_) => false,
            Self::Connect(e) => e.retryable() && !e.is_silence(),
        }
    }

    fn flag(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "IDENTITY_ERROR",
            Self::Connect(e) => e.flag(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{service, view, workload};

    #[test]
    fn a_name_of_the_outside_does_not_lead_into_the_mesh() {
        let view = view(
            vec![workload("cart-1", &["10.1.0.11"])],
            vec![service("cart", &["10.96.0.10"])],
        );
        for (name, addresses, want) in [
            ("outside", &["192.0.2.1"][..], Some(&["192.0.2.1"][..])),
            ("a workload's", &["10.1.0.11"], None),
            ("a service's", &["10.96.0.10"], None),
            ("both", &["10.1.0.11", "192.0.2.1"], Some(&["192.0.2.1"])),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            let got = outside(&view, "ext.example", &addresses).ok();
            let want = want.map(|all| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>());
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn addresses_of_a_name_are_tried_in_turn() {
        for (name, addresses, start, want) in [
            ("none", &[][..], 0, &[][..]),
            ("one", &["192.0.2.1"], 7, &["192.0.2.1"]),
            (
                "begins anywhere",
                &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
                4,
                &["192.0.2.2", "192.0.2.3", "192.0.2.1"],
            ),
            (
                "families alternate, and it ends",
                &["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"],
                0,
                &["192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::3"],
            ),
            (
                "no more than four",
                &[
                    "192.0.2.1",
                    "192.0.2.2",
                    "192.0.2.3",
                    "192.0.2.4",
                    "192.0.2.5",
                ],
                0,
                &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"],
            ),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            let tried: Vec<_> = in_turn(&addresses, start).map(|a| a.to_string()).collect();
            assert_eq!(tried, want, "{name}");
        }
    }
}
