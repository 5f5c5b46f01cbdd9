//! Who listens on the ports that lateen needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Finding;
use super::codes::Code;
use super::settings::Roles;
use crate::config::daemon::Config;

/// Ports of a node's own network, which are there in each network that is captured as well.
const CAPTURE: [u16; 2] = [15001, 15006];
/// Where peers' tunnels come in.
const TUNNELS: u16 = 15008;
/// What lateen's own processes are called.
const OWN: &str = "lateen";
/// A socket that listens (include/net/tcp_states.h).
const LISTEN: &str = "0A";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    All,
    Control,
    Node,
    /// Nodes' and waypoints'.
    Tunnels,
}

impl Whose {
    fn is(self, roles: Roles) -> bool {
        match self {
            Self::All => true,
            Self::Control => roles.control,
            Self::Node => roles.captures(),
            Self::Tunnels => roles.captures() || roles.waypoint,
        }
    }
}

/// Where something of lateen's is to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needed {
    at: SocketAddr,
    whose: Whose,
    /// The key of lateen.toml that says another place, and its table.
    key: Option<(&'static str, &'static str)>,
}

impl Needed {
    /// All there are by the settings.
    fn all(config: &Config) -> Vec<Self> {
        let listeners = config.listeners();
        let any = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let fixed = |port, whose| Self {
            at: any(port),
            whose,
            key: None,
        };
        let keyed = |at, whose, key, table| Self {
            at,
            whose,
            key: Some((key, table)),
        };
        let mut all: Vec<Self> = CAPTURE.map(|port| fixed(port, Whose::Node)).to_vec();
        all.push(fixed(TUNNELS, Whose::Tunnels));
        let control = config.control().listen();
        all.push(keyed(control, Whose::Control, "listen", "control"));
        all.push(keyed(listeners.metrics, Whose::All, "metrics", "listen"));
        all.push(keyed(
            listeners.readiness,
            Whose::All,
            "readiness",
            "listen",
        ));
        let dns = listeners.dns;
        all.extend(dns.map(|at| keyed(at, Whose::Node, "dns", "listen")));
        all
    }

    /// Whether somebody who listens there keeps it from being had.
    fn meets(&self, other: SocketAddr) -> bool {
        let any = self.at.ip().is_unspecified() || other.ip().is_unspecified();
        self.at.port() == other.port() && (any || self.at.ip() == other.ip())
    }
}

/// Where is listened, by a program whose name is known or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    at: SocketAddr,
    by: Option<String>,
}

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    needed: Vec<Needed>,
    taken: BTreeSet<Taken>,
}

impl Facts {
    pub(super) fn read(config: Option<&Config>) -> Self {
        let needed = config.map(Needed::all).unwrap_or_default();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut sockets = listening(&read("/proc/net/tcp"));
        sockets.extend(listening(&read("/proc/net/tcp6")));
        sockets.retain(|(at, _)| needed.iter().any(|needed| needed.meets(*at)));
        let inodes: BTreeSet<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
        let names = match inodes.is_empty() {
            true => BTreeMap::new(),
            false => holders(&inodes),
        };
        let taken = sockets.into_iter().map(|(at, inode)| Taken {
            at,
            by: names.get(&inode).cloned(),
        });
        Self {
            needed,
            taken: taken.collect(),
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let foreign = self.taken.iter().filter(|t| t.by.as_deref() != Some(OWN));
        let mut told = BTreeSet::new();
        let mut found = Vec::new();
        for Taken { at, by } in foreign {
            let mut needed = self.needed.iter().filter(|n| n.whose.is(roles));
            let Some(needed) = needed.find(|n| n.meets(*at)) else {
                continue;
            };
            let port = at.port();
            let by = by.as_deref().unwrap_or("another program");
            if !told.insert((port, by)) {
                continue;
            }
            let seen = format!("{port}/tcp, which lateen needs, is {by}'s");
            let stop = format!("stop it: ss -ltnp 'sport = :{port}'");
            let remedy = match needed.key {
                Some((key, table)) => format!("set `{key}` in [{table}] of lateen.toml, or {stop}"),
                None => stop,
            };
            found.push(Finding::new(Code::PortTaken, seen, remedy));
        }
        found
    }
}

/// Addresses and inodes of listening sockets, by /proc/net/tcp and tcp6 (proc(5)).
fn listening(table: &str) -> Vec<(SocketAddr, u64)> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTEN, ..] = fields[..] else {
            return None;
        };
        let (ip, port) = local.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((
            SocketAddr::new(address(ip)?, port),
            fields.get(9)?.parse().ok()?,
        ))
    };
    table.lines().filter_map(of).collect()
}

