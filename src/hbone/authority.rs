//! The target of a CONNECT: an address or a host name, always with a port
//! (`spec/hbone-dataplane.md` §1.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// Where a tunnel ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// `192.0.2.1:80` or `[2001:db8::1]:80`.
    Address(SocketAddr),
    /// `cart.shop.mesh.internal:80`.
    Name {
        /// The host name, in lower case.
        host: Arc<str>,
        /// The port, never 0.
        port: u16,
    },
}

/// A text that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no target: expected an address or host name with a port, such as 192.0.2.1:80"
)]
pub struct AuthorityError {
    /// What was given, cut short.
    pub text: String,
}

impl Authority {
    /// The port asked for.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }
}

impl From<SocketAddr> for Authority {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    /// Strict: no user part, no zone, no missing or zero port, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        parse(text).ok_or_else(|| AuthorityError {
            text: text.chars().take(128).collect(),
        })
    }
}

fn parse(text: &str) -> Option<Authority> {
    let (host, port) = text.rsplit_once(':')?;
    // `u16::from_str` takes a plus sign, which no peer of ours writes.
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port: u16 = port.parse().ok().filter(|p| *p != 0)?;
    if let Some(bracketed) = host.strip_prefix('[') {
        let ip: Ipv6Addr = bracketed.strip_suffix(']')?.parse().ok()?;
        return Some(Authority::Address(SocketAddr::new(IpAddr::V6(ip), port)));
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some(Authority::Address(SocketAddr::new(IpAddr::V4(ip), port)));
    }
    is_host_name(host).then(|| Authority::Name {
        host: Arc::from(host.to_ascii_lowercase()),
        port,
    })
}

/// Labels of letters, digits, `-` and `_`, 253 bytes at most, the last label not all digits (that
/// would be a mistyped address).
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(legal)
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(label) && !numeric(last)
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_read_strictly() {
        for (name, text, want) in [
            ("v4", "10.0.0.2:80", Some("10.0.0.2:80")),
            ("v6", "[2001:db8::1]:80", Some("[2001:db8::1]:80")),
            (
                "name",
                "cart.shop.mesh.internal:80",
                Some("cart.shop.mesh.internal:80"),
            ),
            ("name is lowered", "Cart.Shop:80", Some("cart.shop:80")),
            ("no port", "10.0.0.2", None),
            ("empty port", "10.0.0.2:", None),
            ("port 0", "10.0.0.2:0", None),
            ("port 65536", "10.0.0.2:65536", None),
            ("signed port", "10.0.0.2:+80", None),
            ("no host", ":80", None),
            ("bare v6", "2001:db8::1:80", None),
            ("v6 with zone", "[fe80::1%eth0]:80", None),
            ("user part", "root@10.0.0.2:80", None),
            ("short v4", "10.1:80", None),
            ("v4 with five parts", "10.0.0.0.2:80", None),
            ("empty label", "a..b:80", None),
            ("trailing dot", "cart.shop.:80", None),
            ("space", "a b:80", None),
            ("empty", "", None),
        ] {
            let got = text.parse::<Authority>().ok().map(|a| a.to_string());
            assert_eq!(got.as_deref(), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn addresses_round_trip(ip in any::<IpAddr>(), port in 1..u16::MAX) {
            let authority = Authority::Address(SocketAddr::new(ip, port));
            prop_assert_eq!(authority.to_string().parse::<Authority>().unwrap(), authority);
        }

        #[test]
        fn whatever_is_read_prints_as_itself(text in ".{0,80}") {
            if let Ok(authority) = text.parse::<Authority>() {
                prop_assert_eq!(authority.to_string().parse::<Authority>().unwrap(), authority);
            }
        }
    }
}
