//! `metrics` of a telemetry.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{Mode, Scope, Use, expression, mode_in, names};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{did_you_mean, no_effect};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::telemetry::{Metric, Metrics, Override, TagChange};

/// Bounds of `reporting-interval`.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// What stands for every metric.
const ALL: &str = "ALL_METRICS";

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<(Mode, Metrics)> {
    let table = value.nested()?;
    let providers = scope.providers(&table, Use::Metrics);
    let overrides = table.optional("overrides", |value| value.list(change));
    let overrides = overrides.unwrap_or_default().into_iter();
    let of_servers = overrides.filter(|(mode, _)| *mode != Mode::Client);
    let metrics = Metrics {
        providers: names(&providers),
        overrides: of_servers.filter_map(|(_, change)| change).collect(),
        reporting_interval: table.optional("reporting-interval", |value| {
            scalar::duration(value, INTERVAL)
        }),
    };
    table.finish();
    Some((Mode::Both, metrics))
}

/// A change; none where it is of a metric that nobody counts.
fn change(value: &Value<'_>) -> Option<(Mode, Option<Override>)> {
    let table = value.nested()?;
    let (mode, metric) = match table.value("match") {
        Some(value) => {
            let table = value.nested()?;
            let mode = mode_in(&table);
            let metric = metric(&table);
            table.finish();
            (mode, metric)
        }
        None => (Mode::Both, Some(None)),
    };
    let disabled = table.optional("disabled", Value::boolean);
    let tags = table.optional("tag-overrides", tags).unwrap_or_default();
    table.finish();
    let change = metric.map(|metric| Override {
        metric,
        disabled,
        tags,
    });
    Some((mode, change))
}

/// The metric that is meant, or all; none where that is none.
fn metric(table: &Table<'_>) -> Option<Option<Metric>> {
    let standard = table.value("metric");
    let custom = table.value("custom-metric");
    match (standard, custom) {
        (None, None) => Some(None),
        (Some(value), None) => {
            let mut choices = Metric::ALL
                .map(|(metric, name, _)| (name, Some(metric)))
                .to_vec();
            choices.push((ALL, None));
            scalar::choice(&value, &choices)
        }
        (None, Some(value)) => {
            let name = value.text()?;
            let found = Metric::shown_as(name);
            if found.is_none() {
                let known = Metric::ALL.map(|(_, _, shown)| shown);
                let message = format!("{}: nobody counts `{name}`", table.what());
                let meant = did_you_mean(name, known);
                let help = meant.unwrap_or_else(|| {
                    "name one of Istio's metrics, as in `istio_requests_total`".to_owned()
                });
                no_effect(table, value.place().clone(), message, &help);
            }
            found.map(Some)
        }
        (Some(standard), Some(custom)) => {
            let message = format!("{} is of two metrics", table.what());
            table.report(
                Diagnostic::new(Code::ConflictingKeys, custom.place().clone(), message)
                    .label("one of the two")
                    .related(standard.place().clone(), "the other")
                    .help("keep the one that is meant"),
            );
            None
        }
    }
}

fn tags(value: &Value<'_>) -> Option<BTreeMap<Arc<str>, TagChange>> {
    let table = value.nested()?;
    let tag = |(name, value): (At<&str>, Value<'_>)| {
        let legal = is_label(&table, &name);
        let change = tag(&value)?;
        legal.then(|| (Arc::from(name.value), change))
    };
    Some(table.entries().filter_map(tag).collect())
}

/// Whether Prometheus lets a label be called so.
fn is_label(table: &Table<'_>, name: &At<&str>) -> bool {
    let text = name.value;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let legal = text.bytes().all(letters)
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        && !text.starts_with("__")
        && text != "le"
        && text.len() <= 128;
    if !legal {
        let message = format!("{}: `{text}` cannot be a label", table.what());
        table.report(
            Diagnostic::new(Code::BadName, name.place.clone(), message)
                .label("not a label")
                .help("use letters, digits and underscores, with neither a digit nor two underscores in front"),
        );
    }
    legal
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Upsert,
    Remove,
}

const OPERATIONS: [(&str, Operation); 2] =
    [("UPSERT", Operation::Upsert), ("REMOVE", Operation::Remove)];

fn tag(value: &Value<'_>) -> Option<TagChange> {
    let table = value.nested()?;
    let operation = table.optional("operation", |value| scalar::choice(value, &OPERATIONS));
    let operation = operation.unwrap_or(Operation::Upsert);
    let change = match operation {
        Operation::Upsert => {
            let value = table.required("value", "value = \"request.host\"", expression);
            value.map(TagChange::Upsert)
        }
        Operation::Remove => {
            if let Some(value) = table.value("value") {
                let message = format!("{}: what goes has no value", table.what());
                no_effect(&table, value.place().clone(), message, "take it out");
            }
            Some(TagChange::Remove)
        }
    };
    table.finish();
    change
}
