//! Calls of the waypoint's own, to a service of the mesh that does something for it: takes its spans, or
//! decides on a request. The service is reached as every destination is (`spec/waypoint-l7.md` §1.8), by
//! its own traffic policy, with the waypoint as the client; connections are shared by all who call it.

mod grpc;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, header, response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::message::{self, Length};
use super::pool::{NoConnection, Version};
use super::upload::Upload;
use crate::hbone::{Connector, headers};
use crate::model::policy::Peer;
use crate::model::service::{AppProtocol, ServiceKey};
use crate::model::waypoint::{Bound, Destination, Picking};
use crate::node::baggage;
use crate::waypoint::lane::Lane;
use crate::waypoint::outside::Unchosen;
use crate::waypoint::routing::{Seen, Untold};
use crate::waypoint::{Arrival, Client, Shared};

pub(in crate::waypoint) use grpc::{Unanswered, message as grpc_message, request as grpc_request};

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

/// What was answered, all of it.
#[derive(Debug)]
pub(in crate::waypoint) struct Called {
    pub(in crate::waypoint) head: response::Parts,
    pub(in crate::waypoint) body: Bytes,
    pub(in crate::waypoint) trailers: HeaderMap,
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
    Untold(#[from] Untold),
    #[error(transparent)]
    Unchosen(#[from] Unchosen),
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    #[error("the service broke off")]
    Lost(#[source] hyper::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
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
    ) -> Result<Called, CallError> {
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
    ) -> Result<Called, CallError> {
        let seen = self.shared.look(&self.instance).ok_or(CallError::Gone)?;
        let arrival = self.arrival(&seen, to)?;
        let destination = Destination::from(&arrival.bound);
        let version = match (request.version(), seen.spoken(&destination)) {
            (http::Version::HTTP_2, _) => Version::Http2,
            (_, AppProtocol::Http2 | AppProtocol::Grpc) => Version::Http2,
            _ if seen
                .ruled(&destination)?
                .settings()
                .connection_pool
                .h2_upgrade =>
            {
                Version::Http2
            }
            _ => Version::Http1,
        };
        let host = host(&request, to)?;
        let mut request = Some(addressed(request, &host, version)?);
        let picking = Picking {
            host: Some(host.host()),
            ..Picking::default()
        };
        let chosen = arrival.choose(&seen, &destination, &picking).await?;
        let pool = &self.shared.http;
        let mut lost = CallError::Malformed;
        // A connection that waited may turn out to be closed before anything is sent.
        for fresh in [false, true] {
            let Some(asked) = request.take() else {
                break;
            };
            let lent = pool.lend(&arrival, &chosen, version, &asked, fresh);
            let mut lease = lent.await?;
            match lease.send(asked).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let (body, trailers) = whole(body, most).await?;
                    lease.give_back();
                    return Ok(Called {
                        head,
                        body,
                        trailers,
                    });
                }
                Err(mut error) => {
                    request = error.take_message();
                    lost = CallError::Lost(error.into_error());
                }
            }
        }
        Err(lost)
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

/// Whom a request is for.
fn host(request: &Request<Bytes>, to: &Callee) -> Result<Authority, CallError> {
    let own = request.headers().get(header::HOST);
    let host = match own {
        Some(own) => Authority::try_from(own.as_bytes()),
        None => Authority::try_from(format!("{}:{}", to.service.hostname, to.port)),
    };
    host.map_err(|_odd| CallError::Malformed)
}

/// A request as a version has it.
fn addressed(
    request: Request<Bytes>,
    host: &Authority,
    version: Version,
) -> Result<Request<Upload>, CallError> {
    let (mut parts, body) = request.into_parts();
    let length = match body.is_empty() {
        true => Length::None,
        false => Length::Open,
    };
    let fields = &mut parts.headers;
    if length == Length::Open {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let addressed = message::address(&mut parts, host, version, length);
    addressed.map_err(|_odd| CallError::Malformed)?;
    Ok(Request::from_parts(parts, Upload::Whole(body)))
}

/// A body that is no longer than `most`, and its trailers.
async fn whole(mut body: Incoming, most: usize) -> Result<(Bytes, HeaderMap), CallError> {
    let mut bytes = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(CallError::Lost)?.into_data() {
            Ok(data) if bytes.len() + data.len() > most => return Err(CallError::TooLong(most)),
            Ok(data) => bytes.extend_from_slice(&data),
            Err(other) => trailers.extend(other.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes.freeze(), trailers))
}
