//! Tunnels that arrive for a workload (`spec/hbone-dataplane.md` §3): the peer's identity is
//! proven, the target must be this workload's, and the program sees the client's own address.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use http::StatusCode;
use tokio::net::TcpStream;

use super::carried::{Carried, Onward, carry};
use super::datagrams;
use super::lane::Lane;
use super::local::HBONE;
use super::outbound::baggage;
use super::registry::Attributes;
use super::session::{Forth, Session};
use crate::capture::near;
use crate::causes::chain;
use crate::hbone::{self, Arrival, Authority, Carries, Incoming, headers};
use crate::identity::SpiffeId;
use crate::model::inbound::{self, Caller, Target};
use crate::model::workload::Workload;
use crate::telemetry::access_log::{Entry, denied};
use crate::telemetry::{Carrier, ConnectionLabels, Reporter};

/// Serves one connection on the HBONE port to its end.
pub(super) async fn handle(local: Arc<Lane>, stream: TcpStream, source: SocketAddr) {
    match stream.local_addr() {
        Ok(arrived) => handle_at(local, stream, source, arrived).await,
        Err(_gone) => denied("inbound", source, None, "the connection is gone"),
    }
}

/// The same of one that is for an address which need not be its socket's.
pub(super) async fn handle_at(
    local: Arc<Lane>,
    stream: TcpStream,
    source: SocketAddr,
    arrived: SocketAddr,
) {
    near::tunnel(&stream);
    let tls = match local.server_config().await {
        Ok(tls) => tls,
        Err(e) => return denied("inbound", source, Some(arrived), &chain(&e)),
    };
    let local_ip = arrived.ip().to_canonical();
    let handler = Arc::new(Handler {
        local: Arc::clone(&local),
        local_ip,
    });
    let limits = local.shared.limits.clone();
    let stop = local.stop.clone();
    let served = hbone::serve(stream, source, tls, &limits, handler, stop).await;
    if let Err(e) = served {
        let arrived = SocketAddr::new(local_ip, arrived.port());
        denied("inbound", source, Some(arrived), &chain(&e));
    }
}

/// Serves one connection that has come by QUIC to its end.
pub(super) async fn handle_quic(local: Arc<Lane>, arrival: Arrival) {
    let source = arrival.remote();
    let tls = match local.server_config().await {
        Ok(tls) => tls,
        Err(e) => {
            arrival.refuse();
            return denied("inbound", source, None, &chain(&e));
        }
    };
    let Some(local_ip) = arrival.local_ip() else {
        arrival.refuse();
        return denied("inbound", source, None, "the address called is not known");
    };
    let handler = Arc::new(Handler {
        local: Arc::clone(&local),
        local_ip,
    });
    let limits = local.shared.limits.clone();
    let stop = local.stop.clone();
    let served = hbone::serve_quic(arrival, tls, &limits, handler, stop).await;
    if let Err(e) = served {
        denied(
            "inbound",
            source,
            Some(SocketAddr::new(local_ip, HBONE)),
            &chain(&e),
        );
    }
}

struct Handler {
    local: Arc<Lane>,
    local_ip: IpAddr,
}

impl hbone::Handler for Handler {
    fn handle(self: Arc<Self>, request: Incoming) -> impl Future<Output = ()> + Send {
        let (local, local_ip) = (Arc::clone(&self.local), self.local_ip);
        match request.carries {
            Carries::Bytes => carry(open(local, local_ip, request)).left_future(),
            Carries::Datagrams => datagrams::arrived(local, local_ip, request).right_future(),
        }
    }
}

/// Opens the way to the program, or refuses and says why.
pub(super) async fn open(local: Arc<Lane>, local_ip: IpAddr, request: Incoming) -> Option<Carried> {
    let asked = Asked {
        peer: request.peer.clone(),
        remote: request.remote,
        proven_ip: request.proven_ip,
        carrier: request.transport().into(),
        authority: &request.authority,
        host: headers::forwarded_host(&request.headers),
    };
    let admitted = match admit(&local, local_ip, &asked).await {
        Ok(admitted) => admitted,
        Err(status) => {
            request.refuse(status);
            return None;
        }
    };
    let baggage = baggage(&admitted.workload).render();
    let (mut session, program) = match admitted.deliver(&local).await {
        Ok(delivered) => delivered,
        Err(status) => {
            request.refuse(status);
            return None;
        }
    };
    // Connecting takes time, in which policy may have changed.
    if let Some(denial) = session.denial() {
        session.failed("DENY", denial.to_string());
        request.refuse(StatusCode::UNAUTHORIZED);
        return None;
    }
    match request.accept(&baggage) {
        Ok(tunnel) => Some(Carried {
            session,
            program,
            onward: Onward::Tunnel(tunnel),
        }),
        Err(e) => {
            session.failed("CONNECT", chain(&e));
            None
        }
    }
}

