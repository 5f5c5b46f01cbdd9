//! What expressions can ask for, by Envoy's names.

use super::value::Value;
use crate::model::telemetry::{Facts, Request, Response, Upstream};

/// Something that is known of a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Envoy's and documented there")]
pub enum Attribute {
    RequestPath,
    RequestUrlPath,
    RequestHost,
    RequestScheme,
    RequestMethod,
    RequestHeaders,
    RequestReferer,
    RequestUserAgent,
    RequestTime,
    RequestId,
    RequestProtocol,
    RequestQuery,
    RequestDuration,
    RequestSize,
    RequestTotalSize,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseGrpcStatus,
    ResponseHeaders,
    ResponseTrailers,
    ResponseSize,
    ResponseTotalSize,
    SourceAddress,
    SourcePort,
    DestinationAddress,
    DestinationPort,
    UpstreamAddress,
    UpstreamPort,
    ConnectionId,
    ConnectionMtls,
    ConnectionServerName,
    ConnectionTlsVersion,
    ConnectionPeerSan,
    ConnectionLocalSan,
    ConnectionTermination,
    Metadata,
    FilterState,
}

/// What can be looked up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Of the request.
    Request,
    /// Of the answer's head.
    Response,
    /// After the answer's body.
    Trailers,
    /// Nothing: what other proxies' filters leave behind, and nobody here does.
    Nothing,
}

const KNOWN: [(&str, Attribute); 38] = [
    ("request.path", Attribute::RequestPath),
    ("request.url_path", Attribute::RequestUrlPath),
    ("request.host", Attribute::RequestHost),
    ("request.scheme", Attribute::RequestScheme),
    ("request.method", Attribute::RequestMethod),
    ("request.headers", Attribute::RequestHeaders),
    ("request.referer", Attribute::RequestReferer),
    ("request.useragent", Attribute::RequestUserAgent),
    ("request.time", Attribute::RequestTime),
    ("request.id", Attribute::RequestId),
    ("request.protocol", Attribute::RequestProtocol),
    ("request.query", Attribute::RequestQuery),
    ("request.duration", Attribute::RequestDuration),
    ("request.size", Attribute::RequestSize),
    ("request.total_size", Attribute::RequestTotalSize),
    ("response.code", Attribute::ResponseCode),
    ("response.code_details", Attribute::ResponseCodeDetails),
    ("response.flags", Attribute::ResponseFlags),
    ("response.grpc_status", Attribute::ResponseGrpcStatus),
    ("response.headers", Attribute::ResponseHeaders),
    ("response.trailers", Attribute::ResponseTrailers),
    ("response.size", Attribute::ResponseSize),
    ("response.total_size", Attribute::ResponseTotalSize),
    ("source.address", Attribute::SourceAddress),
    ("source.port", Attribute::SourcePort),
    ("destination.address", Attribute::DestinationAddress),
    ("destination.port", Attribute::DestinationPort),
    ("upstream.address", Attribute::UpstreamAddress),
    ("upstream.port", Attribute::UpstreamPort),
    ("connection.id", Attribute::ConnectionId),
    ("connection.mtls", Attribute::ConnectionMtls),
    (
        "connection.requested_server_name",
        Attribute::ConnectionServerName,
    ),
    ("connection.tls_version", Attribute::ConnectionTlsVersion),
    (
        "connection.uri_san_peer_certificate",
        Attribute::ConnectionPeerSan,
    ),
    (
        "connection.uri_san_local_certificate",
        Attribute::ConnectionLocalSan,
    ),
    (
        "connection.termination_details",
        Attribute::ConnectionTermination,
    ),
    ("metadata", Attribute::Metadata),
    ("filter_state", Attribute::FilterState),
];

