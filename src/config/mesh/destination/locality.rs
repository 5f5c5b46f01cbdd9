//! `locality-lb-setting` (§3.6).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::suggest;
use crate::model::balance::KNOWN_LABELS;
use crate::model::traffic::{Distribute, LocalityPolicy};

pub(in crate::config::mesh) fn read(value: &Value<'_>) -> Option<LocalityPolicy> {
    let table = value.nested()?;
    let enabled = table.optional("enabled", Value::boolean).unwrap_or(true);
    let distribute = table.value("distribute");
    let failover = table.value("failover");
    let priority = table.value("failover-priority");
    for (key, other) in [("failover", &failover), ("failover-priority", &priority)] {
        if let (Some(_), Some(other)) = (&distribute, other) {
            other.reject(
                Code::ConflictingKeys,
                "stands beside `distribute`",
                "one of the two",
                format!(
                    "keep fixed shares (`distribute`) or `{key}`: with shares nothing fails over"
                ),
            );
        }
    }
    let distribute = distribute.and_then(|value| value.list(read_distribute));
    let failover = failover.and_then(|value| read_failover(&value));
    let failover_priority = priority.and_then(|value| value.list(label));
    table.finish();
    Some(LocalityPolicy {
        enabled,
        distribute: distribute.unwrap_or_default(),
        failover: failover.unwrap_or_default(),
        failover_priority: failover_priority.unwrap_or_default(),
    })
}

/// `region/zone/subzone`, its end left out or `*` for any.
fn locality(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    let star = parts.iter().position(|part| *part == "*");
    let at_end = star.is_none_or(|at| at + 1 == parts.len());
    at_end && parts.len() <= 3 && parts.iter().all(|part| !part.is_empty())
}

fn judged_locality(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    if !locality(text) {
        value.bad(
            &format!("is not a locality: {text:?}"),
            "not a locality",
            "write `\"region\"`, `\"region/zone\"` or `\"region/zone/subzone\"`, with `*` for any at its end",
        );
        return None;
    }
    Some(Arc::from(text))
}

fn read_distribute(value: &Value<'_>) -> Option<Distribute> {
    let table = value.nested()?;
    let from = table.required("from", "from = \"eu/rack-1/*\"", judged_locality);
    let to = table.required(
        "to",
        "to = { \"eu/rack-1/*\" = 80, \"eu/rack-2/*\" = 20 }",
        shares,
    );
    table.finish();
    Some(Distribute {
        from: from?,
        to: to?,
    })
}

fn shares(value: &Value<'_>) -> Option<Vec<(Arc<str>, u32)>> {
    let table = value.nested()?;
    let mut shares = Vec::new();
    for (key, value) in table.entries() {
        if !locality(key.value) {
            let message = format!("{}: {:?} is not a locality", table.what(), key.value);
            table.report(
                Diagnostic::new(Code::BadValue, key.place, message)
                    .label("not a locality")
                    .help("write `region/zone/subzone`, with `*` for any at its end"),
            );
            continue;
        }
        let percent = value.count(1..=100)?;
        shares.push((Arc::from(key.value), percent));
    }
    let sum: u32 = shares.iter().map(|(_, percent)| percent).sum();
    if sum != 100 {
        value.bad(
            &format!("adds up to {sum} percent"),
            "not 100",
            "write shares that add up to 100",
        );
        return None;
    }
    Some(shares)
}

fn read_failover(value: &Value<'_>) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let mut seen = BTreeMap::new();
    value.list(|value| {
        let table = value.nested()?;
        let from = table.required("from", "from = \"eu\"", region);
        let to = table.required("to", "to = \"us\"", region);
        table.finish();
        let (from, to) = (from?, to?);
        judge_pair(&table, &from, &to);
        if seen.insert(Arc::clone(&from), ()).is_some() {
            let message = format!("{}: region `{from}` fails over twice", table.what());
            table.report(
                Diagnostic::new(Code::DuplicateName, table.place().clone(), message)
                    .label("again")
                    .help("keep one of the two"),
            );
        }
        Some((from, to))
    })
}

fn judge_pair(table: &Table<'_>, from: &Arc<str>, to: &Arc<str>) {
    if from == to {
        let message = format!("{}: `{from}` fails over to itself", table.what());
        table.report(
            Diagnostic::new(Code::BadValue, table.place().clone(), message)
                .label("no other region")
                .help("name the region that takes over"),
        );
    }
}

fn region(value: &Value<'_>) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    if text.contains(['/', '*']) {
        value.bad(
            &format!("is not a region: {text:?}"),
            "not a region",
            "name a region alone: within one, failover is by zone and subzone anyway",
        );
        return None;
    }
    Some(Arc::from(text))
}

/// A label that a waypoint knows of its endpoints.
fn label(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    if !KNOWN_LABELS.contains(&text) {
        let known = suggest::listed(KNOWN_LABELS);
        value.unsupported(&format!("a waypoint knows of endpoints only {known}"));
        return None;
    }
    Some(Arc::from(text))
}
