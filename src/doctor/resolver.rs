//! How this host finds addresses of names.

use std::fs;
use std::path::PathBuf;

use super::Finding;
use super::codes::Code;

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
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
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
                link: None,
            };
            let codes: Vec<_> = facts.check().iter().map(|f| f.code).collect();
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
            };
            assert_eq!(facts.writer(text), want);
        }
    }
}
