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
    /// A name for its log.
    pub name: String,
    /// Program and arguments; `lateen` is this binary.
    pub command: Vec<String>,
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
}

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
        }
        for link in &self.links {
            let sane = link.loss.is_none_or(|l| (0.0..=1.0).contains(&l));
            if self.host(&link.host).is_none() || !sane {
                return wrong(format!(
                    "link of host `{}`: no such host, or a loss outside 0 to 1",
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
                "loss",
                format!("{host}[[link]]\nhost = \"a\"\nloss = 2.0\n"),
                Some("outside 0 to 1"),
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
