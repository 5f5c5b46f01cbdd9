//! The heads of messages: what a CONNECT asks and what it is answered (RFC 9114 §4).

mod fields;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::error::{Code, Fault};
use super::qpack::Encoder;
use fields::Fields;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `:method`.
    pub method: Method,
    /// `:authority`, as it was sent.
    pub authority: Option<String>,
    /// `:scheme`, which a plain CONNECT has not.
    pub scheme: Option<String>,
    /// `:path`, which a plain CONNECT has not.
    pub path: Option<String>,
    /// `:protocol`, of an extended CONNECT (RFC 9220 §3).
    pub protocol: Option<String>,
    /// Everything else.
    pub headers: HeaderMap,
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// `:status`.
    pub status: StatusCode,
    /// Everything else.
    pub headers: HeaderMap,
}

/// How large a field section we take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) size: u64,
    pub(super) count: usize,
}

/// Why a head is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The field section cannot be decoded, which ends the connection.
    Section(Fault),
    /// The message is malformed, which ends the stream (RFC 9114 §4.1.2).
    Malformed(Fault),
    /// It is larger than we take.
    TooLarge,
}

impl Request {
    /// A CONNECT to `authority` (RFC 9114 §4.4).
    pub fn connect(authority: impl Into<String>) -> Self {
        Self {
            method: Method::CONNECT,
            authority: Some(authority.into()),
            scheme: None,
            path: None,
            protocol: None,
            headers: HeaderMap::new(),
        }
    }

    /// A CONNECT for UDP by way of `authority`, whose `path` names the target (RFC 9298 §3.4).
    pub fn connect_udp(authority: impl Into<String>, path: impl Into<String>) -> Self {
        let mut request = Self::connect(authority);
        request.scheme = Some("https".to_owned());
        request.path = Some(path.into());
        request.protocol = Some("connect-udp".to_owned());
        let capsules = HeaderValue::from_static("?1");
        let name = HeaderName::from_static("capsule-protocol");
        request.headers.insert(name, capsules);
        request
    }

    /// The field section, and its size as [`super::Settings::field_section`] counts it.
    pub(super) fn encode(&self) -> (Bytes, u64) {
        let mut encoder = Encoder::new();
        encoder.field(b":method", self.method.as_str().as_bytes());
        let rest = [
            (":scheme", &self.scheme),
            (":authority", &self.authority),
            (":path", &self.path),
            (":protocol", &self.protocol),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                encoder.field(name.as_bytes(), value.as_bytes());
            }
        }
        headers(&mut encoder, &self.headers);
        encoder.finish()
    }

    pub(super) fn decode(section: &[u8], bounds: Bounds) -> Result<Self, HeadError> {
        let mut fields = Fields::default();
        fields.read(section, bounds, Fields::of_request)?;
        fields.into_request().map_err(malformed)
    }

    /// Whether it is a CONNECT to be carried as bytes.
    fn is_plain_connect(&self) -> bool {
        self.method == Method::CONNECT && self.protocol.is_none()
    }
}

impl Response {
    /// A response without further headers.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
        }
    }

    pub(super) fn encode(&self) -> (Bytes, u64) {
        let mut encoder = Encoder::new();
        encoder.field(b":status", self.status.as_str().as_bytes());
        headers(&mut encoder, &self.headers);
        encoder.finish()
    }

    pub(super) fn decode(section: &[u8], bounds: Bounds) -> Result<Self, HeadError> {
        let mut fields = Fields::default();
        fields.read(section, bounds, Fields::of_response)?;
        let status = fields.status.ok_or("a response has no status");
        // HTTP/3 has no such switch (§4.5).
        let status = status.and_then(|status| match status {
            StatusCode::SWITCHING_PROTOCOLS => Err("a response has status 101"),
            status => Ok(status),
        });
        Ok(Self {
            status: status.map_err(malformed)?,
            headers: fields.headers,
        })
    }
}

fn malformed(why: &'static str) -> HeadError {
    HeadError::Malformed(Fault::new(Code::MESSAGE_ERROR, why))
}

