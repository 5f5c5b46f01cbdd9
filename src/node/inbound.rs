//! Tunnels that arrive for a workload (`spec/hbone-dataplane.md` §3): the peer's identity is
//! proven, the target must be this workload's, and the program sees the client's own address.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use tokio::net::TcpStream;

use super::carried::{Carried, Onward, carry};
use super::lane::Lane;
use super::outbound::baggage;
use super::session::{Forth, Session};
use crate::capture::near;
use crate::hbone::{self, Authority, Incoming, headers};
use crate::model::inbound::{self, Target};
use crate::model::workload::Workload;
use crate::telemetry::access_log::{Entry, chain, denied};
use crate::telemetry::{ConnectionLabels, Reporter};

/// Serves one connection on the HBONE port to its end.
pub(super) async fn handle(local: Arc<Lane>, stream: TcpStream, source: SocketAddr) {
    let arrived = stream.local_addr().ok();
    near::tunnel(&stream);
    let tls = match local.server_config().await {
        Ok(tls) => tls,
        Err(e) => return denied("inbound", source, arrived, &chain(&e)),
    };
    let Some(arrived) = arrived else {
        return denied("inbound", source, None, "the connection is gone");
    };
    let local_ip = arrived.ip().to_canonical();
    let handler = Arc::new(Handler {
        local: Arc::clone(&local),
        local_ip,
    });
    let limits = hbone::Limits::default();
    let stop = local.stop.clone();
    let served = hbone::serve(stream, source, tls, &limits, handler, stop).await;
    if let Err(e) = served {
        let arrived = SocketAddr::new(local_ip, arrived.port());
        denied("inbound", source, Some(arrived), &chain(&e));
    }
}

struct Handler {
    local: Arc<Lane>,
    local_ip: IpAddr,
}

impl hbone::Handler for Handler {
    fn handle(self: Arc<Self>, request: Incoming) -> impl Future<Output = ()> + Send {
        carry(self.open(request))
    }
}

impl Handler {
    /// Opens the way to the program, or refuses and says why.
    async fn open(self: Arc<Self>, request: Incoming) -> Option<Carried> {
        let started = Instant::now();
        let source = request.remote;
        let Some((mesh, workload)) = self.local.workload().await else {
            denied(
                "inbound",
                source,
                None,
                "the workload is not in the mesh view",
            );
            request.refuse(StatusCode::SERVICE_UNAVAILABLE);
            return None;
        };
        let target = match &request.authority {
            Authority::Address(address) => Target::Address(*address),
            Authority::Name { host, port } => Target::Name { host, port: *port },
        };
        let host = headers::forwarded_host(&request.headers);
        let view = &mesh.view;
        let decided = inbound::tunnelled(view, &workload, self.local_ip, target, host);
        let delivery = match decided {
            Ok(delivery) => delivery,
            Err(refusal) => {
                let at = SocketAddr::new(self.local_ip, request.authority.port());
                denied("inbound", source, Some(at), &chain(&refusal));
                let status = StatusCode::from_u16(refusal.status());
                request.refuse(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE));
                return None;
            }
        };
        let client = view.workload_at(&workload.network, source.ip()).cloned();
        let entry = Entry {
            direction: "inbound",
            source,
            source_workload: client,
            source_identity: request.peer.clone(),
            destination: SocketAddr::new(self.local_ip, super::local::HBONE),
            tunnelled: Some(delivery.to.to_string()),
            service: delivery.service,
            destination_workload: Some(Arc::clone(&workload)),
            destination_identity: workload.identity().ok(),
        };
        let session = self.session(entry, &workload, started);
        self.deliver(request, delivery.to, &workload, session).await
    }

    fn session(&self, entry: Entry, workload: &Workload, started: Instant) -> Box<Session> {
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
        let (shared, uid) = (&self.local.shared, &self.local.uid);
        Session::open(shared, uid, entry, labels, Forth::ToClient, started)
    }

    async fn deliver(
        &self,
        request: Incoming,
        to: SocketAddr,
        workload: &Workload,
        session: Box<Session>,
    ) -> Option<Carried> {
        let program = self.local.deliver(to, request.remote.ip()).await;
        let program = match program {
            Ok(program) => program,
            Err(e) => {
                session.failed(
                    "CONNECT",
                    format!("the program at {to} does not answer: {e}"),
                );
                request.refuse(StatusCode::SERVICE_UNAVAILABLE);
                return None;
            }
        };
        match request.accept(&baggage(workload).render()) {
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
}
