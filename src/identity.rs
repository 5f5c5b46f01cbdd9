//! SPIFFE identities and trust domains: the ground everyone stands on.
//!
//! A mesh knows three kinds of principal, told apart by the path of their SPIFFE ID
//! (`spec/control-plane.md` §1.2, DESIGN §6): workloads, nodes and control planes. A URI that is
//! none of the three is no identity at all, so it can never match by accident.

pub mod token;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The root of a SPIFFE ID: the set of certificates one mesh believes.
///
/// Lower-case letters, digits, `.`, `-` and `_`; 1 to 255 characters (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name, as written in a SPIFFE ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// Istio's default, `cluster.local`.
    fn default() -> Self {
        Self(Arc::from("cluster.local"))
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(legal) {
            return Err(IdentityError::TrustDomain {
                text: text.to_owned(),
            });
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

/// A principal of the mesh, as its certificate names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffeId {
    /// `spiffe://TD/ns/NAMESPACE/sa/SERVICE-ACCOUNT`: what a workload is known by.
    Workload {
        /// Where the identity is rooted.
        trust_domain: TrustDomain,
        /// The namespace; one non-empty path segment.
        namespace: Arc<str>,
        /// The service account; one non-empty path segment.
        service_account: Arc<str>,
    },
    /// `spiffe://TD/node/NAME`: a machine that joined.
    Node {
        /// Where the identity is rooted.
        trust_domain: TrustDomain,
        /// The node's name in the mesh files.
        name: Arc<str>,
    },
    /// `spiffe://TD/control/NAME`: a control plane.
    Control {
        /// Where the identity is rooted.
        trust_domain: TrustDomain,
        /// The control plane's name.
        name: Arc<str>,
    },
}

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The trust domain has a character or a length that SPIFFE does not allow.
    #[error("`{text}` is not a trust domain: use 1 to 255 of a-z, 0-9, `.`, `-`, `_`")]
    TrustDomain {
        /// What was given.
        text: String,
    },
    /// The URI has another shape than the three a mesh knows.
    #[error("`{text}` is not a mesh identity such as spiffe://cluster.local/ns/shop/sa/cart")]
    Shape {
        /// What was given.
        text: String,
    },
}

impl SpiffeId {
    /// A workload's identity.
    ///
    /// # Errors
    /// [`IdentityError::Shape`] when a part is empty or not a legal path segment.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        let id = Self::Workload {
            trust_domain: trust_domain.clone(),
            namespace: Arc::from(namespace),
            service_account: Arc::from(service_account),
        };
        id.checked(&[namespace, service_account])
    }

    /// A node's identity.
    ///
    /// # Errors
    /// [`IdentityError::Shape`] when `name` is empty or not a legal path segment.
    pub fn node(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdentityError> {
        let id = Self::Node {
            trust_domain: trust_domain.clone(),
            name: Arc::from(name),
        };
        id.checked(&[name])
    }

    /// A control plane's identity.
    ///
    /// # Errors
    /// [`IdentityError::Shape`] when `name` is empty or not a legal path segment.
    pub fn control(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdentityError> {
        let id = Self::Control {
            trust_domain: trust_domain.clone(),
            name: Arc::from(name),
        };
        id.checked(&[name])
    }

    /// The trust domain the identity belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Workload { trust_domain, .. }
            | Self::Node { trust_domain, .. }
            | Self::Control { trust_domain, .. } => trust_domain,
        }
    }

    /// The name by which a client of a workload's says whom it means, where several share one address:
    /// `SERVICE-ACCOUNT.NAMESPACE.sa.TRUST-DOMAIN`, in lower case as TLS sends it. Only workloads have
    /// one. Whoever is asked compares it with the names of those that he has: an account's name may
    /// hold dots, so that two identities may have one name.
    pub fn server_name(&self) -> Option<String> {
        match self {
            Self::Workload {
                trust_domain,
                namespace,
                service_account,
            } => {
                let name = format!("{service_account}.{namespace}.sa.{trust_domain}");
                Some(name.to_ascii_lowercase())
            }
            Self::Node { .. } | Self::Control { .. } => None,
        }
    }

    fn checked(self, segments: &[&str]) -> Result<Self, IdentityError> {
        if segments.iter().all(|s| is_segment(s)) {
            Ok(self)
        } else {
            Err(IdentityError::Shape {
                text: self.to_string(),
            })
        }
    }
}

