//! The way back: packets that [`super::ruleset`] marks are for this host, whatever their address,
//! so that answers to a client end in the socket that the proxy opened in its name
//! (`spec/hbone-dataplane.md` §6.2).

use std::fs;
use std::io;

use serde_json::{Deserializer, Value};

use super::apply::CaptureError;
use super::netns::Netns;
use super::ruleset::{MARK_MASK, RETURN_MARK};
use super::tool::{Tool, run};

/// Preference of the routing rule.
const PREFERENCE: u32 = 32764;
/// Routing table of the rule.
const TABLE: u32 = 100;
/// What redirection takes, and a namespace does not have when it is made.
pub(super) const LOOPBACK_UP: &str = "link set lo up";
/// Prints what [`Found`] is made of: each line makes one array.
const LOOK: &str = "rule show\nroute show table all type local default\nlink show dev lo\n";

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    rule: bool,
    route: bool,
    loopback_up: bool,
}

fn rule() -> String {
    format!("pref {PREFERENCE} fwmark {RETURN_MARK:#x}/{MARK_MASK:#x} lookup {TABLE}")
}

fn route() -> String {
    format!("local default dev lo table {TABLE}")
}

/// The commands that make the way back of one family, with the flag that names it.
pub(super) fn commands(family: Family) -> [String; 2] {
    let flag = family.flag();
    [
        format!("{flag} rule add {}", rule()),
        format!("{flag} route replace {}", route()),
    ]
}

/// Adds what is missing.
pub(super) async fn ensure(ns: &Netns) -> Result<(), CaptureError> {
    // Routes by way of an interface that is down are refused.
    if !found(ns, Family::V4).await?.loopback_up {
        batch(ns, Family::V4, LOOPBACK_UP.to_owned()).await?;
    }
    for family in wanted(ns)? {
        let found = found(ns, family).await?;
        let mut lines = Vec::new();
        if !found.rule {
            lines.push(format!("rule add {}", rule()));
        }
        if !found.route {
            lines.push(format!("route replace {}", route()));
        }
        batch(ns, family, lines.join("\n")).await?;
    }
    Ok(())
}

/// Whether nothing is missing.
pub(super) async fn in_place(ns: &Netns) -> Result<bool, CaptureError> {
    for family in wanted(ns)? {
        let found = found(ns, family).await?;
        if !(found.rule && found.route && found.loopback_up) {
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
        let mut lines = Vec::new();
        if found.rule {
            lines.push(format!("rule del {}", rule()));
        }
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
    Ok(Found {
        rule: rules.iter().any(is_our_rule),
        route: routes.iter().any(is_our_route),
        loopback_up: links.iter().any(is_up),
    })
}

fn is_our_rule(rule: &Value) -> bool {
    let hexadecimal = |key: &str, value: u32| rule[key].as_str() == Some(&format!("{value:#x}"));
    rule["priority"].as_u64() == Some(PREFERENCE.into())
        && hexadecimal("fwmark", RETURN_MARK)
        && hexadecimal("fwmask", MARK_MASK)
        && rule["table"].as_str() == Some(&TABLE.to_string())
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
    const ROUTE: &str =
        r#"{"type":"2","dst":"default","dev":"lo","table":"100","scope":"254","flags":[]}"#;
    const LINK: &str = r#"{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"]}"#;

    #[test]
    fn only_our_rule_and_route_count() {
        let all = Found {
            rule: true,
            route: true,
            loopback_up: true,
        };
        let other = RULE.replace("0x111", "0x112");
        let elsewhere = RULE.replace("\"100\"", "\"101\"");
        let unmasked = RULE.replace(r#","fwmask":"0xfff""#, "");
        let down = LINK.replace(r#""UP","#, "");
        let by_eth0 = ROUTE.replace("\"lo\"", "\"eth0\"");
        for (name, rule, route, link, want) in [
            ("all there", RULE, ROUTE, LINK, all),
            ("nothing", "", "", "", Found::default()),
            (
                "another mark",
                &*other,
                ROUTE,
                LINK,
                Found { rule: false, ..all },
            ),
            (
                "another table",
                &*elsewhere,
                ROUTE,
                LINK,
                Found { rule: false, ..all },
            ),
            (
                "another mask",
                &*unmasked,
                ROUTE,
                LINK,
                Found { rule: false, ..all },
            ),
            (
                "another device",
                RULE,
                &*by_eth0,
                LINK,
                Found {
                    route: false,
                    ..all
                },
            ),
            (
                "loopback down",
                RULE,
                ROUTE,
                &*down,
                Found {
                    loopback_up: false,
                    ..all
                },
            ),
        ] {
            let text = format!("[{rule}]\n[{route}]\n[{link}]\n");
            assert_eq!(parse(&text).unwrap(), want, "{name}");
        }
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
