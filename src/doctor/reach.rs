//! Whether the control planes of the settings can be reached, and how large packets on the way may be.
//!
//! Whether UDP passes cannot be known from here: nothing answers on 15008/udp while tunnels are TCP.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use super::Finding;
use super::codes::Code;
use super::settings::Roles;
use crate::config::daemon::Config;
use crate::sys;

/// Longest wait for one to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least that IPv6 and QUIC need (RFC 8200 §5, RFC 9000 §14).
const LEAST: u32 = 1280;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reached {
    /// Its name leads nowhere.
    Unresolved(String),
    /// It answers, and packets of so many bytes get there.
    Answers(Option<u32>),
    /// It says that nobody is there.
    Refused,
    /// It says nothing, or there is no way.
    Silent(String),
}

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    controls: Vec<(String, Reached)>,
}

impl Facts {
    pub(super) fn read(config: Option<&Config>) -> Self {
        let controls = config.map(|config| config.control().addresses());
        let reach = |url: &crate::config::daemon::ControlUrl| {
            (url.to_string(), reach(url.host(), url.port()))
        };
        Self {
            controls: controls.into_iter().flatten().map(reach).collect(),
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        if roles.known && !roles.follows() {
            return Vec::new();
        }
        self.controls
            .iter()
            .filter_map(|(url, reached)| judge(url, reached))
            .collect()
    }
}

fn judge(url: &str, reached: &Reached) -> Option<Finding> {
    let finding = match reached {
        Reached::Answers(Some(size)) if *size < LEAST => {
            let seen = format!(
                "packets to {url} may have {size} bytes, and {LEAST} are the least that IPv6 and QUIC need"
            );
            Finding::new(
                Code::PathMtuSmall,
                seen,
                "ip link set dev INTERFACE mtu 1500",
            )
        }
        Reached::Answers(_) => return None,
        Reached::Unresolved(reason) => {
            let seen = format!("the name of {url} leads to no address: {reason}");
            Finding::new(
                Code::ControlUnresolved,
                seen,
                "mend the name in `addresses` of [control], or the DNS: resolvectl query NAME",
            )
        }
        Reached::Refused => {
            let seen = format!("nobody listens at {url}");
            Finding::new(
                Code::ControlUnreachable,
                seen,
                "on its host: systemctl start lateen-control",
            )
        }
        Reached::Silent(reason) => {
            let seen = format!("{url} does not answer: {reason}");
            let remedy = "open 15012/tcp in the firewalls on the way; on its host: lateen doctor";
            Finding::new(Code::ControlUnreachable, seen, remedy)
        }
    };
    Some(finding)
}

fn reach(host: &str, port: u16) -> Reached {
    let addresses: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.take(ADDRESSES).collect(),
        Err(e) => return Reached::Unresolved(e.to_string()),
    };
    let mut last = Reached::Unresolved("it has none".to_owned());
    for address in addresses {
        last = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_open) => return Reached::Answers(largest(address)),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Reached::Refused,
            Err(e) => Reached::Silent(format!("{address}: {e}")),
        };
    }
    last
}

/// The largest packet that gets there, as far as the kernel knows; nothing is sent.
fn largest(to: SocketAddr) -> Option<u32> {
    let any = match to {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    sys::path_mtu(&socket, to.is_ipv6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named() {
        let node = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        for (name, reached, want) in [
            ("it answers", Reached::Answers(Some(1500)), None),
            ("by a way that is not known", Reached::Answers(None), None),
            (
                "by a narrow way",
                Reached::Answers(Some(1279)),
                Some(Code::PathMtuSmall),
            ),
            (
                "nobody is there",
                Reached::Refused,
                Some(Code::ControlUnreachable),
            ),
            (
                "silence",
                Reached::Silent("timed out".to_owned()),
                Some(Code::ControlUnreachable),
            ),
            (
                "no address",
                Reached::Unresolved("none".to_owned()),
                Some(Code::ControlUnresolved),
            ),
        ] {
            let facts = Facts {
                controls: vec![("https://control:15012".to_owned(), reached)],
            };
            let codes: Vec<_> = facts.check(node).iter().map(|f| f.code).collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
        }
    }

    #[test]
    fn what_answers_is_told_from_what_does_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let Reached::Answers(Some(size)) = reach("127.0.0.1", port) else {
            panic!("it listens");
        };
        assert!(size > LEAST, "{size}");
        drop(listener);
        assert_eq!(reach("127.0.0.1", port), Reached::Refused);
        assert!(matches!(
            reach("no.such.name.invalid", 1),
            Reached::Unresolved(_)
        ));
    }
}