/// What somebody wants of a workload.
pub(super) struct Asked<'a> {
    /// Who he has proven to be.
    pub(super) peer: Option<SpiffeId>,
    /// Where he comes from.
    pub(super) remote: SocketAddr,
    /// The same where it is beyond doubt.
    pub(super) proven_ip: Option<IpAddr>,
    /// What has carried it here.
    pub(super) carrier: Carrier,
    /// What he wants.
    pub(super) authority: &'a Authority,
    /// The service that he says he addressed.
    pub(super) host: Option<&'a str>,
}

/// A connection that is let in, and its account.
pub(super) struct Admitted {
    session: Box<Session>,
    workload: Arc<Workload>,
    to: SocketAddr,
    client: IpAddr,
}

/// Decides what is wanted at `local_ip` of a workload, and says why when it is refused.
///
/// # Errors
/// The status to answer.
pub(super) async fn admit(
    local: &Lane,
    local_ip: IpAddr,
    asked: &Asked<'_>,
) -> Result<Admitted, StatusCode> {
    let started = Instant::now();
    let source = asked.remote;
    let Some((mesh, workload)) = local.workload().await else {
        let reason = "the workload is not in the mesh view";
        denied("inbound", source, None, reason);
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    };
    let target = match asked.authority {
        Authority::Address(address) => Target::Address(*address),
        Authority::Name { host, port } => Target::Name { host, port: *port },
    };
    let view = &mesh.view;
    let caller = Caller {
        peer: asked.peer.as_ref(),
        host: asked.host,
    };
    let decided = inbound::tunnelled(view, &workload, local_ip, target, caller);
    let delivery = decided.map_err(|refusal| {
        let at = SocketAddr::new(local_ip, asked.authority.port());
        denied("inbound", source, Some(at), &chain(&refusal));
        let status = StatusCode::from_u16(refusal.status());
        status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    })?;
    let host = match asked.authority {
        Authority::Name { host, .. } => Some(&**host),
        Authority::Address(_) => asked.host,
    };
    let peer = asked.peer.as_ref();
    let attributes = Attributes {
        identity: asked.peer.clone(),
        source: asked.proven_ip,
        destination: delivery.to,
        host: host.map(Arc::from),
        by_waypoint: peer.is_some_and(|peer| view.is_waypoint(peer)),
    };
    let entry = Entry {
        direction: "inbound",
        source,
        source_workload: view.workload_at(&workload.network, source.ip()).cloned(),
        source_identity: asked.peer.clone(),
        destination: SocketAddr::new(local_ip, HBONE),
        tunnelled: Some(delivery.to.to_string()),
        carrier: asked.carrier,
        service: delivery.service,
        destination_workload: Some(Arc::clone(&workload)),
        destination_identity: workload.identity().ok(),
    };
    let mut session = session(local, entry, &workload, started);
    match local.judge(attributes, (mesh, Arc::clone(&workload))) {
        Ok(registration) => session.registration = Some(registration),
        Err(denial) => {
            session.failed("DENY", denial.to_string());
            return Err(StatusCode::UNAUTHORIZED);
        }
    }
    Ok(Admitted {
        session,
        workload,
        to: delivery.to,
        client: source.ip(),
    })
}

fn session(local: &Lane, entry: Entry, workload: &Workload, started: Instant) -> Box<Session> {
    let labels = ConnectionLabels::new(
        Reporter::destination,
        entry.source_workload.as_deref(),
        Some(workload),
        entry.service.as_deref(),
    );
    let labels = match (&entry.source_identity, &entry.destination_identity) {
        (Some(source), Some(destination)) => labels.secured(source, destination),
        _ => labels,
    };
    let (shared, uid, carrier) = (&local.shared, &local.uid, entry.carrier);
    let mut session = Session::open(shared, uid, entry, labels, Forth::ToClient, started);
    // By a neighbour's too.
    session.carried(carrier);
    session
}

impl Admitted {
    /// Connects to the program.
    ///
    /// # Errors
    /// The status to answer; the account says why.
    pub(super) async fn deliver(
        self,
        local: &Lane,
    ) -> Result<(Box<Session>, TcpStream), StatusCode> {
        match local.deliver(self.to, self.client).await {
            Ok(program) => Ok((self.session, program)),
            Err(e) => {
                let reason = format!("the program at {} does not answer: {e}", self.to);
                self.session.failed("CONNECT", reason);
                Err(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}
