//! Begins flows: decides where their datagrams go, or whether they are let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Ends;
use super::leg::Leg;
use super::relay::relay;
use crate::causes::chain;
use crate::hbone::{Carries, ConnectRequest, Flow, Hop, headers};
use crate::model::outbound::Tunnelled;
use crate::model::udp::{self, Route};
use crate::model::workload::Workload;
use crate::node::lane::Lane;
use crate::node::outbound::baggage;
use crate::node::quic::transport;
use crate::node::registry::Attributes;
use crate::node::session::{Forth, Session};
use crate::telemetry::access_log::{Entry, denied};
use crate::telemetry::{Carrier, ConnectionLabels, Reporter};

/// Carries what a program sends to the mesh, from its first datagram on.
pub(super) async fn into_the_mesh(lane: &Lane, ends: Ends, waiting: mpsc::Receiver<Bytes>) {
    let started = Instant::now();
    let (from, to) = (ends.from, ends.to);
    let Some((mesh, workload)) = lane.workload().await else {
        let reason = "the workload is not in the mesh view";
        return denied("outbound", from, Some(to), reason);
    };
    let mut picks = &lane.shared.picks;
    let route = match udp::decide(&mesh.view, &workload, to, &mut picks) {
        Ok(Route::Tunnel(route)) => route,
        // To itself, by the address of this host.
        Ok(Route::Past) if lane.shares(to.ip()).await => {
            return to_itself(lane, &workload, ends, waiting, started).await;
        }
        // It was captured for a mesh of a moment ago.
        Ok(Route::Past) => {
            let reason = "nobody in the mesh takes datagrams there";
            return denied("outbound", from, Some(to), reason);
        }
        Err(refusal) => return denied("outbound", from, Some(to), &chain(&refusal)),
    };
    let mut session = outbound(lane, &workload, &route, from, started);
    let flow = match tunnel(lane, &workload, &route, from).await {
        Ok((flow, carrier)) => {
            session.carried(carrier);
            flow
        }
        Err((flag, reason)) => return session.failed(flag, reason),
    };
    let answer = lane.shared.sockets.answer_udp(&lane.place, to).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(e) => return session.failed("CONNECT", format!("cannot answer from {to}: {e}")),
    };
    let program = Leg::Captured {
        waiting,
        answer,
        to: from,
    };
    relay(session, program, Leg::Tunnel(Box::new(flow))).await;
}

/// Passes on what a workload sends to an address that it shares with this host, and that no other takes.
async fn to_itself(
    lane: &Lane,
    workload: &Arc<Workload>,
    ends: Ends,
    waiting: mpsc::Receiver<Bytes>,
    started: Instant,
) {
    let entry = Entry {
        direction: "outbound",
        source: ends.from,
        source_workload: Some(Arc::clone(workload)),
        source_identity: None,
        destination: ends.to,
        tunnelled: None,
        carrier: Carrier::none,
        service: None,
        destination_identity: None,
        destination_workload: None,
    };
    let session = account(lane, entry, Reporter::source, Forth::ToServer, started);
    join(lane, session, ends, (ends.to, None), waiting).await;
}

/// Joins whoever was captured with a program, who sees a client.
async fn join(
    lane: &Lane,
    session: Box<Session>,
    ends: Ends,
    (program, client): (SocketAddr, Option<SocketAddr>),
    waiting: mpsc::Receiver<Bytes>,
) {
    let sockets = &lane.shared.sockets;
    let legs = async {
        let program = sockets.dial_udp(&lane.place, program, client).await?;
        let answer = sockets.answer_udp(&lane.place, ends.to).await?;
        let client = Leg::Captured {
            waiting,
            answer,
            to: ends.from,
        };
        std::io::Result::Ok((client, Leg::program(program)?))
    };
    match legs.await {
        Ok((client, program)) => relay(session, client, program).await,
        Err(e) => session.failed("CONNECT", format!("cannot reach the program: {e}")),
    }
}

