//! The filter on the host's side of a namespace's links. What runs in the namespace with NET_RAW sends
//! frames past every rule there (`spec/reliability.md` §0 F5); outside of it nothing comes through but
//! tunnels, and what it takes to find a neighbour.
//!
//! Beyond the link nobody can tell the proxy's packets from a program's, so a namespace that is strict
//! reaches the mesh and what is let alone, and nothing else in plain text: names are looked up, say,
//! where their server is one of the ranges that are let alone.

use super::error::CaptureError;
use super::links::{Link, links};
use super::netns::Netns;
use super::ruleset::{Exclusions, HBONE_PORT, TABLE};
use super::tool::{Tool, run};

/// Finding neighbours: without it there is no link.
const NEIGHBOURS: [&str; 2] = [
    "ether type arp",
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, \
     mld-listener-report, mld2-listener-report }",
];

/// The filters of one namespace.
#[derive(Clone, Debug)]
pub struct Strict {
    host: Netns,
    inside: Netns,
    exclusions: Exclusions,
}

/// The host's end of a link into the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    /// The number of the other end, which is in the namespace.
    inside: u32,
    ifindex: u32,
    name: String,
}

impl Strict {
    /// For the links of `inside` that end in `host`.
    pub fn new(host: Netns, inside: Netns, exclusions: Exclusions) -> Self {
        Self {
            host,
            inside,
            exclusions,
        }
    }

    /// The network whose rules these are.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// Puts the filters in place, in one transaction.
    ///
    /// # Errors
    /// [`CaptureError::NoLink`] where no link ends in the host, and [`CaptureError::OtherLink`] where one
    /// leads elsewhere, the others being filtered: neither namespace could be kept strict.
    pub async fn apply(&self) -> Result<(), CaptureError> {
        let (ends, elsewhere) = self.ways_out().await?;
        let script: String = ends.iter().map(|end| self.chain(end)).collect();
        run(&self.host, Tool::Nft, &["-f", "-"], &script).await?;
        self.none(elsewhere)
    }

    /// Whether every link has its filter, as far as its last rule, which drops.
    ///
    /// # Errors
    /// As [`Self::apply`], and when that cannot be read.
    pub async fn intact(&self) -> Result<bool, CaptureError> {
        let (ends, elsewhere) = self.ways_out().await?;
        for end in ends {
            let rules = rules(&self.exclusions).len();
            if listed(&self.host, &end).await? != Some(rules) {
                return Ok(false);
            }
        }
        self.none(elsewhere).map(|()| true)
    }

    /// The host's ends of the namespace's links, and the name of a link that leads elsewhere.
    async fn ways_out(&self) -> Result<(Vec<End>, Option<String>), CaptureError> {
        let inside = links(&self.inside).await?;
        let ends = ends(&inside, &links(&self.host).await?);
        let filtered = |link: &Link| ends.iter().any(|end| end.inside == link.ifindex);
        let elsewhere = inside.into_iter().find(|l| l.leads_out() && !filtered(l));
        let elsewhere = elsewhere.map(|link| link.ifname);
        match ends.is_empty() {
            true => Err(CaptureError::NoLink {
                name: self.inside.name().to_owned(),
            }),
            false => Ok((ends, elsewhere)),
        }
    }

    fn none(&self, elsewhere: Option<String>) -> Result<(), CaptureError> {
        elsewhere.map_or(Ok(()), |link| {
            let name = self.inside.name().to_owned();
            Err(CaptureError::OtherLink { name, link })
        })
    }

    fn chain(&self, end: &End) -> String {
        let name = end.chain();
        let device = &end.name;
        let mut text = format!(
            "add table netdev {TABLE}\n\
             add chain netdev {TABLE} {name} {{ type filter hook ingress device \"{device}\" priority -300; policy accept; }}\n\
             flush chain netdev {TABLE} {name}\n"
        );
        for rule in rules(&self.exclusions) {
            text.push_str(&format!("add rule netdev {TABLE} {name} {rule}\n"));
        }
        text
    }
}

impl End {
    fn chain(&self) -> String {
        format!("strict_{}", self.ifindex)
    }
}

fn rules(exclusions: &Exclusions) -> Vec<String> {
    let mut rules: Vec<_> = NEIGHBOURS.map(|what| format!("{what} accept")).into();
    rules.extend(exclusions.frames());
    for protocol in ["tcp", "udp"] {
        let ends = ["dport", "sport"];
        rules.extend(ends.map(|end| format!("{protocol} {end} {HBONE_PORT} accept")));
    }
    rules.push("counter drop".to_owned());
    rules
}