/// An address as words of the machine's own order.
fn address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(&*bytes).map(|b| Ipv4Addr::from(b).into());
    let v6 = || <[u8; 16]>::try_from(&*bytes).map(|b| Ipv6Addr::from(b).to_canonical());
    v4.or_else(|_not_four| v6()).ok()
}

/// The names of the programs that hold sockets, as far as they may be seen.
fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let open = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        for descriptor in open {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode.filter(|inode| inodes.contains(inode)) else {
                continue;
            };
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            names.insert(inode, name.trim().to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_others_programs_are_in_the_way() {
        let roles = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        let elsewhere = "[listen]\nmetrics = \"[::]:9020\"\ndns = \"127.0.0.1:53\"";
        for (name, settings, at, by, want) in [
            ("our own", "", "0.0.0.0:15008", Some("lateen"), 0),
            ("another's", "", "0.0.0.0:15008", Some("ztunnel"), 1),
            ("one address is enough", "", "127.0.0.1:15020", None, 1),
            ("nobody can say whose", "", "[::]:15021", None, 1),
            ("not needed here", "", "[::]:15012", Some("pilot"), 0),
            ("not needed any more", elsewhere, "[::]:15020", None, 0),
            ("needed instead", elsewhere, "[::]:9020", None, 1),
            ("names", elsewhere, "127.0.0.1:53", Some("dnsmasq"), 1),
            ("names, beside", elsewhere, "127.0.0.53:53", None, 0),
        ] {
            let config = Config::parse("", settings.to_owned(), "edge-1").unwrap();
            let (at, by) = (at.parse().unwrap(), by.map(str::to_owned));
            let facts = Facts {
                needed: Needed::all(&config),
                taken: [Taken { at, by }].into(),
            };
            let found = facts.check(roles);
            assert_eq!(found.len(), want, "{name}");
            assert!(found.iter().all(|f| f.code == Code::PortTaken));
        }
    }

    #[test]
    fn a_program_that_listens_twice_is_told_of_once() {
        let config = Config::parse("", String::new(), "edge-1").unwrap();
        let taken = ["0.0.0.0:15020", "[::]:15020"].map(|at| Taken {
            at: at.parse().unwrap(),
            by: Some("exporter".to_owned()),
        });
        let facts = Facts {
            needed: Needed::all(&config),
            taken: taken.into(),
        };
        let found = facts.check(Roles::default());
        assert_eq!(found.len(), 1, "{found:?}");
        let remedy = &found[0].remedy;
        assert!(
            remedy.starts_with("set `metrics` in [listen] of lateen.toml"),
            "{remedy}"
        );
    }

    #[test]
    fn a_listening_socket_is_found_with_its_holder() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let sockets = listening(&table);
        let own = listener.local_addr().unwrap();
        let (_, inode) = sockets.into_iter().find(|(at, _)| *at == own).unwrap();
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(
            holders(&[inode].into()).get(&inode).map(|n| &**n),
            Some(comm.trim())
        );
        let six = std::net::TcpListener::bind("[::1]:0").unwrap();
        let table = fs::read_to_string("/proc/net/tcp6").unwrap();
        let own = six.local_addr().unwrap();
        assert!(listening(&table).iter().any(|(at, _)| *at == own), "{own}");
    }
}
