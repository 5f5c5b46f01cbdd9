//! Replaces our tables while packets pass.
//!
//! A table that is deleted and made anew in one transaction has a moment in which it holds nobody: the
//! kernel puts a new chain before an old one of the same priority, and a packet asks at each chain which
//! generation of the rules holds. One that passes the new chain before the change and the old one after
//! it meets the rules of neither. So what stays by name and type is kept and gets another content; then
//! each chain, and each set for each look into it, is what it was or what it is to be.

use std::collections::BTreeMap;

use serde_json::Value;
use tracing::warn;

use super::error::CaptureError;
use super::listing::listed_of;
use super::netns::Netns;
use super::ruleset::{Family, TABLE};
use super::tool::{Tool, run};

/// Makes our tables of some families, in one transaction, what they are declared as in nft's words,
/// whatever they held; one that is not declared is not there afterwards.
///
/// # Errors
/// [`CaptureError`]; the tables are then as they were.
pub(super) async fn replace(
    ns: &Netns,
    tables: &[(Family, Option<String>)],
) -> Result<(), CaptureError> {
    let (mut over, mut anew) = (String::new(), String::new());
    for &(family, ref declared) in tables {
        let there = listed_of(ns, family).await?;
        let there = there.as_ref();
        let Some(declared) = declared else {
            if there.is_some() {
                over += &family.cleared();
                anew += &family.cleared();
            }
            continue;
        };
        let cleared = family.cleared();
        let kept = there.and_then(|there| keeping(family, there, declared));
        over += &format!("{}{declared}", kept.as_ref().unwrap_or(&cleared));
        anew += &format!("{cleared}{declared}");
    }
    match run(ns, Tool::Nft, &["-f", "-"], &over).await {
        // What is there differs in more than content: a chain by its hook, say.
        Err(e @ CaptureError::Refused { .. }) if over != anew => {
            warn!(error = %e, "rules cannot be given another content, they are made anew");
            run(ns, Tool::Nft, &["-f", "-"], &anew).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// The lines that leave of a table, as `nft` lists it in JSON, what is to be declared again, emptied;
/// `None` where it holds things of which we know nothing.
fn keeping(family: Family, there: &Value, declared: &str) -> Option<String> {
    let (chains, sets) = named(declared);
    let mut text = format!("flush table {family} {TABLE}\n");
    for item in there["nftables"].as_array()? {
        let Some((kind, item)) = item.as_object()?.iter().next() else {
            continue;
        };
        let name = item["name"].as_str().unwrap_or_default();
        let verb = match kind.as_str() {
            "table" | "rule" => continue,
            // One at another hook the kernel refuses: then all is made anew.
            "chain" if chains.get(name) == Some(&item["hook"].is_string()) => continue,
            "set" | "map" if sets.get(name).copied() == of(item).as_deref() => "flush",
            "chain" | "set" | "map" => "delete",
            _ => return None,
        };
        text += &format!("{verb} {kind} {family} {TABLE} {name}\n");
    }
    Some(text)
}

/// The chains of declared tables, each with whether it is at a hook, and their sets with the type of each.
fn named(declared: &str) -> (BTreeMap<&str, bool>, BTreeMap<&str, &str>) {
    let (mut chains, mut sets) = (BTreeMap::new(), BTreeMap::new());
    let mut lines = declared.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let name = |kind| line.strip_prefix(kind)?.strip_suffix(" {");
        if let Some(chain) = name("chain ") {
            let hooked = lines.peek().is_some_and(|line| line.starts_with("type "));
            chains.insert(chain, hooked);
        } else if let Some(set) = name("set ").or_else(|| name("map ")) {
            let of = lines.next().and_then(|line| line.strip_prefix("type "));
            sets.insert(set, of.unwrap_or_default().trim_end_matches(';'));
        }
    }
    (chains, sets)
}

/// The type of a listed set as it is declared, if it is one of our kind.
fn of(set: &Value) -> Option<String> {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let words = |value: &Value| match value.as_array() {
        Some(parts) => Some(
            parts
                .iter()
                .map(word)
                .collect::<Option<Vec<_>>>()?
                .join(" . "),
        ),
        None => word(value),
    };
    let key = words(&set["type"])?;
    match &set["map"] {
        _ if set.get("flags").is_some() => None,
        Value::Null => Some(key),
        value => Some(format!("{key} : {}", words(value)?)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DECLARED: &str = "table inet lateen {\n\
        \tset targets {\n\t\ttype ipv4_addr . inet_service;\n\t\telements = { 192.0.2.1 . 80 }\n\t}\n\
        \tmap units {\n\t\ttype cgroupsv2 : mark;\n\t}\n\
        \tchain outbound {\n\t\ttype nat hook output priority -100; policy accept;\n\t}\n\
        \tchain workloads {\n\t\taccept\n\t}\n}\n";

    #[test]
    fn what_stays_is_emptied_and_what_goes_is_deleted() {
        let pair = json!(["ipv4_addr", "inet_service"]);
        let hooked = |name: &str| json!({ "chain": { "name": name, "hook": "output" } });
        for (name, item, want) in [
            ("a chain that stays", hooked("outbound"), Some("")),
            (
                "a chain that others call",
                json!({ "chain": { "name": "workloads" } }),
                Some(""),
            ),
            (
                "one at no hook that belongs to one",
                json!({ "chain": { "name": "outbound" } }),
                Some("delete chain inet lateen outbound\n"),
            ),
            (
                "one at a hook that others should call",
                hooked("workloads"),
                Some("delete chain inet lateen workloads\n"),
            ),
            (
                "a chain that goes",
                json!({ "chain": { "name": "old" } }),
                Some("delete chain inet lateen old\n"),
            ),
            (
                "a rule goes with all of them",
                json!({ "rule": { "chain": "outbound" } }),
                Some(""),
            ),
            (
                "a set that stays",
                json!({ "set": { "name": "targets", "type": pair } }),
                Some("flush set inet lateen targets\n"),
            ),
            (
                "a map that stays",
                json!({ "map": { "name": "units", "type": "cgroupsv2", "map": "mark" } }),
                Some("flush map inet lateen units\n"),
            ),
            (
                "a set of another type",
                json!({ "set": { "name": "targets", "type": "ipv6_addr" } }),
                Some("delete set inet lateen targets\n"),
            ),
            (
                "a map to something else",
                json!({ "map": { "name": "units", "type": "cgroupsv2", "map": "verdict" } }),
                Some("delete map inet lateen units\n"),
            ),
            (
                "a set that somebody gave ranges",
                json!({ "set": { "name": "targets", "type": pair, "flags": ["interval"] } }),
                Some("delete set inet lateen targets\n"),
            ),
            (
                "a set that goes",
                json!({ "set": { "name": "old", "type": "mark" } }),
                Some("delete set inet lateen old\n"),
            ),
            (
                "what is not ours",
                json!({ "flowtable": { "name": "fast" } }),
                None,
            ),
        ] {
            let table = json!({ "table": { "name": "lateen" } });
            let there = json!({ "nftables": [{}, table, item] });
            let want = want.map(|rest| format!("flush table inet lateen\n{rest}"));
            assert_eq!(keeping(Family::Inet, &there, DECLARED), want, "{name}");
        }
    }
}
