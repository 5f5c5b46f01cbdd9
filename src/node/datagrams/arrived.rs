//! Flows that arrive through tunnels.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::leg::Leg;
use super::open::account;
use super::relay::relay;
use crate::causes::chain;
use crate::hbone::{Authority, Flow, Incoming, headers};
use crate::model::udp;
use crate::model::workload::Workload;
use crate::node::lane::Lane;
use crate::node::local::HBONE;
use crate::node::outbound::baggage;
use crate::node::registry::Attributes;
use crate::node::session::{Forth, Session};
use crate::telemetry::Reporter;
use crate::telemetry::access_log::{Entry, denied};

/// Serves a request for datagrams at `local_ip` of a workload to its end.
pub(in crate::node) async fn arrived(lane: Arc<Lane>, local_ip: IpAddr, request: Incoming) {
    let admitted = match admit(&lane, local_ip, &request).await {
        Ok(admitted) => admitted,
        Err(status) => return request.refuse(status),
    };
    let Admitted {
        mut session,
        workload,
        to,
    } = admitted;
    let from = lane.borrowed(to.ip(), request.remote.ip()).await;
    let from = from.map(|client| SocketAddr::new(client, 0));
    let program = lane.shared.sockets.dial_udp(&lane.place, to, from).await;
    let program = match program.and_then(Leg::program) {
        Ok(program) => program,
        Err(e) => {
            session.failed("CONNECT", format!("cannot reach the program at {to}: {e}"));
            return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    // That took time, in which policy may have changed.
    if let Some(denial) = session.denial() {
        session.failed("DENY", denial.to_string());
        return request.refuse(StatusCode::UNAUTHORIZED);
    }
    match request.accept(&baggage(&workload).render()) {
        Ok(tunnel) => relay(session, Leg::Tunnel(Box::new(Flow::new(tunnel))), program).await,
        Err(e) => session.failed("CONNECT", chain(&e)),
    }
}

struct Admitted {
    session: Box<Session>,
    workload: Arc<Workload>,
    to: SocketAddr,
}

/// # Errors
/// The status to answer.
async fn admit(lane: &Lane, local_ip: IpAddr, request: &Incoming) -> Result<Admitted, StatusCode> {
    let started = Instant::now();
    let source = request.remote;
    let at = SocketAddr::new(local_ip, request.authority.port());
    let Some((mesh, workload)) = lane.workload().await else {
        let reason = "the workload is not in the mesh view";
        denied("inbound", source, None, reason);
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    };
    let Authority::Address(to) = &request.authority else {
        denied(
            "inbound",
            source,
            Some(at),
            "datagrams are for an address, not for a name",
        );
        return Err(StatusCode::BAD_REQUEST);
    };
    let host = headers::forwarded_host(&request.headers);
    let delivery = udp::arrive(&mesh.view, &workload, local_ip, *to, host);
    let delivery = delivery.map_err(|refusal| {
        denied("inbound", source, Some(at), &chain(&refusal));
        let status = StatusCode::from_u16(refusal.status());
        status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    })?;
    let entry = Entry {
        direction: "inbound",
        source,
        source_workload: mesh
            .view
            .workload_at(&workload.network, source.ip())
            .cloned(),
        source_identity: request.peer.clone(),
        destination: SocketAddr::new(local_ip, HBONE),
        tunnelled: Some(delivery.to.to_string()),
        carrier: request.transport().into(),
        service: delivery.service,
        destination_workload: Some(Arc::clone(&workload)),
        destination_identity: workload.identity().ok(),
    };
    let mut session = account(lane, entry, Reporter::destination, Forth::ToClient, started);
    let attributes = Attributes {
        identity: request.peer.clone(),
        source: request.proven_ip,
        destination: delivery.to,
        host: host.map(Arc::from),
        by_waypoint: false,
    };
    match lane.judge(attributes, (mesh, Arc::clone(&workload))) {
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
    })
}
