//! Plain connections that arrive for a workload (`spec/hbone-dataplane.md` §4): from outside the
//! mesh, with no identity, let through while nothing forbids it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::carried::{Carried, Onward, carry};
use super::lane::Lane;
use super::registry::Attributes;
use super::session::{Forth, Session};
use crate::capture::original_destination;
use crate::causes::chain;
use crate::hbone;
use crate::model::inbound;
use crate::telemetry::access_log::{Entry, denied};
use crate::telemetry::{Carrier, ConnectionLabels, Reporter};

/// Serves one captured connection to its end.
pub(super) fn handle(
    local: Arc<Lane>,
    stream: TcpStream,
    source: SocketAddr,
) -> impl Future<Output = ()> + Send {
    carry(open(local, stream, source))
}

/// Opens the way to the program, or refuses and says why.
async fn open(local: Arc<Lane>, stream: TcpStream, source: SocketAddr) -> Option<Carried> {
    let started = Instant::now();
    let refuse = |stream, to, reason: &str| {
        denied("inbound", source, to, reason);
        hbone::reset(stream);
        None
    };
    let destination = match original_destination(&stream) {
        Ok(destination) => destination,
        Err(e) => return refuse(stream, None, &chain(&e)),
    };
    let Some((mesh, workload)) = local.workload().await else {
        let reason = "the workload is not in the mesh view";
        return refuse(stream, Some(destination), reason);
    };
    let delivery = match inbound::plaintext(&mesh.view, &workload, destination) {
        Ok(delivery) => delivery,
        Err(refusal) => return refuse(stream, Some(destination), &chain(&refusal)),
    };
    let client = mesh.view.workload_at(&workload.network, source.ip());
    let labels = ConnectionLabels::new(
        Reporter::destination,
        client.map(|c| &**c),
        Some(&workload),
        delivery.service.as_deref(),
    );
    let entry = Entry {
        direction: "inbound",
        source,
        source_workload: client.cloned(),
        source_identity: None,
        destination: delivery.to,
        tunnelled: None,
        carrier: Carrier::none,
        service: delivery.service,
        destination_workload: Some(Arc::clone(&workload)),
        destination_identity: None,
    };
    let (shared, uid) = (&local.shared, &local.uid);
    let mut session = Session::open(shared, uid, entry, labels, Forth::ToServer, started);
    let attributes = Attributes {
        identity: None,
        source: Some(source.ip()),
        destination: delivery.to,
        host: None,
        by_waypoint: false,
    };
    match local.judge(attributes, (mesh, workload)) {
        Ok(registration) => session.registration = Some(registration),
        Err(denial) => {
            session.failed("DENY", denial.to_string());
            hbone::reset(stream);
            return None;
        }
    }
    match local.deliver(delivery.to, source.ip()).await {
        Ok(program) => Some(Carried {
            session,
            program: stream,
            onward: Onward::Plain(program),
        }),
        Err(e) => {
            let reason = format!("the program at {} does not answer: {e}", delivery.to);
            session.failed("CONNECT", reason);
            hbone::reset(stream);
            None
        }
    }
}
