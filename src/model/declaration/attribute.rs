//! What conditions ask of a request or a connection that only a waypoint knows
//! (`spec/labels-and-policy.md` §3.1).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const HEADERS: &str = "request.headers";
const CLAIMS: &str = "request.auth.claims";

/// The key of such a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// `connection.sni`: the server name that inner TLS asks for.
    ServerName,
    /// `request.headers[name]`: a field of the request, in lower case; one of HTTP/2's own begins with
    /// a colon.
    Header(Arc<str>),
    /// `request.auth.principal`: `<iss>/<sub>` of a validated JWT.
    Principal,
    /// `request.auth.audiences`: its claim `aud`.
    Audiences,
    /// `request.auth.presenter`: its claim `azp`.
    Presenter,
    /// `request.auth.claims[a][b]`: a claim of it, by the names that lead there. Never empty.
    Claim(Vec<Arc<str>>),
}

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeError {
    /// Nothing is called so.
    Unknown,
    /// A header's name belongs in one pair of brackets.
    Header,
    /// The names of claims belong in brackets, one in each.
    Claim,
}

impl Attribute {
    /// Whether it is one of HTTP requests, and not of every connection.
    pub fn is_of_requests(&self) -> bool {
        *self != Self::ServerName
    }
}

impl FromStr for Attribute {
    type Err = AttributeError;

    fn from_str(key: &str) -> Result<Self, AttributeError> {
        let (name, brackets) = match key.find('[') {
            Some(at) => key.split_at(at),
            None => (key, ""),
        };
        match name {
            HEADERS => {
                let name = inside(brackets).filter(|name| is_header(name));
                let name = name.ok_or(AttributeError::Header)?;
                Ok(Self::Header(Arc::from(name.to_ascii_lowercase())))
            }
            CLAIMS => {
                let claims = inside(brackets).and_then(claims);
                claims.map(Self::Claim).ok_or(AttributeError::Claim)
            }
            _ => match key {
                "connection.sni" => Ok(Self::ServerName),
                "request.auth.principal" => Ok(Self::Principal),
                "request.auth.audiences" => Ok(Self::Audiences),
                "request.auth.presenter" => Ok(Self::Presenter),
                _ => Err(AttributeError::Unknown),
            },
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerName => f.write_str("connection.sni"),
            Self::Header(name) => write!(f, "{HEADERS}[{name}]"),
            Self::Principal => f.write_str("request.auth.principal"),
            Self::Audiences => f.write_str("request.auth.audiences"),
            Self::Presenter => f.write_str("request.auth.presenter"),
            Self::Claim(path) => {
                f.write_str(CLAIMS)?;
                path.iter().try_for_each(|name| write!(f, "[{name}]"))
            }
        }
    }
}

/// What is in the only brackets.
fn inside(brackets: &str) -> Option<&str> {
    brackets.strip_prefix('[')?.strip_suffix(']')
}

/// The name of a header (RFC 9110 §5.1), or of an HTTP/2 pseudo-header.
fn is_header(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty() && name.bytes().all(token)
}

/// `a`, `a][b` and so on.
fn claims(inside: &str) -> Option<Vec<Arc<str>>> {
    let name = |name: &str| {
        let good = !name.is_empty() && !name.contains(['[', ']']);
        good.then(|| Arc::from(name))
    };
    inside.split("][").map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_written() {
        for key in [
            "connection.sni",
            "request.headers[x-token]",
            "request.headers[:path]",
            "request.auth.principal",
            "request.auth.audiences",
            "request.auth.presenter",
            "request.auth.claims[a]",
            "request.auth.claims[https://x/y][b]",
        ] {
            assert_eq!(key.parse::<Attribute>().unwrap().to_string(), key);
        }
        let upper: Attribute = "request.headers[X-Token]".parse().unwrap();
        assert_eq!(upper, Attribute::Header(Arc::from("x-token")));
        for (key, want) in [
            ("request.header[a]", AttributeError::Unknown),
            ("source.sni", AttributeError::Unknown),
            ("request.headers", AttributeError::Header),
            ("request.headers[]", AttributeError::Header),
            ("request.headers[a][b]", AttributeError::Header),
            ("request.auth.claims", AttributeError::Claim),
            ("request.auth.claims[a][]", AttributeError::Claim),
            ("request.auth.claims[a", AttributeError::Claim),
        ] {
            assert_eq!(key.parse::<Attribute>(), Err(want), "{key}");
        }
    }
}
