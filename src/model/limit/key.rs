//! Whom a request is counted against.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::authorization::Asked;
use crate::model::policy::Peer;

/// By what a rule tells requests apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// By nothing: all are counted together.
    None,
    /// By the identity of whoever asks.
    Identity,
    /// By the address he connects from.
    SourceIp,
    /// By a header field, by lower-case name; several lines of it joined with `,`.
    Header(Arc<str>),
}

/// Whom one request is counted against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    /// All together.
    Everyone,
    /// Those of whom the request does not tell, all together: to leave out what one is counted by
    /// leads into a bucket that is shared, never past it.
    Unknown,
    /// An identity, without `spiffe://`.
    Identity(&'a str),
    /// An address.
    Address(IpAddr),
    /// The value of a field.
    Value(Cow<'a, [u8]>),
}

impl Key {
    /// Whom a request is counted against.
    pub fn subject<'a>(&self, asked: &Asked<'a>) -> Subject<'a> {
        let known = match self {
            Self::None => Some(Subject::Everyone),
            Self::Identity => asked.peer.map(Peer::principal).map(Subject::Identity),
            Self::SourceIp => Some(Subject::Address(asked.source)),
            Self::Header(name) => {
                let http = asked.http.as_ref();
                http.and_then(|http| http.header(name)).map(Subject::Value)
            }
        };
        known.unwrap_or(Subject::Unknown)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("all together"),
            Self::Identity => f.write_str("each identity"),
            Self::SourceIp => f.write_str("each source address"),
            Self::Header(name) => write!(f, "each value of `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::model::authorization::Http;

    #[test]
    fn requests_are_counted_against_whom_the_key_names() {
        let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let peer = Peer::new(&identity).unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-user", "ann".parse().unwrap());
        headers.append("x-user", "bob".parse().unwrap());
        headers.append("x-empty", "".parse().unwrap());
        let known = Asked {
            peer: Some(&peer),
            source: "10.0.0.1".parse().unwrap(),
            remote: "192.0.2.1".parse().unwrap(),
            destination: "10.96.0.1:80".parse().unwrap(),
            server_name: None,
            http: Some(Http {
                method: "GET",
                path: "/",
                target: "/",
                authority: "cart",
                scheme: "http",
                headers: &headers,
                token: None,
            }),
        };
        let unknown = Asked {
            peer: None,
            ..known
        };
        let value = |text: &'static str| Subject::Value(Cow::Borrowed(text.as_bytes()));
        let header = |name: &str| Key::Header(Arc::from(name));
        for (name, key, asked, want) in [
            ("none", Key::None, &known, Subject::Everyone),
            (
                "an identity",
                Key::Identity,
                &known,
                Subject::Identity("cluster.local/ns/shop/sa/web"),
            ),
            ("no identity", Key::Identity, &unknown, Subject::Unknown),
            (
                "who connects, not for whom",
                Key::SourceIp,
                &known,
                Subject::Address(known.source),
            ),
            ("lines joined", header("x-user"), &known, value("ann,bob")),
            ("empty, and there", header("x-empty"), &known, value("")),
            ("absent", header("x-none"), &known, Subject::Unknown),
            ("host", header("host"), &known, value("cart")),
        ] {
            assert_eq!(key.subject(asked), want, "{name}");
        }
    }
}