fn outbound(
    lane: &Lane,
    workload: &Arc<Workload>,
    route: &Tunnelled,
    from: SocketAddr,
    started: Instant,
) -> Box<Session> {
    let entry = Entry {
        direction: "outbound",
        source: from,
        source_workload: Some(Arc::clone(workload)),
        source_identity: workload.identity().ok(),
        destination: route.hop,
        tunnelled: Some(route.target.to_string()),
        carrier: Carrier::none,
        service: route.service.clone(),
        destination_identity: route.workload.identity().ok(),
        destination_workload: Some(Arc::clone(&route.workload)),
    };
    account(lane, entry, Reporter::source, Forth::ToServer, started)
}

/// Opens an account of a flow.
pub(super) fn account(
    lane: &Lane,
    entry: Entry,
    reporter: Reporter,
    forth: Forth,
    started: Instant,
) -> Box<Session> {
    let labels = ConnectionLabels::new(
        reporter,
        entry.source_workload.as_deref(),
        entry.destination_workload.as_deref(),
        entry.service.as_deref(),
    );
    let labels = match (&entry.source_identity, &entry.destination_identity) {
        (Some(source), Some(destination)) => labels.secured(source, destination),
        _ => labels,
    };
    let labels = ConnectionLabels {
        request_protocol: "udp",
        ..labels
    };
    Session::open(&lane.shared, &lane.uid, entry, labels, forth, started)
}

/// A tunnel for the datagrams, or the flag and the reason why there is none.
async fn tunnel(
    lane: &Lane,
    workload: &Workload,
    route: &Tunnelled,
    from: SocketAddr,
) -> Result<(Flow, Carrier), (&'static str, String)> {
    let svid = lane.svid(workload).await;
    let svid = svid.map_err(|e| ("IDENTITY_ERROR", chain(&e)))?;
    let hop = Hop {
        to: route.hop,
        svid,
        accepted: Arc::clone(&route.accepted),
        name: route.name.clone(),
        transport: transport(workload, &route.workload),
    };
    let service = route.service.as_ref().map(|s| &*s.key.hostname);
    let request = ConnectRequest {
        authority: route.target.into(),
        baggage: baggage(workload).render(),
        forwarded: headers::forwarded(from, service),
        traceparent: headers::new_traceparent(),
        carries: Carries::Datagrams,
    };
    let opened = lane.pool.connect(&hop, &request).await;
    let (tunnel, _answer) = opened.map_err(|e| (e.flag(), chain(&e)))?;
    let carrier = tunnel.transport().into();
    Ok((Flow::new(tunnel), carrier))
}

/// Lets in what somebody outside sends to the workload, if its policies do.
pub(super) async fn from_outside(lane: &Lane, ends: Ends, waiting: mpsc::Receiver<Bytes>) {
    let started = Instant::now();
    let (from, to) = (ends.from, ends.to);
    let Some((mesh, workload)) = lane.workload().await else {
        let reason = "the workload is not in the mesh view";
        return denied("inbound", from, Some(to), reason);
    };
    let delivery = match udp::arrive(&mesh.view, &workload, to.ip(), to, None) {
        Ok(delivery) => delivery,
        Err(refusal) => return denied("inbound", from, Some(to), &chain(&refusal)),
    };
    let entry = Entry {
        direction: "inbound",
        source: from,
        source_workload: mesh.view.workload_at(&workload.network, from.ip()).cloned(),
        source_identity: None,
        destination: delivery.to,
        tunnelled: None,
        carrier: Carrier::none,
        service: delivery.service,
        destination_workload: Some(Arc::clone(&workload)),
        destination_identity: None,
    };
    let mut session = account(lane, entry, Reporter::destination, Forth::ToServer, started);
    let attributes = Attributes {
        identity: None,
        source: Some(from.ip()),
        destination: delivery.to,
        host: None,
        by_waypoint: false,
    };
    match lane.judge(attributes, (mesh, workload)) {
        Ok(registration) => session.registration = Some(registration),
        Err(denial) => return session.failed("DENY", denial.to_string()),
    }
    let client = lane.borrowed(delivery.to.ip(), from.ip()).await;
    let client = client.map(|_another| from);
    join(lane, session, ends, (delivery.to, client), waiting).await;
}