fn headers(encoder: &mut Encoder, headers: &HeaderMap) {
    for (name, value) in headers {
        encoder.field(name.as_str().as_bytes(), value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        size: 65536,
        count: 128,
    };

    fn section(fields: &[(&str, &str)]) -> Bytes {
        let mut encoder = Encoder::new();
        let field = |(name, value): &(&str, &str)| encoder.field(name.as_bytes(), value.as_bytes());
        fields.iter().for_each(field);
        encoder.finish().0
    }

    #[test]
    fn requests_are_judged() {
        let connect = (":method", "CONNECT");
        let to = (":authority", "10.0.0.2:80");
        let get = [(":method", "GET"), (":scheme", "https"), (":path", "/")];
        let udp = (":protocol", "connect-udp");
        #[rustfmt::skip]
        let rows = [
            ("CONNECT", vec![connect, to], true),
            ("with headers", vec![connect, to, ("baggage", "")], true),
            ("its host is the same", vec![connect, to, ("host", to.1)], true),
            ("old h3's", vec![connect, (":scheme", "https"), to, (":path", "/")], true),
            ("GET", [&get[..], &[to]].concat(), true),
            ("GET with a host", [&get[..], &[("host", "a")]].concat(), true),
            ("for UDP", vec![connect, to, udp, get[1], get[2]], true),
            ("trailers are taken", vec![connect, to, ("te", "trailers")], true),
            ("nothing", vec![], false),
            ("no method", vec![to], false),
            ("no authority", vec![connect], false),
            ("only a host", vec![connect, ("host", "a")], false),
            ("empty authority", vec![connect, (":authority", "")], false),
            ("its host differs", vec![connect, to, ("host", "a")], false),
            ("two methods", vec![connect, connect, to], false),
            ("two authorities", vec![connect, to, to], false),
            ("odd method", vec![(":method", "CON NECT"), to], false),
            ("a status", vec![connect, to, (":status", "200")], false),
            ("unknown pseudo-header", vec![connect, to, (":x", "y")], false),
            ("pseudo-header last", vec![connect, ("a", "b"), to], false),
            ("upper case", vec![connect, to, ("Baggage", "")], false),
            ("empty name", vec![connect, to, ("", "")], false),
            ("line feed", vec![connect, to, ("a", "b\nc")], false),
            ("space in the authority", vec![connect, (":authority", "a b")], false),
            ("connection", vec![connect, to, ("connection", "x")], false),
            ("transfer", vec![connect, to, ("transfer-encoding", "chunked")], false),
            ("upgrade", vec![connect, to, ("upgrade", "x")], false),
            ("te", vec![connect, to, ("te", "gzip")], false),
            ("content length", vec![connect, to, ("content-length", "5")], false),
            ("GET without path", vec![get[0], get[1], to], false),
            ("GET with empty path", vec![get[0], get[1], (":path", ""), to], false),
            ("GET without authority", get.to_vec(), false),
            ("GET with a protocol", [&get[..], &[to, udp]].concat(), false),
            ("UDP without path", vec![connect, to, udp, get[1]], false),
            ("UDP without scheme", vec![connect, to, udp, get[2]], false),
        ];
        for (name, fields, good) in rows {
            let got = Request::decode(&section(&fields), BOUNDS);
            match got {
                Ok(_) => assert!(good, "{name}"),
                Err(HeadError::Malformed(fault)) => {
                    assert!(!good, "{name}: {fault}");
                    assert_eq!(fault.code, Code::MESSAGE_ERROR);
                }
                Err(other) => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn responses_are_judged() {
        let ok = (":status", "200");
        for (name, fields, good) in [
            ("200", vec![ok], true),
            ("a code of our own", vec![(":status", "599")], true),
            ("100", vec![(":status", "100")], true),
            ("none", vec![("a", "b")], false),
            ("101", vec![(":status", "101")], false),
            ("20", vec![(":status", "20")], false),
            ("twice", vec![ok, ok], false),
            ("a method", vec![ok, (":method", "GET")], false),
        ] {
            let got = Response::decode(&section(&fields), BOUNDS);
            assert_eq!(got.is_ok(), good, "{name}: {got:?}");
        }
    }

    #[test]
    fn what_is_sent_is_as_the_rfcs_have_it() {
        let mut request = Request::connect("10.0.0.2:80");
        let baggage = HeaderName::from_static("baggage");
        request
            .headers
            .insert(&baggage, HeaderValue::from_static(""));
        request
            .headers
            .append(&baggage, HeaderValue::from_static("a=b"));
        let (plain, size) = request.encode();
        assert_eq!(Request::decode(&plain, BOUNDS).as_ref(), Ok(&request));
        assert_eq!(size, (7 + 7 + 10 + 11 + 7 + 7 + 3 + 4 * 32) as u64);
        let udp = Request::connect_udp("10.0.0.2:15008", "/.well-known/masque/udp/10.0.0.2/53/");
        assert_eq!(Request::decode(&udp.encode().0, BOUNDS), Ok(udp));
        let response = Response::new(StatusCode::UNAUTHORIZED);
        let (section, _) = response.encode();
        assert_eq!(Response::decode(&section, BOUNDS), Ok(response));
    }

    #[test]
    fn a_section_is_bounded() {
        let request = Request::connect("a:1");
        let (section, size) = request.encode();
        let bounds = |size, count| Bounds { size, count };
        for (name, bounds, want) in [
            ("fits", bounds(size, 2), Ok(request)),
            (
                "a byte too many",
                bounds(size - 1, 2),
                Err(HeadError::TooLarge),
            ),
            (
                "a field too many",
                bounds(size, 1),
                Err(HeadError::TooLarge),
            ),
        ] {
            assert_eq!(Request::decode(&section, bounds), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let section = [&[0, 0][..], &bytes].concat();
            let _read = (Request::decode(&section, BOUNDS), Response::decode(&section, BOUNDS));
        }

        #[test]
        fn a_head_cut_short_is_no_head(cut in 0usize..200) {
            let udp = Request::connect_udp("10.0.0.2:15008", "/.well-known/masque/udp/10.0.0.2/53/");
            let (section, _) = udp.encode();
            if cut < section.len() {
                let whole = Request::decode(&section[..cut], BOUNDS).is_ok_and(|r| r == udp);
                prop_assert!(!whole);
            }
        }
    }
}
