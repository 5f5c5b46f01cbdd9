//! Calls of the waypoint's own, for the sake of no request: a service of the mesh takes what it tells. It is
//! asked as for a request ([`Ask`]), with the waypoint as the client.

mod grpc;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Uri, header};

use super::ask::{Ask, Told, Unanswered};
use super::pool::Version;
use crate::hbone::{Connector, headers};
use crate::model::policy::Peer;
use crate::model::route::Target;
use crate::model::service::ServiceKey;
use crate::model::waypoint::Bound;
use crate::node::baggage;
use crate::telemetry::Carrier;
use crate::waypoint::lane::Lane;
use crate::waypoint::routing::Seen;
use crate::waypoint::{Arrival, Client, Shared};

pub(in crate::waypoint) use grpc::{NoMessage, message as grpc_message, request as grpc_request};

/// A port of a service that is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::waypoint) struct Callee {
    pub(in crate::waypoint) service: ServiceKey,
    pub(in crate::waypoint) port: u16,
}

/// A waypoint, as whoever calls.
pub(in crate::waypoint) struct Caller<C: Connector> {
    pub(in crate::waypoint) shared: Arc<Shared<C>>,
    /// The thread that carries what is said.
    pub(in crate::waypoint) lane: Arc<Lane<C>>,
    /// The uid of the waypoint's instance.
    pub(in crate::waypoint) instance: Arc<str>,
}

/// How long a call may take, and how much may be answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::waypoint) struct Bounds {
    pub(in crate::waypoint) time: Duration,
    /// Bytes of the answer's body.
    pub(in crate::waypoint) answer: usize,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub(in crate::waypoint) enum CallError {
    #[error("the waypoint's instance is not in the mesh view")]
    Gone,
    #[error("the mesh has no service {0}")]
    NoService(ServiceKey),
    #[error("service {service} declares no port {port}")]
    NoPort { service: ServiceKey, port: u16 },
    #[error("the request is none")]
    Malformed,
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl<C: Connector> Arrival<C> {
    /// The waypoint, where it calls somebody for what arrived.
    pub(in crate::waypoint) fn caller(&self) -> Caller<C> {
        Caller {
            shared: Arc::clone(&self.shared),
            lane: Arc::clone(&self.lane),
            instance: Arc::clone(&self.instance),
        }
    }
}

impl<C: Connector + Clone> Caller<C> {
    /// Sends a request to a service and reads its answer. Its target is a path; who it is for is the
    /// service, unless it has a `host`. It is sent as HTTP/2 where its version is that or the service
    /// speaks nothing else.
    pub(in crate::waypoint) async fn call(
        &self,
        to: &Callee,
        request: Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Told, CallError> {
        // A large future, which most of those who wait for it need not hold.
        let sent = Box::pin(self.send(to, request, bounds.answer));
        let answered = tokio::time::timeout(bounds.time, sent).await;
        answered.unwrap_or(Err(CallError::Late(bounds.time)))
    }

    async fn send(
        &self,
        to: &Callee,
        request: Request<Bytes>,
        most: usize,
    ) -> Result<Told, CallError> {
        let seen = self.shared.look(&self.instance).ok_or(CallError::Gone)?;
        let arrival = self.arrival(&seen, to)?;
        let to_service = Target::Service {
            key: to.service.clone(),
            port: to.port,
            subset: None,
        };
        let ask = Ask {
            arrival: &arrival,
            seen: &seen,
            to: &to_service,
            most,
        };
        let version = match request.version() {
            http::Version::HTTP_2 => Version::Http2,
            _ => ask.version()?,
        };
        Ok(ask.send(whole(request, to)?, version).await?)
    }

    /// The call, as if it had come through a tunnel of the waypoint's own.
    fn arrival(&self, seen: &Seen, to: &Callee) -> Result<Arrival<C>, CallError> {
        let service = seen.mesh.view.service(&to.service);
        let service = service.ok_or_else(|| CallError::NoService(to.service.clone()))?;
        let port = service.ports.iter().find(|p| p.service_port == to.port);
        let port = port.ok_or_else(|| CallError::NoPort {
            service: to.service.clone(),
            port: to.port,
        })?;
        let identity = seen.instance.identity();
        let identity = identity.map_err(|_illegal| CallError::Gone)?;
        // Nobody connects there: it only says which family is preferred.
        let address = service.vips.first().map(|vip| vip.address);
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let source = seen.instance.addresses.first().copied();
        let source = source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Arrival {
            shared: Arc::clone(&self.shared),
            lane: Arc::clone(&self.lane),
            instance: Arc::clone(&self.instance),
            client: Client {
                peer: Peer::new(&identity),
                identity,
                source: SocketAddr::new(source, 0),
                carrier: Carrier::none,
                workload: Some(Arc::clone(&seen.instance)),
                baggage: baggage(&seen.instance).render(),
                traceparent: headers::new_traceparent(),
            },
            bound: Bound::Service {
                service: Arc::clone(service),
                port: *port,
                asked: SocketAddr::new(address, to.port),
            },
            started: Instant::now(),
        })
    }
}

/// The same request with all of its target, and with the length of its body.
fn whole(request: Request<Bytes>, to: &Callee) -> Result<Request<Bytes>, CallError> {
    let (mut parts, body) = request.into_parts();
    let own = parts.headers.remove(header::HOST);
    let host = match own {
        Some(own) => Authority::try_from(own.as_bytes()),
        None => Authority::try_from(format!("{}:{}", to.service.hostname, to.port)),
    };
    let mut target = parts.uri.into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(host.map_err(|_odd| CallError::Malformed)?);
    parts.uri = Uri::from_parts(target).map_err(|_odd| CallError::Malformed)?;
    if !body.is_empty() {
        let length = HeaderValue::from(body.len());
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    Ok(Request::from_parts(parts, body))
}