impl Attribute {
    /// The one of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = KNOWN.iter().find(|(known, _)| *known == name);
        found.map(|(_, attribute)| *attribute)
    }

    /// Those whose names begin so.
    pub(super) fn below(object: &str) -> Vec<&'static str> {
        let names = KNOWN.iter().map(|(name, _)| *name);
        let of_object = names.filter(|name| name.split_once('.').is_some_and(|n| n.0 == object));
        of_object.collect()
    }

    /// What it is; none where nobody knows.
    pub(super) fn of<'a>(self, facts: &'a Facts<'a>) -> Option<Value<'a>> {
        let field = |name| header(facts.request.as_ref()?.headers, name);
        Some(match self {
            Self::RequestHeaders
            | Self::RequestPath
            | Self::RequestUrlPath
            | Self::RequestHost
            | Self::RequestScheme
            | Self::RequestMethod
            | Self::RequestProtocol
            | Self::RequestQuery
            | Self::RequestTotalSize => self.of_request(facts.request.as_ref()?, facts.received)?,
            Self::RequestReferer => field("referer")?,
            Self::RequestUserAgent => field("user-agent")?,
            Self::RequestId => field("x-request-id")?,
            Self::RequestTime => Value::Time(facts.started),
            Self::RequestDuration => Value::duration(facts.took),
            Self::RequestSize => Value::count(facts.received),
            Self::ResponseHeaders
            | Self::ResponseTrailers
            | Self::ResponseCode
            | Self::ResponseGrpcStatus
            | Self::ResponseTotalSize => self.of_response(facts.response.as_ref()?, facts.sent)?,
            Self::ResponseCodeDetails => Value::from(facts.details?),
            Self::ResponseFlags => Value::Int(flags(facts.flags)),
            Self::ResponseSize => Value::count(facts.sent),
            Self::SourceAddress => Value::owned(facts.source),
            Self::SourcePort => Value::Int(facts.source.port().into()),
            Self::DestinationAddress => Value::owned(facts.destination),
            Self::DestinationPort => Value::Int(facts.destination.port().into()),
            Self::UpstreamAddress => Value::owned(upstream(facts)?.address?),
            Self::UpstreamPort => Value::Int(upstream(facts)?.address?.port().into()),
            // Connections are not numbered.
            Self::ConnectionId => return None,
            Self::ConnectionMtls => Value::Bool(facts.peer.is_some()),
            Self::ConnectionServerName => Value::from(facts.server_name?),
            Self::ConnectionTlsVersion => facts.peer.map(|_| Value::from("TLSv1.3"))?,
            Self::ConnectionPeerSan => Value::from(facts.peer?),
            Self::ConnectionLocalSan => Value::from(facts.own?),
            Self::ConnectionTermination => Value::from(facts.termination?),
            Self::Metadata | Self::FilterState => Value::Fields(Fields::Nothing),
        })
    }

    fn of_request<'a>(self, request: &'a Request<'a>, received: u64) -> Option<Value<'a>> {
        Some(match self {
            Self::RequestHeaders => Value::Fields(Fields::Request),
            Self::RequestPath => Value::from(request.target),
            Self::RequestUrlPath => Value::from(request.path_and_query().0),
            Self::RequestQuery => Value::from(request.path_and_query().1.unwrap_or_default()),
            Self::RequestHost => Value::from(request.authority),
            Self::RequestScheme => Value::from(request.scheme),
            Self::RequestMethod => Value::from(request.method),
            Self::RequestProtocol => Value::from(request.protocol),
            Self::RequestTotalSize => Value::count(request.head.saturating_add(received)),
            _ => return None,
        })
    }

    fn of_response<'a>(self, response: &'a Response<'a>, sent: u64) -> Option<Value<'a>> {
        Some(match self {
            Self::ResponseHeaders => Value::Fields(Fields::Response),
            Self::ResponseTrailers => Value::Fields(Fields::Trailers),
            Self::ResponseCode => Value::Int(response.code.into()),
            Self::ResponseGrpcStatus => Value::Int(response.grpc_status?.into()),
            Self::ResponseTotalSize => Value::count(response.head.saturating_add(sent)),
            _ => return None,
        })
    }
}

impl Fields {
    /// One of them.
    pub(super) fn find<'a>(self, facts: &'a Facts<'a>, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Nothing => None,
            Self::Request => {
                let request = facts.request.as_ref()?;
                match name {
                    ":method" => Some(Value::from(request.method)),
                    ":path" => Some(Value::from(request.target)),
                    ":authority" => Some(Value::from(request.authority)),
                    ":scheme" => Some(Value::from(request.scheme)),
                    name => header(request.headers, name),
                }
            }
            Self::Response => match name {
                ":status" => Some(Value::owned(facts.response.as_ref()?.code)),
                name => header(facts.response.as_ref()?.headers, name),
            },
            Self::Trailers => header(facts.response.as_ref()?.trailers?, name),
        }
    }

    /// How many there are.
    pub(super) fn count(self, facts: &Facts<'_>) -> usize {
        let response = facts.response.as_ref();
        match self {
            Self::Nothing => 0,
            Self::Request => facts.request.as_ref().map_or(0, |r| r.headers.keys_len()),
            Self::Response => response.map_or(0, |r| r.headers.keys_len()),
            Self::Trailers => response
                .and_then(|r| r.trailers)
                .map_or(0, |t| t.keys_len()),
        }
    }
}

/// A field; one that is there several times is one list of all its values.
fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<Value<'a>> {
    let mut values = headers.get_all(name).iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    let joined = values.fold(first, |mut joined, next| {
        let text = joined.to_mut();
        text.push(',');
        text.push_str(&String::from_utf8_lossy(next.as_bytes()));
        joined
    });
    Some(Value::Text(joined))
}

fn upstream<'a>(facts: &'a Facts<'a>) -> Option<&'a Upstream<'a>> {
    facts.upstream.as_ref()
}

/// Envoy's flags in the order of their bits, of which 0 is `LH`.
const FLAGS: [&str; 29] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
];

/// Flags as Envoy's bits.
fn flags(text: &str) -> i64 {
    let bit = |flag: &str| FLAGS.iter().position(|known| *known == flag);
    let bits = text.split(',').filter_map(bit);
    bits.fold(0, |all, bit| all | 1 << bit)
}
