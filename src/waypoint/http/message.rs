//! What of a message is for the next hop (`spec/waypoint-l7.md` §1.6, RFC 9110 §7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri};
use hyper::body::Body;

use super::framing::lists;
use super::pool::Version;
use super::reply::Reply;
use crate::identity::SpiffeId;

/// Proof, to the application, that a request crossed a waypoint.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// How fields begin that proxies alone say, to one another.
const RESERVED: [&str; 2] = ["x-envoy-", "x-lateen-"];
/// Fields that are between two neighbours, whether `connection` names them or not.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Reads whom a request is for, and takes out of it what is not for the next hop. Returns whom.
///
/// # Errors
/// What to answer instead.
pub(super) fn receive(parts: &mut Parts) -> Result<Authority, Reply> {
    if parts.method == Method::CONNECT {
        return Err(Reply::not_found("a CONNECT inside the tunnel"));
    }
    let path = parts.uri.path();
    let of_everything = path == "*" && parts.method == Method::OPTIONS;
    if !of_everything && !path.starts_with('/') {
        return Err(Reply::malformed("a target without a path"));
    }
    let authority = authority(parts)?;
    if authority.as_str().contains('@') {
        return Err(Reply::malformed("an authority with a user"));
    }
    for_next_hop(&mut parts.headers);
    let headers = &mut parts.headers;
    headers.remove(CLIENT_CERTIFICATE);
    headers.remove(header::HOST);
    if !headers.contains_key(&REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(&uuid(rand::random()))
    {
        headers.insert(REQUEST_ID, id);
    }
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    Ok(authority)
}

/// Whether a field is about one connection, and never for whom a message is passed on to.
pub(in crate::waypoint) fn is_between_neighbours(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || [header::TE, header::TRAILER].contains(name)
}

/// The request's id, once it was received.
pub(in crate::waypoint) fn request_id(headers: &HeaderMap) -> &str {
    let id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    id.unwrap_or_default()
}

/// Whom a request is for: its target's authority where it has one, else its one `host` field.
fn authority(parts: &Parts) -> Result<Authority, Reply> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Reply::malformed("several host fields"));
    }
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.clone());
    }
    let host = first.ok_or_else(|| Reply::malformed("no host field"))?;
    let host = Authority::try_from(host.as_bytes());
    host.map_err(|_unreadable| Reply::malformed("an unreadable host field"))
}

/// Takes out what is between two neighbours.
fn for_next_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // These say how long the message is and whom it is for: never a matter of one hop.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    let trailers = headers.get_all(header::TE).iter().any(accepts_trailers);
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let reserved: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            RESERVED
                .iter()
                .any(|begin| name.as_str().starts_with(begin))
        })
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    let text = te.to_str().unwrap_or_default();
    text.split(',')
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Whether a request asks to become a WebSocket (RFC 6455 §4.1). Other protocols are not passed on.
pub(super) fn asks_for_websocket(parts: &Parts) -> bool {
    // HTTP/2 has no such fields, but for those of a request that [`super::websocket`] has turned.
    if parts.version < http::Version::HTTP_11 {
        return false;
    }
    let lists = |name: HeaderName, wanted: &[u8]| {
        let mut values = parts.headers.get_all(name).into_iter();
        values.any(|value| lists(value.as_bytes(), wanted))
    };
    lists(header::CONNECTION, b"upgrade") && lists(header::UPGRADE, b"websocket")
}

/// Says, to the next hop, that a message is about becoming a WebSocket.
pub(super) fn into_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// What is known of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none.
    None,
    /// There is one, whose length `content-length` has or nobody.
    Open,
}

impl Length {
    /// Of a body as it comes.
    pub(super) fn of(body: &impl Body) -> Self {
        match body.is_end_stream() {
            true => Self::None,
            false => Self::Open,
        }
    }
}

/// Puts a received request, with such a body, into the form in which a version has it.
///
/// # Errors
/// What to answer where its target does not fit.
pub(super) fn address(
    parts: &mut Parts,
    authority: &Authority,
    version: Version,
    length: Length,
) -> Result<(), Reply> {
    let path = parts.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut target = http::uri::Parts::default();
    target.path_and_query = Some(path);
    parts.headers.remove(header::HOST);
    match version {
        Version::Http1 => {
            parts.version = http::Version::HTTP_11;
            let host = HeaderValue::from_str(authority.as_str());
            let host = host.map_err(|_odd| Reply::malformed("an unreadable host"))?;
            parts.headers.insert(header::HOST, host);
            let known = parts.headers.contains_key(header::CONTENT_LENGTH);
            // hyper takes it for nothing where the method is one that mostly has no body.
            if length == Length::Open && !known {
                let chunked = HeaderValue::from_static("chunked");
                parts.headers.insert(header::TRANSFER_ENCODING, chunked);
            }
        }
        Version::Http2 => {
            parts.version = http::Version::HTTP_2;
            target.scheme = Some(Scheme::HTTP);
            target.authority = Some(authority.clone());
        }
    }
    let uri = Uri::from_parts(target);
    parts.uri = uri.map_err(|_odd| Reply::malformed("an unreadable target"))?;
    Ok(())
}

/// Tells the application by which identities the request came (§1.3): the client's as its tunnel has
/// proven it, and the waypoint's own. What the client says of itself is gone before ([`receive`]).
pub(super) fn identify(headers: &mut HeaderMap, waypoint: &SpiffeId, client: &SpiffeId) {
    let value = HeaderValue::from_str(&format!("By={waypoint};URI={client}"));
    // SPIFFE IDs have no character that a field could not have.
    if let Ok(value) = value {
        headers.insert(CLIENT_CERTIFICATE, value);
    }
}

/// Takes out of an answer what is not for the client, and says how long it took.
pub(super) fn answer(headers: &mut HeaderMap, millis: u128) {
    for_next_hop(headers);
    headers.remove(header::TE);
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    headers.insert(SERVICE_TIME, HeaderValue::from(millis));
}

/// A random UUID (RFC 9562 §5.4) out of random bits.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let (a, b, c) = (part(0, 8), part(8, 12), part(12, 16));
    format!("{a}-{b}-{c}-{}-{}", part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests;
