//! `[[request-authentication]]`: whose tokens waypoints believe (`spec/labels-and-policy.md` §5.1).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Attachment, Origin};

/// A `[[request-authentication]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What it is for. Without targets it is for nothing: node proxies know of no tokens.
    pub attachment: Attachment,
    /// Its rules in the order they were written.
    pub rules: Vec<JwtRule>,
}

/// Tokens of one issuer: where they are looked for, what makes one valid, and what programs are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// The line it begins on, from 1.
    pub line: u32,
    /// What `iss` must be; anything where absent.
    pub issuer: Option<Arc<str>>,
    /// Of which `aud` must have one; empty for no such demand.
    pub audiences: Vec<Arc<str>>,
    /// Whose signatures count.
    pub keys: KeySource,
    /// Where tokens are looked for.
    pub locations: Vec<Location>,
    /// Whether programs get the token.
    pub forward_original_token: bool,
    /// The field that tells programs the payload.
    pub payload_header: Option<HeaderName>,
    /// The fields that tell programs single claims.
    pub claim_headers: Vec<ClaimHeader>,
    /// Claims whose words policies look at, too.
    pub space_delimited: Vec<Arc<str>>,
}

/// A place of a request where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A field, after a prefix in which case counts. What does not begin so is no token.
    Header {
        /// The field.
        name: HeaderName,
        /// The prefix; empty for none.
        prefix: Arc<str>,
    },
    /// A parameter of the query.
    Parameter(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}

impl Location {
    /// Those of rules that name none.
    pub fn usual() -> Vec<Self> {
        vec![
            Self::Header {
                name: http::header::AUTHORIZATION,
                prefix: Arc::from("Bearer "),
            },
            Self::Parameter(Arc::from("access_token")),
        ]
    }
}

/// A claim and the field that tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The field.
    pub header: HeaderName,
    /// The claim, by the names that lead there with dots between.
    pub claim: Arc<str>,
}

/// Where the keys of a rule are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Here: a JSON Web Key Set.
    Inline(Arc<str>),
    /// Elsewhere.
    Remote(Remote),
}

/// Where each waypoint gets keys from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    /// Where they are.
    pub at: RemoteAt,
    /// How long getting them may take.
    pub timeout: Duration,
}

/// The place of a remote key set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemoteAt {
    /// Behind a URL: `https`, `http`, or `file` for one on the waypoint's own host.
    Uri(Arc<str>),
    /// Where this issuer's OpenID configuration says.
    Discovery(Arc<str>),
}

impl fmt::Display for RemoteAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Discovery(issuer) => f.write_str(&configuration_of(issuer)),
        }
    }
}

/// Where an issuer's OpenID configuration is (OpenID Connect Discovery 1.0 §4).
pub fn configuration_of(issuer: &str) -> String {
    let base = issuer.trim_end_matches('/');
    format!("{base}/.well-known/openid-configuration")
}
