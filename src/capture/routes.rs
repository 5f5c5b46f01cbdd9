//! The way back: packets that [`super::ruleset`] marks are for this host, whatever their address,
//! so that answers to a client end in the socket that the proxy opened in its name
//! (`spec/hbone-dataplane.md` §6.2). What comes from guests and goes to them takes the same way when
//! it passes through, though not when this host sends it: the sockets that took it bear its mark.

use std::fs;
use std::io;

use serde_json::{Deserializer, Value};

use super::error::CaptureError;
use super::netns::Netns;
use super::ruleset::{DATAGRAM_MARK, FIRST_MARK, GUEST_MARK, MARK_MASK, RETURN_MARK};
use super::tool::{Tool, run};

/// Preference of the routing rule for answers.
const PREFERENCE: u32 = 32764;
/// Routing table of the rules.
const TABLE: u32 = 100;
/// What redirection takes, and a namespace does not have when it is made.
pub(super) const LOOPBACK_UP: &str = "link set lo up";
/// Prints what [`Found`] is made of: each line makes one array.
const LOOK: &str = "rule show\nroute show table all type local default\nlink show dev lo\n";

/// A routing rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    preference: u32,
    /// A mark and the bits of it that count; none for what this host sends.
    mark: Option<(u32, u32)>,
}

/// Answers of programs to the proxy, and tunnels by QUIC of this host's to its guests.
const ANSWERS: [Way; 1] = [Way {
    preference: PREFERENCE,
    mark: Some((RETURN_MARK, MARK_MASK)),
}];
/// What workloads send into the mesh by datagrams. Behind the answers' rule, to which those of guests lead
/// on.
const DATAGRAMS: [Way; 1] = [Way {
    preference: PREFERENCE + 1,
    mark: Some((DATAGRAM_MARK, MARK_MASK)),
}];
/// Guests: marks from 0x600 to 0xfff are two ranges that a mask can tell. What this host sends, and
/// what the reverse-path filter asks about, goes on to the answers' rule.
const GUESTS: [Way; 4] = [
    Way {
        preference: PREFERENCE - 4,
        mark: None,
    },
    Way {
        preference: PREFERENCE - 3,
        mark: Some((GUEST_MARK, MARK_MASK)),
    },
    Way {
        preference: PREFERENCE - 2,
        mark: Some((FIRST_MARK, 0xe00)),
    },
    Way {
        preference: PREFERENCE - 1,
        mark: Some((0x800, 0x800)),
    },
];

impl Way {
    fn words(self) -> String {
        let pref = self.preference;
        match self.mark {
            Some((mark, mask)) => format!("pref {pref} fwmark {mark:#x}/{mask:#x} lookup {TABLE}"),
            None => format!("pref {pref} iif lo goto {PREFERENCE}"),
        }
    }

    fn is(self, rule: &Value) -> bool {
        let text = |key: &str, value: String| rule[key].as_str() == Some(&value);
        let leads = match self.mark {
            Some((mark, mask)) => {
                text("fwmark", format!("{mark:#x}"))
                    && text("fwmask", format!("{mask:#x}"))
                    && text("table", TABLE.to_string())
            }
            None => {
                rule["iif"].as_str() == Some("lo")
                    && rule["goto"].as_u64() == Some(PREFERENCE.into())
            }
        };
        leads && rule["priority"].as_u64() == Some(self.preference.into())
    }
}

/// What takes a route of its own, besides answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ways {
    /// What comes from guests and goes to them.
    pub(super) guests: bool,
    /// What is sent into the mesh by datagrams.
    pub(super) datagrams: bool,
}

impl Ways {
    const ALL: Self = Self {
        guests: true,
        datagrams: true,
    };

    /// What rules take that are told in the words of a plan.
    pub(super) fn of(text: &str) -> Self {
        Self {
            guests: text.contains("guest_addresses"),
            datagrams: text.contains("udp_sources"),
        }
    }

