//! One of our tables: chains, which stay, and what they look into, which changes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::collection::Collection;
use super::{Chain, Family, TABLE};

/// A table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::capture) struct Table {
    family: Family,
    pub(super) collections: Vec<Collection>,
    pub(super) chains: Vec<Chain>,
}

impl Table {
    pub(super) fn new(family: Family, chains: Vec<Chain>) -> Self {
        Self {
            family,
            collections: Vec::new(),
            chains,
        }
    }

    pub(in crate::capture) fn family(&self) -> Family {
        self.family
    }

    /// All of it, in nft's words.
    pub(in crate::capture) fn declared(&self) -> String {
        let family = self.family;
        let sets: String = self.collections.iter().map(Collection::to_string).collect();
        let chains: String = self.chains.iter().map(Chain::to_string).collect();
        format!("table {family} {TABLE} {{\n{sets}{chains}}}\n")
    }

    /// Whether a table as `nft` lists it in JSON has these chains, each at its hook with its policy and
    /// with these rules in this order, as their comments tell, and no others; its sets apart.
    pub(in crate::capture) fn is_listed(&self, listing: &Value) -> bool {
        let mut listed = BTreeMap::<&str, (String, Vec<&str>)>::new();
        for item in listing["nftables"].as_array().into_iter().flatten() {
            let (chain, rule) = (&item["chain"], &item["rule"]);
            if let Some(name) = chain["name"].as_str() {
                listed.entry(name).or_default().0 = base(chain);
            }
            if let Some(name) = rule["chain"].as_str() {
                let why = rule["comment"].as_str().unwrap_or_default();
                listed.entry(name).or_default().1.push(why);
            }
        }
        let wanted = self.chains.iter().map(|chain| {
            let whys = chain.rules.iter().map(|rule| rule.comment).collect();
            (chain.name, (chain.base.to_owned(), whys))
        });
        listed == wanted.collect()
    }

    /// The names of its sets and maps.
    pub(in crate::capture) fn collections(&self) -> impl Iterator<Item = &str> {
        self.collections.iter().map(|c| &*c.name)
    }

    /// The names of its sets and maps, with how much is in each.
    pub(in crate::capture) fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        let sizes = self.collections.iter();
        sizes.map(|c| (&*c.name, c.elements.len()))
    }

    /// The names of the sets and maps that hold the same as in an earlier one.
    pub(in crate::capture) fn unchanged<'a>(
        &'a self,
        from: &'a Self,
    ) -> impl Iterator<Item = &'a str> {
        let pairs = self.collections.iter().zip(&from.collections);
        let same = pairs.filter(|(now, then)| now == then);
        same.map(|(now, _)| &*now.name)
    }

    /// What makes it of an earlier one by what is in its sets and maps, each filled anew; empty where
    /// they are the same, `None` where it takes more.
    pub(super) fn refilling(&self, from: &Self) -> Option<String> {
        let changed = self.changed(from)?;
        Some(changed.map(|(now, _)| now.refilling(self.family)).collect())
    }

    /// The same by what has come and gone.
    pub(super) fn turning(&self, from: &Self) -> Option<String> {
        let changed = self.changed(from)?;
        Some(
            changed
                .map(|(now, then)| now.turning(self.family, then))
                .collect(),
        )
    }

    /// The sets and maps whose elements are others than in an earlier one, as they are and were; `None`
    /// where more than elements is.
    pub(super) fn changed<'a>(
        &'a self,
        from: &'a Self,
    ) -> Option<impl Iterator<Item = (&'a Collection, &'a Collection)>> {
        let (now, then) = (&self.collections, &from.collections);
        let alike = |(a, b): (&Collection, &Collection)| (&a.name, &a.of) == (&b.name, &b.of);
        let same = self.chains == from.chains
            && now.len() == then.len()
            && now.iter().zip(then).all(alike);
        let pairs = now.iter().zip(then);
        same.then(|| pairs.filter(|(now, then)| now.elements != then.elements))
    }
}

/// Where a chain is that `nft` lists in JSON, as it is declared; empty where other chains call it.
fn base(chain: &Value) -> String {
    let base = || {
        let [of, hook, policy] = ["type", "hook", "policy"].map(|key| chain[key].as_str());
        let (of, hook, policy) = (of?, hook?, policy?);
        let priority = chain["prio"].as_i64()?;
        Some(format!(
            "type {of} hook {hook} priority {priority}; policy {policy};"
        ))
    };
    base().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::capture::ruleset::rule;

    const BASE: &str = "type filter hook input priority -300; policy accept;";

    #[test]
    fn a_listing_is_told_from_one_that_somebody_changed() {
        let chain = |name, base, rules: &[&'static str]| Chain {
            name,
            base,
            rules: rules.iter().map(|why| rule("accept", why)).collect(),
        };
        let chains = vec![chain("a", BASE, &["one", "two"]), chain("b", "", &[])];
        let table = Table::new(Family::Inet, chains);
        let at = |hook: &str, priority: i32, policy: &str| {
            json!({ "chain": {
                "name": "a", "type": "filter", "hook": hook, "prio": priority, "policy": policy,
            } })
        };
        let called = |name: &str| json!({ "chain": { "name": name } });
        let rule = |chain: &str, why: &str| json!({ "rule": { "chain": chain, "comment": why } });
        let (a, b) = (at("input", -300, "accept"), called("b"));
        let (one, two) = (rule("a", "one"), rule("a", "two"));
        let unexplained = json!({ "rule": { "chain": "a" } });
        for (name, items, want) in [
            ("as planned", vec![&a, &b, &one, &two], true),
            ("a rule less", vec![&a, &b, &one], false),
            ("another order", vec![&a, &b, &two, &one], false),
            ("a rule more", vec![&a, &b, &unexplained, &one, &two], false),
            (
                "in another chain",
                vec![&a, &b, &one, &two, &rule("b", "")],
                false,
            ),
            ("a chain less", vec![&a, &one, &two], false),
            (
                "a chain more",
                vec![&a, &b, &called("c"), &one, &two],
                false,
            ),
            (
                "another policy",
                vec![&at("input", -300, "drop"), &b, &one, &two],
                false,
            ),
            (
                "another hook",
                vec![&at("output", -300, "accept"), &b, &one, &two],
                false,
            ),
            (
                "another priority",
                vec![&at("input", 0, "accept"), &b, &one, &two],
                false,
            ),
            ("no hook", vec![&called("a"), &b, &one, &two], false),
            ("nothing", vec![], false),
        ] {
            let listing = json!({ "nftables": items });
            assert_eq!(table.is_listed(&listing), want, "{name}");
        }
    }
}
