//! How this host finds addresses of names.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::Finding;
use super::codes::Code;
use super::settings::Roles;
use crate::agent::identity::NodeIdentity;
use crate::config::daemon::{Config, HostNames};
use crate::node::dns::{RESOLVED_LINK, Resolver, by_hand};

/// Names with fewer dots are asked for with every ending first; more than this costs several
/// questions for each name.
const NDOTS: u32 = 2;

/// Who writes resolv.conf, which is whom to ask for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Resolved,
    NetworkManager,
    Resolvconf,
    Nobody,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// What is in /etc/resolv.conf.
    pub(super) text: Option<String>,
    /// Where it leads, when it is a link.
    pub(super) link: Option<PathBuf>,
    /// What programs of the host are to know of the mesh, where they are.
    pub(super) host: Option<Host>,
}

/// Names of the mesh that the host's own programs are to know.
#[derive(Clone, Debug)]
pub(super) struct Host {
    resolver: Resolver,
    /// Whether it has to be systemd-resolved.
    insists: bool,
    /// Whether that asks us, as far as its link is there.
    told: bool,
    domain: Arc<str>,
    listen: SocketAddr,
}

impl Host {
    fn read(config: &Config) -> Option<Self> {
        let settings = config.dns();
        if settings.host() == HostNames::Off {
            return None;
        }
        let identity = NodeIdentity::load(config.state_dir()).ok().flatten();
        let domain = identity.map(|identity| Arc::from(identity.mesh.mesh_domain));
        // Those of this network; /sys may show another's.
        let links = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        let ours = |line: &str| {
            line.trim_start()
                .strip_prefix(RESOLVED_LINK)?
                .strip_prefix(':')
                .map(drop)
        };
        Some(Self {
            resolver: Resolver::of_host(),
            insists: settings.host() == HostNames::Resolved,
            told: links.lines().any(|line| ours(line).is_some()),
            domain: domain.unwrap_or_else(|| Arc::clone(settings.domain())),
            listen: config.listeners().dns?,
        })
    }

    fn check(&self) -> Option<Finding> {
        let Self { domain, listen, .. } = self;
        if self.resolver == Resolver::Resolved {
            let seen = format!(
                "systemd-resolved does not ask here for names below `{domain}`: a node tells it, unless it has a keeper \
                 or does not run"
            );
            let finding = || Finding::new(Code::DnsUntold, seen, by_hand(domain, *listen));
            return (!self.told).then(finding);
        }
        if self.insists {
            let seen = "`[dns]` in lateen.toml says `host = \"resolved\"`, and systemd-resolved does not run here";
            let remedy = "systemctl enable --now systemd-resolved, or write `host = \"auto\"`";
            return Some(Finding::new(Code::DnsUntold, seen, remedy));
        }
        let finding = self.resolver.finding(domain, *listen)?;
        Some(Finding::new(Code::DnsHost, finding.seen, finding.remedy))
    }
}

impl Facts {
    pub(super) fn read() -> Self {
        let path = "/etc/resolv.conf";
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(String::new()),
            read => read.ok(),
        };
        Self {
            text,
            link: fs::read_link(path).ok(),
            host: None,
        }
    }

    /// And whether programs of the host know the mesh, where a node is started, or has been.
    pub(super) fn with_host(config: Option<&Config>) -> Self {
        Self {
            host: config.and_then(Host::read),
            ..Self::read()
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let mut found = self.of_host();
        let host = self.host.as_ref().filter(|_| roles.captures());
        found.extend(host.and_then(Host::check));
        found
    }

    fn of_host(&self) -> Vec<Finding> {
        let Some(text) = &self.text else {
            return Vec::new();
        };
        let mut found = Vec::new();
        if words(text, "nameserver").is_empty() {
            let seen = "/etc/resolv.conf names no server: names outside the mesh lead nowhere";
            let remedy = match self.writer(text) {
                Writer::Resolved => "resolvectl dns INTERFACE ADDRESS",
                Writer::NetworkManager => "nmcli connection modify NAME ipv4.dns ADDRESS",
                Writer::Resolvconf => "echo nameserver ADDRESS | resolvconf -a INTERFACE",
                Writer::Nobody => "echo nameserver ADDRESS >> /etc/resolv.conf",
            };
            found.push(Finding::new(Code::ResolverNone, seen, remedy));
        }
        let endings = words(text, "search").len().max(words(text, "domain").len());
        let dots = ndots(text);
        if endings > 1 && dots > NDOTS {
            let seen = format!(
                "names with fewer than {dots} dots, `cart.shop.mesh.internal` perhaps, are first asked for with \
                 {endings} endings each (ndots:{dots})"
            );
            let remedy = match self.writer(text) {
                Writer::NetworkManager => "nmcli connection modify NAME ipv4.dns-options ndots:1",
                _ => "set `options ndots:1` in /etc/resolv.conf, or whatever writes it",
            };
            found.push(Finding::new(Code::NdotsHigh, seen, remedy));
        }
        found
    }

    fn writer(&self, text: &str) -> Writer {
        let link = self.link.as_ref().map(|link| link.display().to_string());
        let link = link.unwrap_or_default();
        match () {
            () if link.contains("systemd/resolve") => Writer::Resolved,
            () if link.contains("resolvconf") || text.contains("resolvconf") => Writer::Resolvconf,
            () if link.contains("NetworkManager") || text.contains("by NetworkManager") => {
                Writer::NetworkManager
            }
            () => Writer::Nobody,
        }
    }
}

