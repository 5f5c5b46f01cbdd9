//! One request for a tunnel: read strictly, then accepted or refused.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::hbone::{Authority, Tunnel, TunnelError, headers};
use crate::identity::SpiffeId;

/// Header fields of a request (`spec/reliability.md` §2b).
const FIELDS: usize = 128;

/// A request for a tunnel, not yet answered. Dropping it refuses with a reset.
pub struct Incoming {
    /// Who the peer proved to be.
    pub peer: Option<SpiffeId>,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Where the tunnel shall end.
    pub authority: Authority,
    /// The request's headers.
    pub headers: HeaderMap,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) body: RecvStream,
}

/// Why a request is not well formed; answered before any handler sees it (§1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another method than CONNECT.
    Method,
    /// No target, or one that does not read.
    Authority,
    /// Ended before it began: a tunnel nothing could be sent through (§1.3).
    Ended,
    /// More header fields than any peer has a use for.
    Headers,
}

impl Incoming {
    /// Opens the tunnel, telling the destination workload for telemetry.
    ///
    /// # Errors
    /// When the peer has gone in the meantime.
    pub fn accept(mut self, baggage: &str) -> Result<Tunnel, TunnelError> {
        let mut response = Response::new(());
        let map = response.headers_mut();
        map.insert(headers::BAGGAGE, headers::value(baggage));
        let stream = self.respond.send_response(response, false);
        let stream = stream.map_err(|source| TunnelError::Reset { source })?;
        Ok(Tunnel::new(stream, self.body, None))
    }

    /// Says no.
    pub fn refuse(mut self, status: StatusCode) {
        refuse(&mut self.respond, status);
    }
}

pub(super) fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A peer that has gone needs no answer.
    let _gone = respond.send_response(response, true);
}

/// The target of a well-formed request.
pub(super) fn target(request: &Request<RecvStream>) -> Result<Authority, Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal::Method);
    }
    if request.headers().len() > FIELDS {
        return Err(Refusal::Headers);
    }
    // The authority component itself, never a URI put together again (§1.3).
    let authority = request.uri().authority().ok_or(Refusal::Authority)?;
    let read = authority.as_str().parse();
    let authority = read.map_err(|_unreadable| Refusal::Authority)?;
    if request.body().is_end_stream() {
        return Err(Refusal::Ended);
    }
    Ok(authority)
}