    fn all(self) -> Vec<Way> {
        // Answers first: others lead on to them.
        let mut ways = ANSWERS.to_vec();
        if self.datagrams {
            ways.extend(DATAGRAMS);
        }
        if self.guests {
            ways.extend(GUESTS);
        }
        ways
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// What of the way back a family has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    rules: Vec<Way>,
    route: bool,
    loopback_up: bool,
}

fn route() -> String {
    format!("local default dev lo table {TABLE}")
}

/// The commands that make the way back of one family, with the flag that names it.
pub(super) fn commands(family: Family, ways: Ways) -> Vec<String> {
    let flag = family.flag();
    let rules = ways.all().into_iter();
    let mut commands: Vec<_> = rules
        .map(|way| format!("{flag} rule add {}", way.words()))
        .collect();
    commands.push(format!("{flag} route replace {}", route()));
    commands
}

/// Adds what is missing, and takes away what nothing takes any more.
pub(super) async fn ensure(ns: &Netns, ways: Ways) -> Result<(), CaptureError> {
    // Routes by way of an interface that is down are refused.
    if !found(ns, Family::V4).await?.loopback_up {
        batch(ns, Family::V4, LOOPBACK_UP.to_owned()).await?;
    }
    let wanted_ways = ways.all();
    for family in wanted(ns)? {
        let found = found(ns, family).await?;
        let missing = wanted_ways.iter().filter(|way| !found.rules.contains(way));
        let mut lines: Vec<_> = missing
            .map(|way| format!("rule add {}", way.words()))
            .collect();
        let needless = found.rules.iter().filter(|way| !wanted_ways.contains(way));
        lines.extend(needless.map(|way| format!("rule del {}", way.words())));
        if !found.route {
            lines.push(format!("route replace {}", route()));
        }
        batch(ns, family, lines.join("\n")).await?;
    }
    Ok(())
}

/// Whether nothing is missing.
pub(super) async fn in_place(ns: &Netns, ways: Ways) -> Result<bool, CaptureError> {
    for family in wanted(ns)? {
        let found = found(ns, family).await?;
        let there = ways.all().iter().all(|way| found.rules.contains(way));
        if !(there && found.route && found.loopback_up) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what is ours and there; the loopback interface stays up, since others may use it.
pub(super) async fn remove(ns: &Netns) -> Result<(), CaptureError> {
    let mut families = vec![Family::V4];
    // Rules outlive IPv6 being switched off; a kernel without it has none.
    if loopback_has_v6(ns)?.is_some() {
        families.push(Family::V6);
    }
    for family in families {
        let found = found(ns, family).await?;
        // The one that leads on to another first.
        let rules = found.rules.iter().rev();
        let mut lines: Vec<_> = rules
            .map(|way| format!("rule del {}", way.words()))
            .collect();
        if found.route {
            lines.push(format!("route del {}", route()));
        }
        batch(ns, family, lines.join("\n")).await?;
    }
    Ok(())
}

/// The families the namespace can have a way back for.
fn wanted(ns: &Netns) -> Result<Vec<Family>, CaptureError> {
    Ok(match loopback_has_v6(ns)? {
        Some(true) => vec![Family::V4, Family::V6],
        Some(false) | None => vec![Family::V4],
    })
}

/// Whether IPv6 is on at the loopback interface; `None` where the kernel has none.
fn loopback_has_v6(ns: &Netns) -> Result<Option<bool>, CaptureError> {
    // /proc/sys/net shows the namespace of the thread that reads.
    let read = || fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    let entered = ns.within(read).map_err(|source| CaptureError::Namespace {
        name: ns.name().to_owned(),
        source,
    })?;
    match entered {
        Ok(disabled) => Ok(Some(disabled.trim() == "0")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaptureError::Sysctl { source }),
    }
}

async fn found(ns: &Netns, family: Family) -> Result<Found, CaptureError> {
    let words = ["-N", "-j", family.flag(), "-batch", "-"];
    let text = run(ns, Tool::Ip, &words, LOOK).await?;
    parse(&text).map_err(|source| CaptureError::Listing {
        program: Tool::Ip.name(),
        source,
    })
}

async fn batch(ns: &Netns, family: Family, lines: String) -> Result<(), CaptureError> {
    if lines.is_empty() {
        return Ok(());
    }
    let words = [family.flag(), "-batch", "-"];
    run(ns, Tool::Ip, &words, &format!("{lines}\n")).await?;
    Ok(())
}

/// Reads what `ip` prints for [`LOOK`].
fn parse(text: &str) -> Result<Found, serde_json::Error> {
    let mut arrays = Deserializer::from_str(text).into_iter::<Vec<Value>>();
    let mut next = || arrays.next().unwrap_or_else(|| Ok(Vec::new()));
    let (rules, routes, links) = (next()?, next()?, next()?);
    let ours = Ways::ALL.all().into_iter();
    Ok(Found {
        rules: ours.filter(|way| rules.iter().any(|r| way.is(r))).collect(),
        route: routes.iter().any(is_our_route),
        loopback_up: links.iter().any(is_up),
    })
}

fn is_our_route(route: &Value) -> bool {
    route["dst"].as_str() == Some("default")
        && route["dev"].as_str() == Some("lo")
        && route["table"].as_str() == Some(&TABLE.to_string())
}

fn is_up(link: &Value) -> bool {
    let flags = link["flags"].as_array();
    flags.is_some_and(|flags| flags.iter().any(|f| f.as_str() == Some("UP")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str =
        r#"{"priority":32764,"src":"all","fwmark":"0x111","fwmask":"0xfff","table":"100"}"#;
    const GUEST_RULES: &str = r#"{"priority":32760,"src":"all","iif":"lo","goto":32764},
        {"priority":32761,"src":"all","fwmark":"0x333","fwmask":"0xfff","table":"100"},
        {"priority":32762,"src":"all","fwmark":"0x600","fwmask":"0xe00","table":"100"},
        {"priority":32763,"src":"all","fwmark":"0x800","fwmask":"0x800","table":"100"}"#;
    const ROUTE: &str =
        r#"{"type":"2","dst":"default","dev":"lo","table":"100","scope":"254","flags":[]}"#;
    const LINK: &str = r#"{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"]}"#;

    #[test]
    fn only_our_rule_and_route_count() {
        let all = || Found {
            rules: ANSWERS.to_vec(),
            route: true,
            loopback_up: true,
        };
        let no_rule = || Found {
            rules: Vec::new(),
            ..all()
        };
        let other = RULE.replace("0x111", "0x112");
        let elsewhere = RULE.replace("\"100\"", "\"101\"");
        let unmasked = RULE.replace(r#","fwmask":"0xfff""#, "");
        let down = LINK.replace(r#""UP","#, "");
        let by_eth0 = ROUTE.replace("\"lo\"", "\"eth0\"");
        let no_route = Found {
            route: false,
            ..all()
        };
        let no_loopback = Found {
            loopback_up: false,
            ..all()
        };
        for (name, rule, route, link, want) in [
            ("all there", RULE, ROUTE, LINK, all()),
            ("nothing", "", "", "", Found::default()),
            ("another mark", &*other, ROUTE, LINK, no_rule()),
            ("another table", &*elsewhere, ROUTE, LINK, no_rule()),
            ("another mask", &*unmasked, ROUTE, LINK, no_rule()),
            ("another device", RULE, &*by_eth0, LINK, no_route),
            ("loopback down", RULE, ROUTE, &*down, no_loopback),
        ] {
            let text = format!("[{rule}]\n[{route}]\n[{link}]\n");
            assert_eq!(parse(&text).unwrap(), want, "{name}");
        }
    }

    #[test]
    fn rules_of_guests_and_datagrams_are_told_too() {
        let datagrams = RULE.replace("32764", "32765").replace("0x111", "0x222");
        let text = format!("[{GUEST_RULES},{RULE},{datagrams}]\n[{ROUTE}]\n[{LINK}]\n");
        assert_eq!(parse(&text).unwrap().rules, Ways::ALL.all());
        let words = GUESTS.map(Way::words);
        assert_eq!(words[0], "pref 32760 iif lo goto 32764");
        assert_eq!(words[2], "pref 32762 fwmark 0x600/0xe00 lookup 100");
        let covered = |mark: u32| {
            let by = |way: &Way| way.mark.is_some_and(|(value, mask)| mark & mask == value);
            GUESTS[2..].iter().any(by)
        };
        assert!((FIRST_MARK..=MARK_MASK).all(covered));
        assert!((0..FIRST_MARK).all(|mark| !covered(mark)));
    }

    #[test]
    fn a_cut_answer_is_an_error_or_nothing_found() {
        let text = format!("[{RULE}]\n[{ROUTE}]\n[{LINK}]\n");
        for end in 0..text.len() {
            if let Ok(found) = parse(&text[..end]) {
                let whole = end >= text.trim_end().len();
                assert!(whole || !found.loopback_up, "cut at {end}: {found:?}");
            }
        }
    }
}
