//! `rig.toml`: which hosts there are, how they are linked, and what runs on them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// A whole rig.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spec {
    /// The hosts.
    #[serde(default, rename = "host")]
    pub hosts: Vec<Host>,
    /// Programs to start once the hosts are up.
    #[serde(default, rename = "app")]
    pub apps: Vec<App>,
    /// What their links are like; a host without an entry has a perfect one.
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
}

/// A host: a machine of the rig.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its addresses with their prefix lengths, all hosts on one segment.
    pub addresses: Vec<IpNet>,
    /// Namespaces for workloads in it, on the same segment.
    #[serde(default, rename = "namespace")]
    pub namespaces: Vec<Namespace>,
    /// Whether programs on its own network can be systemd units and other users: it has cgroups of its
    /// own then, and a way out for every address. Takes root.
    #[serde(default)]
    pub units: bool,
}

/// A network namespace inside a host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Namespace {
    /// Its name under the host's `/run/netns`.
    pub name: String,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// A program on a host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct App {
    /// The host.
    pub host: String,
    /// The namespace in it; the host's own network unless given.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The systemd unit whose program it is, on a host with `units = true`.
    #[serde(default)]
    pub unit: Option<String>,
    /// The user it runs as there, by number.
    #[serde(default)]
    pub user: Option<u32>,
    /// A name for its log.
    pub name: String,
    /// Program and arguments; `lateen` is this binary.
    pub command: Vec<String>,
}

impl App {
    /// What it runs as.
    pub fn identity(&self) -> RunAs {
        RunAs {
            unit: self.unit.clone(),
            user: self.user,
        }
    }
}

/// What a program of a host's own network runs as; as whoever started the rig unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunAs {
    /// As a program of this systemd unit, in the unit's cgroup.
    pub unit: Option<String>,
    /// As this user, by number.
    pub user: Option<u32>,
}

impl RunAs {
    /// The unit of that name.
    pub fn unit(name: &str) -> Self {
        Self {
            unit: Some(name.to_owned()),
            user: None,
        }
    }

    /// The user of that number.
    pub fn user(uid: u32) -> Self {
        Self {
            unit: None,
            user: Some(uid),
        }
    }

    /// As options of `lateen rig exec`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let unit = self.unit.iter().map(|unit| format!("--unit={unit}"));
        let user = self.user.iter().map(|user| format!("--user={user}"));
        unit.chain(user).collect()
    }
}

/// What a host's link is like.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Link {
    /// The host.
    pub host: String,
    /// Most it sends, such as `100mbit`.
    #[serde(default)]
    pub rate: Option<String>,
    /// Share of frames it loses on the way in, 0 to 1.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Longest packet that it takes, of the host and of its namespaces, 1280 to [`LONGEST_PACKET`] bytes; 1500
    /// unless given.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// Longest packet that the segment takes, in bytes: that of a jumbo frame.
pub(super) const LONGEST_PACKET: u32 = 9000;

/// What is wrong with a rig's description.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It is no `rig.toml`; the text names line and column.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// It contradicts itself.
    #[error("rig.toml: {0}")]
    Wrong(String),
}

impl Spec {
    /// Reads and checks a description.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let spec: Self = toml::from_str(text)?;
        spec.check()?;
        Ok(spec)
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    fn check(&self) -> Result<(), SpecError> {
        let wrong = |what: String| Err(SpecError::Wrong(what));
        let mut names = BTreeSet::new();
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for host in &self.hosts {
            let legal = |name: &str| {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                !name.is_empty() && name.len() <= 64 && name.bytes().all(fits)
            };
            if !legal(&host.name) || !names.insert(host.name.clone()) {
                return wrong(format!(
                    "host `{}` is named twice or not with letters, digits and dashes",
                    host.name
                ));
            }
            let mut inner = BTreeSet::new();
            for namespace in &host.namespaces {
                if !legal(&namespace.name) || !inner.insert(&namespace.name) {
                    return wrong(format!(
                        "namespace `{}` of host `{}` is named twice or not with letters, digits and dashes",
                        namespace.name, host.name
                    ));
                }
            }
            let within = host.namespaces.iter().flat_map(|n| &n.addresses);
            for address in host.addresses.iter().chain(within) {
                if !addresses.insert(address.addr()) {
                    return wrong(format!("address {} is given twice", address.addr()));
                }
            }
        }
        for app in &self.apps {
            let Some(host) = self.host(&app.host) else {
                return wrong(format!(
                    "app `{}` is on host `{}`, which is not there",
                    app.name, app.host
                ));
            };
            let there = |name: &String| host.namespaces.iter().any(|n| n.name == *name);
            if !app.namespace.as_ref().is_none_or(there) || app.command.is_empty() {
                return wrong(format!(
                    "app `{}` has no command, or a namespace that is not there",
                    app.name
                ));
            }
            if app.identity() != RunAs::default() && !host.units {
                return wrong(format!(
                    "app `{}` is a unit or a user, and host `{}` has no `units = true`",
                    app.name, app.host
                ));
            }
        }
        for link in &self.links {
            let loses = link.loss.is_none_or(|l| (0.0..=1.0).contains(&l));
            let takes = link
                .mtu
                .is_none_or(|mtu| (1280..=LONGEST_PACKET).contains(&mtu));
            if self.host(&link.host).is_none() || !loses || !takes {
                return wrong(format!(
                    "link of host `{}`: no such host, a loss outside 0 to 1, or an mtu outside 1280 to \
                     {LONGEST_PACKET}",
                    link.host
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_checked() {
        let host = "[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1/16\"]\n";
        for (name, text, want) in [
            ("one host", host.to_owned(), None),
            ("no hosts", String::new(), None),
            ("twice", host.repeat(2), Some("named twice")),
            (
                "bad address",
                host.replace("10.0.0.1/16", "10.0.0.1"),
                Some("line 3"),
            ),
            (
                "unknown key",
                format!("{host}adress = 1\n"),
                Some("unknown field `adress`"),
            ),
            (
                "app nowhere",
                format!("{host}[[app]]\nhost = \"b\"\nname = \"x\"\ncommand = [\"true\"]\n"),
                Some("host `b`"),
            ),
            (
                "unit where there are none",
                format!(
                    "{host}[[app]]\nhost = \"a\"\nunit = \"x.service\"\nname = \"x\"\ncommand = [\"true\"]\n"
                ),
                Some("no `units = true`"),
            ),
            (
                "unit",
                format!(
                    "{host}units = true\n[[app]]\nhost = \"a\"\nunit = \"x.service\"\nname = \"x\"\ncommand = [\"true\"]\n"
                ),
                None,
            ),
            (
                "loss",
                format!("{host}[[link]]\nhost = \"a\"\nloss = 2.0\n"),
                Some("outside 0 to 1"),
            ),
            (
                "jumbo frames",
                format!("{host}[[link]]\nhost = \"a\"\nmtu = 9000\n"),
                None,
            ),
            (
                "longer ones",
                format!("{host}[[link]]\nhost = \"a\"\nmtu = 9216\n"),
                Some("outside 1280 to 9000"),
            ),
        ] {
            let got = Spec::parse(&text).err().map(|e| e.to_string());
            match want {
                None => assert_eq!(got, None, "{name}"),
                Some(want) => assert!(
                    got.as_ref().is_some_and(|g| g.contains(want)),
                    "{name}: {got:?}"
                ),
            }
        }
    }
}
