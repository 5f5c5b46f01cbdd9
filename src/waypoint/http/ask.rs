//! Asks a service of the mesh something about a request, before that goes on. It is reached as a backend
//! is: by the waypoint's identity, through the same connections, under the same traffic policy.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::message;
use super::pool::{NoConnection, Version};
use super::upload::Upload;
use crate::hbone::Connector;
use crate::model::route::Target;
use crate::model::service::AppProtocol;
use crate::model::waypoint::{Destination, Picking};
use crate::waypoint::Arrival;
use crate::waypoint::outside::Unchosen;
use crate::waypoint::routing::{Seen, Untold};
use crate::waypoint::upstream::Chosen;

/// Endpoints that are tried where nothing was sent to those before.
const ATTEMPTS: usize = 3;

/// What is asked, and of whom.
pub(in crate::waypoint) struct Ask<'a, C: Connector> {
    pub(in crate::waypoint) arrival: &'a Arrival<C>,
    pub(in crate::waypoint) seen: &'a Seen,
    pub(in crate::waypoint) to: &'a Target,
    /// Octets of an answer's body at most.
    pub(in crate::waypoint) most: usize,
}

/// A whole answer.
#[derive(Debug)]
pub(in crate::waypoint) struct Told {
    pub(in crate::waypoint) head: Parts,
    pub(in crate::waypoint) body: Bytes,
    pub(in crate::waypoint) trailers: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::waypoint) enum Unanswered {
    #[error("it is nobody: {0}")]
    Nobody(String),
    #[error(transparent)]
    Untold(#[from] Untold),
    #[error(transparent)]
    Unchosen(#[from] Unchosen),
    #[error(transparent)]
    Unreached(#[from] NoConnection),
    #[error("it cannot be asked that")]
    Unaskable,
    #[error("it went away")]
    Lost(#[source] hyper::Error),
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
}

/// An attempt without an answer, and whether nothing of it was sent.
struct Failed {
    why: Unanswered,
    unsent: bool,
}

impl<C: Connector + Clone> Ask<'_, C> {
    /// What is spoken to it, as far as that is declared.
    pub(in crate::waypoint) fn version(&self) -> Result<Version, Unanswered> {
        let to = self.destination()?;
        let upgraded = self.seen.ruled(&to)?.settings().connection_pool.h2_upgrade;
        Ok(match self.seen.spoken(&to) {
            AppProtocol::Http2 | AppProtocol::Grpc => Version::Http2,
            _ if upgraded => Version::Http2,
            _ => Version::Http1,
        })
    }

    /// Whom it is known as.
    pub(in crate::waypoint) fn host(&self) -> String {
        match self.to {
            Target::Service { key, port, .. } => format!("{}:{port}", key.hostname),
            Target::Invalid(_) => String::new(),
        }
    }

    /// Asks, in as many attempts as it takes to find somebody who can be asked. The target of `request` is a
    /// whole URI.
    ///
    /// # Errors
    /// [`Unanswered`].
    ///
    /// # Cancel safety
    /// Dropped, the question is taken back: its connection or stream is closed.
    pub(in crate::waypoint) async fn send(
        &self,
        request: Request<Bytes>,
        version: Version,
    ) -> Result<Told, Unanswered> {
        let to = self.destination()?;
        let (mut head, body) = request.into_parts();
        let host = head.uri.authority().cloned().ok_or(Unanswered::Unaskable)?;
        let length = match body.is_empty() {
            true => message::Length::None,
            false => message::Length::Open,
        };
        let addressed = message::address(&mut head, &host, version, length);
        addressed.map_err(|_odd| Unanswered::Unaskable)?;
        let request = Request::from_parts(head, body);
        let mut tried: Vec<SocketAddr> = Vec::new();
        loop {
            let picking = Picking {
                host: self.hostname(),
                tried: &tried,
                ..Picking::default()
            };
            let chosen = self.arrival.choose(self.seen, &to, &picking).await?;
            tried.push(chosen.address());
            match self.attempt(&request, &chosen, version).await {
                Ok(told) => return Ok(told),
                Err(failed) if failed.unsent && tried.len() < ATTEMPTS => {}
                Err(failed) => return Err(failed.why),
            }
        }
    }

    fn hostname(&self) -> Option<&str> {
        match self.to {
            Target::Service { key, .. } => Some(&key.hostname),
            Target::Invalid(_) => None,
        }
    }

    fn destination(&self) -> Result<Destination<'_>, Unanswered> {
        let asked = self.arrival.bound.asked();
        let to = self.seen.destination(self.to, asked)?;
        to.ok_or_else(|| match self.to {
            Target::Invalid(why) => Unanswered::Nobody(why.to_string()),
            Target::Service { .. } => Unanswered::Nobody(self.host()),
        })
    }

    /// A connection that waited may turn out to be closed before anything is sent.
    async fn attempt(
        &self,
        request: &Request<Bytes>,
        chosen: &Chosen,
        version: Version,
    ) -> Result<Told, Failed> {
        let pool = &self.arrival.shared.http;
        let mut fresh = false;
        loop {
            let lent = pool.lend(self.arrival, chosen, version, self.hostname(), fresh);
            let mut lease = lent.await.map_err(|e| Failed {
                unsent: e.retryable(),
                why: e.into(),
            })?;
            let copy = request.clone().map(Upload::Whole);
            let mut error = match lease.send(copy).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let read = read(body, self.most).await;
                    let (body, trailers) = read.map_err(|why| Failed { why, unsent: false })?;
                    lease.give_back();
                    return Ok(Told {
                        head,
                        body,
                        trailers,
                    });
                }
                Err(error) => error,
            };
            let unsent = error.take_message().is_some();
            let why = Unanswered::Lost(error.into_error());
            if fresh || !unsent || !lease.used {
                return Err(Failed { why, unsent });
            }
            fresh = true;
        }
    }
}

async fn read(mut body: Incoming, most: usize) -> Result<(Bytes, HeaderMap), Unanswered> {
    let (mut read, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(Unanswered::Lost)?.into_data() {
            Ok(data) if read.len() + data.len() > most => return Err(Unanswered::TooLong(most)),
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((read.freeze(), trailers))
}
