//! Who is let in, and for what; and what is told of a tunnel that is refused (`spec/waypoint-l7.md` §1.2,
//! §6.3). Once it is open, only what it carries is told of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ::http::StatusCode;

use super::http::Caller;
use super::{Client, Shared};
use crate::causes::chain;
use crate::hbone::{Authority, Connector, Incoming, headers};
use crate::model::inbound::Target;
use crate::model::policy::Peer;
use crate::model::telemetry::{Facts, Request, Response};
use crate::model::waypoint::{self, Bound, Refusal};
use crate::model::workload::Workload;
use crate::telemetry::access_log::denied;

/// Why a tunnel is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAdmitted {
    #[error("the waypoint has left the mesh")]
    Gone,
    #[error("the peer proved no identity")]
    Unproven,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl NotAdmitted {
    /// What the peer is answered.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unproven => StatusCode::UNAUTHORIZED,
            Self::Refused(refusal) => {
                let status = StatusCode::from_u16(refusal.status());
                status.unwrap_or(StatusCode::NOT_FOUND)
            }
        }
    }
}

/// Decides what a tunnel is for that is asked of this instance, which is returned too.
///
/// # Errors
/// [`NotAdmitted`].
pub(super) fn admit<C: Connector>(
    shared: &Shared<C>,
    instance: &str,
    request: &Incoming,
) -> Result<(Arc<Workload>, Client, Bound), NotAdmitted> {
    let (mesh, instance) = shared.known(instance).ok_or(NotAdmitted::Gone)?;
    let identity = request.peer.clone().ok_or(NotAdmitted::Unproven)?;
    let target = match &request.authority {
        Authority::Address(address) => Target::Address(*address),
        Authority::Name { host, port } => Target::Name { host, port: *port },
    };
    let told = mesh.waypoints.get(&shared.settings.name);
    let told = told.map(|told| &**told);
    let bound = waypoint::admit(&mesh.view, told, &instance, target)?;
    let (source, map) = (request.remote, &request.headers);
    let workload = mesh.view.workload_at(&instance.network, source.ip());
    let client = Client {
        peer: Peer::new(&identity),
        identity,
        source,
        carrier: request.transport().into(),
        workload: workload.cloned(),
        baggage: headers::Baggage::read(map).render(),
        traceparent: headers::traceparent(map),
    };
    Ok((instance, client, bound))
}

impl<C: Connector + Clone> Caller<C> {
    /// Tells of a tunnel that is refused, by what holds for the waypoint as a whole: nobody else was asked
    /// for.
    pub(super) fn refused(&self, request: &Incoming, why: &NotAdmitted, asked_at: Instant) {
        let reason = chain(why);
        self.record(request, (why.status(), &reason), asked_at);
        denied("waypoint", request.remote, None, &reason);
    }

    fn record(&self, request: &Incoming, (status, reason): (StatusCode, &str), asked_at: Instant) {
        let Some(seen) = self.shared.look(&self.instance) else {
            return;
        };
        let Ok(Some(attached)) = seen.unbound() else {
            return;
        };
        let records = attached.records(|merged, setup| self.records(&seen, merged, setup));
        let Some(records) = records.filter(|records| records.observes()) else {
            return;
        };
        let to = match &request.authority {
            Authority::Address(address) => Some(*address),
            // What it stands for is not known: it came here.
            Authority::Name { port, .. } => {
                let here = seen.instance.addresses.first();
                here.map(|address| SocketAddr::new(*address, *port))
            }
        };
        let Some(to) = to else {
            return;
        };
        let took = asked_at.elapsed();
        let peer = request.peer.as_ref().map(ToString::to_string);
        let authority = request.authority.to_string();
        let none = ::http::HeaderMap::new();
        let refused = Facts {
            started: SystemTime::now() - took,
            took,
            peer: peer.as_deref(),
            own: records.own(),
            request: Some(Request {
                method: "CONNECT",
                target: "",
                authority: &authority,
                scheme: "",
                protocol: "HTTP/2",
                headers: &request.headers,
                head: 0,
            }),
            response: Some(Response {
                code: status.as_u16(),
                grpc_status: None,
                headers: &none,
                trailers: None,
                head: 0,
            }),
            flags: "NR",
            details: Some("route_not_found"),
            termination: Some(reason),
            ..Facts::of_connection(request.remote, to)
        };
        records.write(&refused, None);
    }
}
