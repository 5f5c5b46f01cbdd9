//! Envoy's command operators, as far as they are known here.

use std::borrow::Cow;

use http::HeaderName;

use super::stamp::Stamp;
use super::write::Said;
use crate::model::expression::Expression;
use crate::model::telemetry::{Facts, Request};

/// What is said of a request.
#[derive(Debug)]
pub(super) enum Operator {
    StartTime(Stamp),
    /// A field of the request, or another in its stead, and how many characters of it.
    Request(Field, Option<Field>, Option<usize>),
    Response(Field, Option<Field>, Option<usize>),
    Trailer(Field, Option<Field>, Option<usize>),
    Cel(Expression, Option<usize>),
    Simple(Simple),
}

/// A field by name, or part of the request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Named(HeaderName),
}

/// Those that take nothing in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Simple {
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    DownstreamLocalAddress,
    DownstreamRemoteAddress,
    RequestedServerName,
    RouteName,
    DownstreamPeerUriSan,
}

pub(super) const SIMPLE: [(&str, Simple); 17] = [
    ("PROTOCOL", Simple::Protocol),
    ("RESPONSE_CODE", Simple::ResponseCode),
    ("RESPONSE_FLAGS", Simple::ResponseFlags),
    ("RESPONSE_CODE_DETAILS", Simple::ResponseCodeDetails),
    (
        "CONNECTION_TERMINATION_DETAILS",
        Simple::ConnectionTerminationDetails,
    ),
    (
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        Simple::UpstreamTransportFailureReason,
    ),
    ("BYTES_RECEIVED", Simple::BytesReceived),
    ("BYTES_SENT", Simple::BytesSent),
    ("DURATION", Simple::Duration),
    ("UPSTREAM_HOST", Simple::UpstreamHost),
    ("UPSTREAM_CLUSTER", Simple::UpstreamCluster),
    ("UPSTREAM_LOCAL_ADDRESS", Simple::UpstreamLocalAddress),
    ("DOWNSTREAM_LOCAL_ADDRESS", Simple::DownstreamLocalAddress),
    ("DOWNSTREAM_REMOTE_ADDRESS", Simple::DownstreamRemoteAddress),
    ("REQUESTED_SERVER_NAME", Simple::RequestedServerName),
    ("ROUTE_NAME", Simple::RouteName),
    ("DOWNSTREAM_PEER_URI_SAN", Simple::DownstreamPeerUriSan),
];

/// Those that take something in brackets, and how they are written.
pub(super) const BRACKETED: [(&str, &str); 5] = [
    ("START_TIME", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
    ("REQ", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):100%"),
    ("RESP", "%RESP(CONTENT-TYPE)%"),
    ("TRAILER", "%TRAILER(GRPC-STATUS)%"),
    ("CEL", "%CEL(request.headers['x-tenant'])%"),
];

/// The names of all of them.
pub(super) fn listed() -> String {
    let simple = SIMPLE.iter().map(|(name, _)| *name);
    let all = BRACKETED.iter().map(|(name, _)| *name).chain(simple);
    all.collect::<Vec<_>>().join(", ")
}

impl Operator {
    /// What it says; nothing of what is absent.
    pub(super) fn say<'a>(&'a self, facts: &'a Facts<'a>) -> Said<'a> {
        match self {
            Self::StartTime(stamp) => Said::made(stamp.of(facts.started)),
            Self::Request(field, or, most) => {
                let Some(request) = &facts.request else {
                    return Said::Nothing;
                };
                let first = of_request(field, request);
                let found = first.or_else(|| of_request(or.as_ref()?, request));
                Said::cut(found, *most)
            }
            Self::Response(field, or, most) => {
                let Some(response) = &facts.response else {
                    return Said::Nothing;
                };
                let of = |field: &Field| match field {
                    Field::Status => Some(Cow::Owned(response.code.to_string())),
                    field => named(field, response.headers),
                };
                Said::cut(of(field).or_else(|| of(or.as_ref()?)), *most)
            }
            Self::Trailer(field, or, most) => {
                let trailers = facts.response.as_ref().and_then(|r| r.trailers);
                let of = |field: &Field| named(field, trailers?);
                Said::cut(of(field).or_else(|| of(or.as_ref()?)), *most)
            }
            Self::Cel(expression, most) => {
                let value = expression.evaluate(facts).ok();
                Said::cut(value.map(|v| Cow::Owned(v.to_string())), *most)
            }
            Self::Simple(simple) => simple.say(facts),
        }
    }
}

fn of_request<'a>(field: &Field, request: &Request<'a>) -> Option<Cow<'a, str>> {
    match field {
        Field::Method => Some(Cow::Borrowed(request.method)),
        // A CONNECT has none.
        Field::Path => Some(request.target)
            .filter(|target| !target.is_empty())
            .map(Cow::Borrowed),
        Field::Authority => Some(Cow::Borrowed(request.authority)),
        Field::Scheme => Some(Cow::Borrowed(request.scheme)),
        field => named(field, request.headers),
    }
}

fn named<'a>(field: &Field, headers: &'a http::HeaderMap) -> Option<Cow<'a, str>> {
    let Field::Named(name) = field else {
        return None;
    };
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()))
}

impl Simple {
    fn say<'a>(self, facts: &'a Facts<'a>) -> Said<'a> {
        let upstream = facts.upstream.as_ref();
        let text = |text: Option<&'a str>| match text {
            Some(text) if !text.is_empty() => Said::Text(Cow::Borrowed(text)),
            _ => Said::Nothing,
        };
        let address = |address: Option<std::net::SocketAddr>| match address {
            Some(address) => Said::made(address.to_string()),
            None => Said::Nothing,
        };
        match self {
            Self::Protocol => text(facts.request.as_ref().map(|r| r.protocol)),
            Self::ResponseCode => Said::Number(match &facts.response {
                Some(response) => response.code.into(),
                None => 0,
            }),
            Self::ResponseFlags => text(Some(facts.flags)),
            Self::ResponseCodeDetails => text(facts.details),
            Self::ConnectionTerminationDetails => text(facts.termination),
            Self::UpstreamTransportFailureReason => text(upstream.and_then(|u| u.failure)),
            Self::BytesReceived => Said::Number(facts.received),
            Self::BytesSent => Said::Number(facts.sent),
            Self::Duration => {
                let millis = facts.took.as_millis();
                Said::Number(u64::try_from(millis).unwrap_or(u64::MAX))
            }
            Self::UpstreamHost => address(upstream.and_then(|u| u.address)),
            Self::UpstreamCluster => text(upstream.and_then(|u| u.cluster)),
            Self::UpstreamLocalAddress => address(upstream.and_then(|u| u.local)),
            Self::DownstreamLocalAddress => address(Some(facts.destination)),
            Self::DownstreamRemoteAddress => address(Some(facts.source)),
            Self::RequestedServerName => text(facts.server_name),
            Self::RouteName => text(facts.route),
            Self::DownstreamPeerUriSan => text(facts.peer),
        }
    }
}
