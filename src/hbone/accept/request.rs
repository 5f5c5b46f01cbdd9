//! One request for a tunnel: read strictly, then accepted or refused.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::h3;
use crate::hbone::tunnel::{self, Carrier};
use crate::hbone::{Authority, Carries, Transport, Tunnel, TunnelError, headers, masque};
use crate::identity::SpiffeId;

/// Header fields of a request (`spec/reliability.md` §2b).
const FIELDS: usize = 128;

/// A request for a tunnel, not yet answered. Dropping it refuses with a reset.
pub struct Incoming {
    /// Who the peer proved to be.
    pub peer: Option<SpiffeId>,
    /// The peer's address, when it asked.
    pub remote: SocketAddr,
    /// The same where the peer cannot be elsewhere, or have only said that it is there: not over QUIC that
    /// follows whoever roams.
    pub proven_ip: Option<IpAddr>,
    /// Where the tunnel shall end.
    pub authority: Authority,
    /// The request's headers.
    pub headers: HeaderMap,
    /// What the tunnel is for.
    pub carries: Carries,
    answer: Answerer,
}

/// What a well-formed request says.
pub(in crate::hbone) struct Asked {
    pub(in crate::hbone) authority: Authority,
    pub(in crate::hbone) headers: HeaderMap,
    pub(in crate::hbone) carries: Carries,
}

/// Who carries the answer.
enum Answerer {
    Http2 {
        respond: SendResponse<Bytes>,
        body: RecvStream,
    },
    Http3(Box<h3::Responder>),
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
    /// By what it came.
    pub fn transport(&self) -> Transport {
        match &self.answer {
            Answerer::Http2 { .. } => Transport::Tcp,
            Answerer::Http3(_) => Transport::Quic,
        }
    }

    pub(super) fn http2(
        peer: Option<SpiffeId>,
        remote: SocketAddr,
        asked: Asked,
        (respond, body): (SendResponse<Bytes>, RecvStream),
    ) -> Self {
        let answer = Answerer::Http2 { respond, body };
        Self::new(peer, remote, false, asked, answer)
    }

    pub(in crate::hbone) fn http3(
        peer: Option<SpiffeId>,
        (remote, roams): (SocketAddr, bool),
        asked: Asked,
        responder: h3::Responder,
    ) -> Self {
        let answer = Answerer::Http3(Box::new(responder));
        Self::new(peer, remote, roams, asked, answer)
    }

    fn new(
        peer: Option<SpiffeId>,
        remote: SocketAddr,
        roams: bool,
        asked: Asked,
        answer: Answerer,
    ) -> Self {
        Self {
            peer,
            remote,
            proven_ip: (!roams).then(|| remote.ip()),
            authority: asked.authority,
            headers: asked.headers,
            carries: asked.carries,
            answer,
        }
    }

    /// Opens the tunnel, telling the destination workload for telemetry.
    ///
    /// # Errors
    /// When the peer has gone in the meantime.
    pub fn accept(self, baggage: &str) -> Result<Tunnel, TunnelError> {
        let baggage = headers::value(baggage);
        let capsules = HeaderValue::from_static("?1");
        let capsules = (self.carries == Carries::Datagrams).then_some(capsules);
        let carrier = match self.answer {
            Answerer::Http2 { mut respond, body } => {
                let mut response = Response::new(());
                let map = response.headers_mut();
                map.insert(headers::BAGGAGE, baggage);
                map.extend(capsules.map(|yes| (HeaderName::from_static(masque::CAPSULES), yes)));
                let stream = respond.send_response(response, false)?;
                Carrier::Http2(tunnel::Http2::new(stream, body))
            }
            Answerer::Http3(responder) => {
                let mut response = h3::Response::new(StatusCode::OK);
                let map = &mut response.headers;
                map.insert(headers::BAGGAGE, baggage);
                map.extend(capsules.map(|yes| (HeaderName::from_static(masque::CAPSULES), yes)));
                Carrier::Http3(tunnel::Http3::new(responder.open(&response)))
            }
        };
        Ok(Tunnel::new(carrier, None))
    }

    /// Says no.
    pub fn refuse(self, status: StatusCode) {
        match self.answer {
            Answerer::Http2 { mut respond, .. } => refuse(&mut respond, status),
            Answerer::Http3(responder) => responder.refuse(&h3::Response::new(status)),
        }
    }
}

pub(super) fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A peer that has gone needs no answer.
    let _gone = respond.send_response(response, true);
}

/// The target of a well-formed request.
pub(super) fn target(request: &Request<RecvStream>) -> Result<(Authority, Carries), Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal::Method);
    }
    if request.headers().len() > FIELDS {
        return Err(Refusal::Headers);
    }
    let asked = match request.extensions().get::<Protocol>() {
        Some(protocol) if protocol.as_str() == masque::PROTOCOL => {
            let target = masque::target(request.uri().path()).ok_or(Refusal::Authority)?;
            (target, Carries::Datagrams)
        }
        Some(_unknown) => return Err(Refusal::Method),
        None => {
            // The authority component itself, never a URI put together again (§1.3).
            let authority = request.uri().authority().ok_or(Refusal::Authority)?;
            let read = authority.as_str().parse();
            (
                read.map_err(|_unreadable| Refusal::Authority)?,
                Carries::Bytes,
            )
        }
    };
    if request.body().is_end_stream() {
        return Err(Refusal::Ended);
    }
    Ok(asked)
}