/// What a keyword is followed by (resolv.conf(5)); of several lines with `search` the last counts.
fn words(text: &str, keyword: &str) -> Vec<String> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some(keyword)).then(|| words.map(str::to_owned).collect::<Vec<_>>())
    };
    text.lines().filter_map(of).next_back().unwrap_or_default()
}

fn ndots(text: &str) -> u32 {
    let options = words(text, "options");
    let mut dots = options
        .iter()
        .filter_map(|o| o.strip_prefix("ndots:")?.parse().ok());
    dots.next_back().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named() {
        for (name, text, want) in [
            (
                "a plain host",
                "nameserver 10.0.0.1\nsearch example.com\n",
                None,
            ),
            (
                "no server",
                "search example.com\n# nameserver 10.0.0.1\n",
                Some(Code::ResolverNone),
            ),
            ("no file", "", Some(Code::ResolverNone)),
            (
                "many questions",
                "nameserver 10.0.0.1\nsearch a.example b.example\noptions edns0 ndots:5\n",
                Some(Code::NdotsHigh),
            ),
            (
                "one ending",
                "nameserver 10.0.0.1\nsearch a.example\noptions ndots:5\n",
                None,
            ),
        ] {
            let facts = Facts {
                text: Some(text.to_owned()),
                ..Facts::default()
            };
            let codes: Vec<_> = facts
                .check(Roles::default())
                .iter()
                .map(|f| f.code)
                .collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
        }
    }

    #[test]
    fn the_remedy_is_for_whoever_writes_the_file() {
        for (link, text, want) in [
            (
                Some("../run/systemd/resolve/stub-resolv.conf"),
                "",
                Writer::Resolved,
            ),
            (
                None,
                "# Generated by NetworkManager\n",
                Writer::NetworkManager,
            ),
            (Some("/run/resolvconf/resolv.conf"), "", Writer::Resolvconf),
            (None, "nameserver 1.1.1.1\n", Writer::Nobody),
        ] {
            let facts = Facts {
                text: Some(text.to_owned()),
                link: link.map(PathBuf::from),
                host: None,
            };
            assert_eq!(facts.writer(text), want);
        }
    }

    #[test]
    fn a_host_that_is_to_know_the_mesh_and_does_not_is_told_of() {
        let node = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        let control = Roles {
            node: false,
            control: true,
            ..node
        };
        let (resolved, dnsmasq) = (Resolver::Resolved, Resolver::Dnsmasq);
        for (name, roles, resolver, insists, told, want) in [
            ("told", node, resolved, true, true, None),
            (
                "untold",
                node,
                resolved,
                false,
                false,
                Some(Code::DnsUntold),
            ),
            (
                "not there",
                node,
                dnsmasq,
                true,
                false,
                Some(Code::DnsUntold),
            ),
            ("by hand", node, dnsmasq, false, false, Some(Code::DnsHost)),
            ("no node", control, dnsmasq, true, false, None),
        ] {
            let facts = Facts {
                host: Some(Host {
                    resolver,
                    insists,
                    told,
                    domain: Arc::from("mesh.internal"),
                    listen: "127.0.0.1:15053".parse().unwrap(),
                }),
                ..Facts::default()
            };
            let codes: Vec<_> = facts.check(roles).iter().map(|f| f.code).collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
        }
    }

    #[test]
    fn whether_the_host_is_to_know_the_mesh_the_settings_say() {
        for (settings, want) in [("", false), ("[dns]\nhost = \"auto\"", true)] {
            let settings = format!("state-dir = \"/nonexistent/state\"\n{settings}");
            let config = Config::parse("", settings, "edge-1").unwrap();
            let host = Host::read(&config);
            assert_eq!(host.is_some(), want);
            assert!(host.is_none_or(|host| !host.told && &*host.domain == "cluster.local"));
        }
    }
}
