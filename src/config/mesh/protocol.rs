//! What is spoken on a service port: `app-protocol`, else the port's name, else its number
//! (`spec/waypoint-l7.md` §1.4).

use crate::config::read::{Value, scalar};
use crate::model::service::AppProtocol;

/// Every spelling, as Istio and Kubernetes know them. What a waypoint does with `https` and `tls`
/// is one thing, and so with the other pairs.
const SPELLINGS: [(&str, AppProtocol); 14] = [
    ("http", AppProtocol::Http11),
    ("http2", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
    ("tcp", AppProtocol::Tcp),
    ("tls", AppProtocol::Tls),
    ("https", AppProtocol::Tls),
    ("grpc-web", AppProtocol::Http2),
    ("kubernetes.io/h2c", AppProtocol::Http2),
    ("kubernetes.io/ws", AppProtocol::Http11),
    ("kubernetes.io/wss", AppProtocol::Tls),
    ("http_proxy", AppProtocol::Http11),
    ("mongo", AppProtocol::Tcp),
    ("mysql", AppProtocol::Tcp),
    ("redis", AppProtocol::Tcp),
];

/// Ports whose servers speak first, or whose protocol a waypoint would only guess at.
const OPAQUE: [u16; 4] = [25, 53, 3306, 27017];

/// `app-protocol`.
pub(super) fn read(value: &Value<'_>) -> Option<AppProtocol> {
    let lower = value.text()?.to_ascii_lowercase();
    if lower == "udp" {
        not_carried(value);
        return None;
    }
    match spelled(&lower) {
        Some(protocol) => Some(protocol),
        None => scalar::choice(value, &SPELLINGS),
    }
}

/// Refuses a port's name that says what the mesh does not carry.
pub(super) fn named(value: &Value<'_>, name: &str) -> Option<()> {
    if prefix(name) == "udp" {
        not_carried(value);
        return None;
    }
    Some(())
}

/// What a port speaks that does not say so.
pub(super) fn guessed(name: Option<&str>, port: u16) -> AppProtocol {
    let by_name = name.and_then(|name| spelled(prefix(name)));
    let by_number = || match OPAQUE.contains(&port) {
        true => AppProtocol::Tcp,
        false => AppProtocol::Unknown,
    };
    by_name.unwrap_or_else(by_number)
}

/// What a port's name says of its protocol: all before the first hyphen, `grpc-web` excepted.
fn prefix(name: &str) -> &str {
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return "grpc-web";
    }
    name.split('-').next().unwrap_or_default()
}

fn spelled(text: &str) -> Option<AppProtocol> {
    let mut spellings = SPELLINGS.iter();
    let found = spellings.find(|(spelling, _)| *spelling == text);
    found.map(|(_, protocol)| *protocol)
}

fn not_carried(value: &Value<'_>) {
    value.bad(
        "says UDP, and services of the mesh are reached over TCP only",
        "not carried by the mesh",
        "leave this port out: UDP to the workloads goes past the mesh as it is",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_declares_nothing_is_guessed_by_name_then_by_number() {
        for (name, port, want) in [
            (None, 80, AppProtocol::Unknown),
            (Some("web"), 80, AppProtocol::Unknown),
            (Some("http"), 80, AppProtocol::Http11),
            (Some("http-metrics"), 9090, AppProtocol::Http11),
            (Some("httpmetrics"), 9090, AppProtocol::Unknown),
            (Some("http2-api"), 80, AppProtocol::Http2),
            (Some("grpc-api"), 80, AppProtocol::Grpc),
            (Some("grpc-web"), 80, AppProtocol::Http2),
            (Some("grpc-web-ui"), 80, AppProtocol::Http2),
            (Some("grpc-website"), 80, AppProtocol::Grpc),
            (Some("https"), 443, AppProtocol::Tls),
            (Some("tcp-admin"), 80, AppProtocol::Tcp),
            (Some("redis-cache"), 6379, AppProtocol::Tcp),
            (Some("db"), 3306, AppProtocol::Tcp),
            (Some("http-mail"), 25, AppProtocol::Http11),
            (None, 25, AppProtocol::Tcp),
            (None, 53, AppProtocol::Tcp),
            (None, 27017, AppProtocol::Tcp),
            (None, 5432, AppProtocol::Unknown),
        ] {
            assert_eq!(guessed(name, port), want, "{name:?} {port}");
        }
    }
}