/// SPIFFE-ID §2.2: a path segment is non-empty, of letters, digits, `.`, `-`, `_`, and no dots only.
fn is_segment(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(legal)
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    /// Reads the URI form. Scheme and path words are compared exactly: `SPIFFE://` or a trailing
    /// slash is no identity (`spec/reliability.md` §2 row 16).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || IdentityError::Shape {
            text: text.to_owned(),
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(shape)?;
        let mut parts = rest.split('/');
        let trust_domain: TrustDomain = parts.next().unwrap_or_default().parse()?;
        let path: Vec<&str> = parts.collect();
        match path.as_slice() {
            ["ns", namespace, "sa", account] => Self::workload(&trust_domain, namespace, account),
            ["node", name] => Self::node(&trust_domain, name),
            ["control", name] => Self::control(&trust_domain, name),
            _ => Err(shape()),
        }
        .map_err(|_inner| shape())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload {
                trust_domain,
                namespace,
                service_account,
            } => write!(
                f,
                "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"
            ),
            Self::Node { trust_domain, name } => write!(f, "spiffe://{trust_domain}/node/{name}"),
            Self::Control { trust_domain, name } => {
                write!(f, "spiffe://{trust_domain}/control/{name}")
            }
        }
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_refuses() {
        for (name, text, kind) in [
            (
                "workload",
                "spiffe://cluster.local/ns/shop/sa/cart",
                Some("w"),
            ),
            ("node", "spiffe://td/node/edge-1", Some("n")),
            ("control", "spiffe://td/control/a", Some("c")),
            ("upper-case scheme", "SPIFFE://td/ns/a/sa/b", None),
            ("upper-case trust domain", "spiffe://TD/ns/a/sa/b", None),
            ("trailing slash", "spiffe://td/ns/a/sa/b/", None),
            ("empty namespace", "spiffe://td/ns//sa/b", None),
            ("wrong word", "spiffe://td/ns/a/svc/b", None),
            ("escaped slash", "spiffe://td/ns/a%2Fb/sa/c", None),
            ("dot segment", "spiffe://td/ns/../sa/c", None),
            ("nul", "spiffe://td/ns/a\0/sa/c", None),
            ("no path", "spiffe://td", None),
            ("empty", "", None),
        ] {
            let got = text.parse::<SpiffeId>().ok().map(|id| match id {
                SpiffeId::Workload { .. } => "w",
                SpiffeId::Node { .. } => "n",
                SpiffeId::Control { .. } => "c",
            });
            assert_eq!(got, kind, "{name}");
        }
    }

    #[test]
    fn only_workloads_have_a_server_name() {
        for (id, want) in [
            (
                "spiffe://cluster.local/ns/shop/sa/cart",
                Some("cart.shop.sa.cluster.local"),
            ),
            ("spiffe://td/ns/Shop/sa/Cart_1", Some("cart_1.shop.sa.td")),
            ("spiffe://td/ns/a.b/sa/c", Some("c.a.b.sa.td")),
            ("spiffe://td/ns/b/sa/c.a", Some("c.a.b.sa.td")),
            ("spiffe://td/node/edge-1", None),
            ("spiffe://td/control/a", None),
        ] {
            let name = id.parse::<SpiffeId>().unwrap().server_name();
            assert_eq!(name.as_deref(), want, "{id}");
        }
    }

    proptest! {
        #[test]
        fn uri_round_trips(td in "[a-z0-9._-]{1,20}", ns in "[a-zA-Z0-9_-]{1,12}", sa in "[a-zA-Z0-9_-]{1,12}") {
            let id = SpiffeId::workload(&td.parse().unwrap(), &ns, &sa).unwrap();
            prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,64}") {
            let _outcome = text.parse::<SpiffeId>();
        }
    }
}
