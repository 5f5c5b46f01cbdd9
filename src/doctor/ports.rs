//! Who listens on the ports that lateen needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::Finding;
use super::codes::Code;
use super::settings::Roles;

/// Ports, and what for; in each network that is captured the first three are there as well.
const PORTS: [(u16, Whose); 7] = [
    (15001, Whose::Node),
    (15006, Whose::Node),
    (15008, Whose::Tunnels),
    (15012, Whose::Control),
    (15020, Whose::All),
    (15021, Whose::All),
    (15053, Whose::Node),
];
/// What lateen's own processes are called.
const OWN: &str = "lateen";
/// A socket that listens (include/net/tcp_states.h).
const LISTEN: &str = "0A";

#[derive(Clone, Copy, PartialEq, Eq)]
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

/// A port that is listened on, by a program whose name is known or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    port: u16,
    by: Option<String>,
}

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    taken: BTreeSet<Taken>,
}

impl Facts {
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut sockets = listening(&read("/proc/net/tcp"));
        sockets.extend(listening(&read("/proc/net/tcp6")));
        let wanted = |port: u16| PORTS.iter().any(|(p, _)| *p == port);
        sockets.retain(|(port, _)| wanted(*port));
        if sockets.is_empty() {
            return Self::default();
        }
        let inodes: BTreeSet<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
        let names = holders(&inodes);
        let taken = sockets.into_iter().map(|(port, inode)| Taken {
            port,
            by: names.get(&inode).cloned(),
        });
        Self {
            taken: taken.collect(),
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let needed = |port: u16| PORTS.iter().any(|(p, whose)| *p == port && whose.is(roles));
        let foreign = self.taken.iter().filter(|t| t.by.as_deref() != Some(OWN));
        let foreign = foreign.filter(|t| needed(t.port));
        let found = foreign.map(|Taken { port, by }| {
            let by = by.as_deref().map_or("another program", |name| name);
            let seen = format!("{port}/tcp, which lateen needs, is {by}'s");
            let remedy = match port {
                15020 => format!("set `metrics` in [listen] of lateen.toml, or stop it: ss -ltnp 'sport = :{port}'"),
                15021 => format!("set `readiness` in [listen] of lateen.toml, or stop it: ss -ltnp 'sport = :{port}'"),
                15012 => format!("set `listen` in [control] of lateen.toml, or stop it: ss -ltnp 'sport = :{port}'"),
                _ => format!("stop it: ss -ltnp 'sport = :{port}'"),
            };
            Finding::new(Code::PortTaken, seen, remedy)
        });
        found.collect()
    }
}

/// Ports and inodes of listening sockets, by /proc/net/tcp (proc(5)).
fn listening(table: &str) -> Vec<(u16, u64)> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTEN, ..] = fields[..] else {
            return None;
        };
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        Some((port, fields.get(9)?.parse().ok()?))
    };
    table.lines().filter_map(of).collect()
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
        for (name, port, by, want) in [
            ("our own", 15008, Some("lateen"), 0),
            ("another's", 15008, Some("ztunnel"), 1),
            ("nobody can say whose", 15021, None, 1),
            ("one that this host does not need", 15012, Some("pilot"), 0),
        ] {
            let by = by.map(str::to_owned);
            let facts = Facts {
                taken: [Taken { port, by }].into(),
            };
            let found = facts.check(roles);
            assert_eq!(found.len(), want, "{name}");
            assert!(found.iter().all(|f| f.code == Code::PortTaken));
        }
    }

    #[test]
    fn a_listening_socket_is_found_with_its_holder() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let sockets = listening(&table);
        let (_, inode) = sockets.into_iter().find(|(p, _)| *p == port).unwrap();
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(
            holders(&[inode].into()).get(&inode).map(|n| &**n),
            Some(own.trim())
        );
    }
}