/// Removes the filters of a namespace's links; those that are not there are left alone.
///
/// # Errors
/// [`CaptureError`] when one of ours could not be removed.
pub async fn remove(host: &Netns, inside: &Netns) -> Result<(), CaptureError> {
    let table = run(host, Tool::Nft, &["list", "table", "netdev", TABLE], "").await;
    match table {
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => return Ok(()),
        other => other?,
    };
    let mut script = String::new();
    for end in ends(&links(inside).await?, &links(host).await?) {
        if listed(host, &end).await?.is_some() {
            let name = end.chain();
            script.push_str(&format!(
                "flush chain netdev {TABLE} {name}\ndelete chain netdev {TABLE} {name}\n"
            ));
        }
    }
    if !script.is_empty() {
        run(host, Tool::Nft, &["-f", "-"], &script).await?;
    }
    Ok(())
}

/// How many rules a filter has; `None` where there is none.
async fn listed(host: &Netns, end: &End) -> Result<Option<usize>, CaptureError> {
    let name = end.chain();
    let words = ["list", "chain", "netdev", TABLE, &name];
    match run(host, Tool::Nft, &words, "").await {
        Ok(text) => {
            let verdicts = |line: &&str| line.ends_with(" accept") || line.ends_with(" drop");
            Ok(Some(text.lines().filter(verdicts).count()))
        }
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => Ok(None),
        Err(e) => Err(e),
    }
}

/// Which of the host's links have their other end inside: each names the other by its number, and
/// numbers begin anew in each namespace.
fn ends(inside: &[Link], host: &[Link]) -> Vec<End> {
    let mut ends = Vec::new();
    for link in inside.iter().filter(|link| link.is_pair()) {
        let other = host.iter().filter(|link| link.is_pair()).find(|other| {
            link.link_index == Some(other.ifindex) && other.link_index == Some(link.ifindex)
        });
        ends.extend(other.map(|other| End {
            inside: link.ifindex,
            ifindex: other.ifindex,
            name: other.ifname.clone(),
        }));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::links::parse;

    fn links(text: &str) -> Vec<Link> {
        parse(text).unwrap()
    }

    const INSIDE: &str = r#"[{"ifindex":1,"ifname":"lo"},
        {"ifindex":2,"link_index":7,"ifname":"eth0","link_netnsid":0,"linkinfo":{"info_kind":"veth"}},
        {"ifindex":3,"link_index":4,"ifname":"mac0","link_netnsid":0,"linkinfo":{"info_kind":"macvlan"}}]"#;

    #[test]
    fn only_a_link_whose_ends_name_each_other_is_filtered() {
        let veth = |index: u32, other: u32| {
            format!(
                r#"[{{"ifindex":{index},"link_index":{other},"ifname":"ve-cart","link_netnsid":3,
                "linkinfo":{{"info_kind":"veth"}}}}]"#
            )
        };
        for (name, host, want) in [
            ("the other end", veth(7, 2), Some("strict_7")),
            ("another's of the same number", veth(7, 5), None),
            ("another", veth(8, 2), None),
            ("none", "[]".to_owned(), None),
            (
                "within the host",
                veth(7, 2).replace(r#""link_netnsid":3,"#, ""),
                None,
            ),
        ] {
            let ends = ends(&links(INSIDE), &links(&host));
            assert_eq!(ends.first().map(End::chain).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn what_is_not_let_through_is_dropped_last() {
        let exclusions = Exclusions {
            ports: [22].into(),
            ranges: ["10.0.0.53/32".parse().unwrap()].into(),
            users: [33].into(),
            ..Exclusions::default()
        };
        let rules = rules(&exclusions);
        assert_eq!(rules.last().map(|r| &**r), Some("counter drop"));
        let text = rules.join("\n");
        for rule in [
            "tcp dport { 22 } accept",
            "ip daddr { 10.0.0.53/32 } accept",
            "tcp dport 15008 accept",
            "udp dport 15008 accept",
            "udp sport 15008 accept",
        ] {
            assert!(text.contains(rule), "{rule} in {text}");
        }
        assert!(!text.contains("skuid"), "a frame has no user: {text}");
    }
}
