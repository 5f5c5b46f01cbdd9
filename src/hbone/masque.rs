//! How a request for UDP names its target (RFC 9298 §2, `spec/hbone-dataplane.md` §11.4).

use std::net::SocketAddr;

use super::Authority;

/// The protocol of an extended CONNECT for it.
pub(super) const PROTOCOL: &str = "connect-udp";
/// Says that the stream holds capsules.
pub(super) const CAPSULES: &str = "capsule-protocol";

const BEFORE: &str = "/.well-known/masque/udp/";

/// The path that names a target.
pub(super) fn path(target: &Authority) -> String {
    match target {
        Authority::Address(SocketAddr::V4(at)) => format!("{BEFORE}{}/{}/", at.ip(), at.port()),
        Authority::Address(SocketAddr::V6(at)) => {
            let ip = at.ip().to_string().replace(':', "%3A");
            format!("{BEFORE}{ip}/{}/", at.port())
        }
        Authority::Name { host, port } => format!("{BEFORE}{host}/{port}/"),
    }
}

/// The target that a path names.
pub(super) fn target(path: &str) -> Option<Authority> {
    let (host, port) = path
        .strip_prefix(BEFORE)?
        .strip_suffix('/')?
        .split_once('/')?;
    let host = host.replace("%3A", ":").replace("%3a", ":");
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    authority.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_and_read() {
        for (target, want) in [
            ("192.0.2.6:443", "/.well-known/masque/udp/192.0.2.6/443/"),
            (
                "[2001:db8::42]:53",
                "/.well-known/masque/udp/2001%3Adb8%3A%3A42/53/",
            ),
            (
                "dns.shop.mesh.internal:53",
                "/.well-known/masque/udp/dns.shop.mesh.internal/53/",
            ),
        ] {
            let target: Authority = target.parse().unwrap();
            assert_eq!(path(&target), want);
            assert_eq!(super::target(want), Some(target));
        }
    }

    #[test]
    fn what_names_no_target_is_none() {
        for path in [
            "/",
            "/.well-known/masque/udp/",
            "/.well-known/masque/udp/192.0.2.6/443",
            "/.well-known/masque/udp/192.0.2.6/",
            "/.well-known/masque/udp/192.0.2.6/0/",
            "/.well-known/masque/udp/192.0.2.6/65536/",
            "/.well-known/masque/udp/a%2Fb/1/",
            "/.well-known/masque/udp/192.0.2.6/443/x/",
            "/.well-known/masque/tcp/192.0.2.6/443/",
            "/.well-known/masque/udp/user@192.0.2.6/443/",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
