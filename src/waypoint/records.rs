//! What is counted and written of what passes, as telemetry resources say: made once per revision for what
//! they are attached to (`spec/labels-and-policy.md` §5.2, `spec/waypoint-l7.md` §6).

mod log;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::Arrival;
use super::export::Collector;
use super::http::Caller;
use super::routing::Seen;
use crate::hbone::Connector;
use crate::identity::SpiffeId;
use crate::model::expression::Expression;
use crate::model::log_format::Layout;
use crate::model::service::Service;
use crate::model::telemetry::{
    Exporter, Facts, Log as Wanted, Merged, Metering, Metric, MetricChange, Setup, TagChange,
};
use crate::model::workload::Workload;
use crate::telemetry::access_log::Entry;
use crate::telemetry::trace::SpanContext;
use crate::telemetry::{Change, Changes, Counted, Metrics, RequestLabels, RequestSeries};
use log::{Keeper, Log};

/// Sets of labels that are kept at hand; beyond, all are found anew.
const KEPT: usize = 10_000;
/// Bytes of a label's value, which a client may have a say in.
const LONGEST: usize = 256;
/// What a label says that nobody knows.
const UNKNOWN: &str = "unknown";

/// What is told of the traffic for one service, or for what is addressed to workloads.
pub(super) struct Records {
    metering: Metering,
    /// Whether metrics are shown where ours are.
    counts: bool,
    /// Whether labels depend on more than what is usually counted.
    evaluates: bool,
    logs: Vec<Log>,
    /// Who this waypoint is.
    own: Option<String>,
    series: Mutex<HashMap<Key, Arc<RequestSeries>>>,
}

/// What the labels of a request follow from.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: Option<Same<Workload>>,
    identity: Option<SpiffeId>,
    destination: Option<Same<Workload>>,
    service: Option<Same<Service>>,
    grpc: bool,
    flag: &'static str,
    code: u16,
    status: Option<u16>,
}

/// A value that is only the same as itself.
struct Same<T>(Arc<T>);

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Same<T> {}

impl<T> Hash for Same<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Key {
    /// Of a request between these ends that ended so.
    pub(super) fn new(
        entry: &Entry,
        grpc: bool,
        (flag, code, status): (&'static str, u16, Option<u16>),
    ) -> Self {
        Self {
            source: entry.source_workload.clone().map(Same),
            identity: entry.source_identity.clone(),
            destination: entry.destination_workload.clone().map(Same),
            service: entry.service.clone().map(Same),
            grpc,
            flag,
            code,
            status,
        }
    }
}

impl Records {
    /// What `merged` comes to with those there are to tell; `open` says who keeps a log.
    pub(super) fn new(
        merged: Merged,
        setup: &Setup,
        own: Option<String>,
        open: impl Fn(&Arc<str>, &Exporter) -> Option<(Layout, Keeper)>,
    ) -> Self {
        let opened = |log: Wanted| {
            let exporter = setup.providers.get(&log.provider);
            let opened = exporter.and_then(|exporter| open(&log.provider, exporter));
            let Some((layout, keeper)) = opened else {
                // The mesh's files are checked: it is one that this build does not know.
                warn!(provider = %log.provider, "no such provider of access logs, there is none");
                return None;
            };
            Some(Log {
                layout,
                filter: log.filter,
                keeper,
            })
        };
        let changes = merged.metering.changes.values();
        let mut tags = changes.flat_map(|change| change.tags.values());
        Self {
            counts: setup.counts(&merged.metering),
            evaluates: tags.any(|tag| matches!(tag, TagChange::Upsert(_))),
            logs: merged.logs.into_iter().filter_map(opened).collect(),
            metering: merged.metering,
            own,
            series: Mutex::default(),
        }
    }

    /// Whether it looks at more than what is counted anyway.
    pub(super) fn observes(&self) -> bool {
        self.evaluates || !self.logs.is_empty()
    }

    /// Who this waypoint is.
    pub(super) fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// How often connections are counted anew.
    pub(super) fn interval(&self) -> Duration {
        self.metering.interval
    }

    /// Writes a record to each log that wants it, of what belongs to `span`.
    pub(super) fn write(&self, facts: &Facts<'_>, span: Option<SpanContext>) {
        for log in &self.logs {
            log.write(facts, span);
        }
    }

    /// Counts a request, of which more is known where it is observed.
    pub(super) fn count(
        &self,
        metrics: &Metrics,
        key: Key,
        facts: Option<&Facts<'_>>,
        labels: impl FnOnce() -> RequestLabels,
        counted: &Counted,
    ) {
        if !self.counts {
            return;
        }
        if self.evaluates {
            let changes = self.changes(facts);
            return metrics.requests(&labels(), &changes).note(counted);
        }
        let mut known = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT && !known.contains_key(&key) {
            known.clear();
        }
        let series = known.entry(key).or_insert_with(|| {
            let changes = self.changes(None);
            Arc::new(metrics.requests(&labels(), &changes))
        });
        let series = Arc::clone(series);
        drop(known);
        series.note(counted);
    }

    /// How metrics differ for what `facts` are known of.
    pub(super) fn changes(&self, facts: Option<&Facts<'_>>) -> Changes {
        if !self.counts {
            let off = |(metric, _, _): &(Metric, &str, &str)| {
                let change = Change {
                    disabled: true,
                    tags: Vec::new(),
                };
                (*metric, change)
            };
            return Metric::ALL.iter().map(off).collect();
        }
        let changes = self.metering.changes.iter();
        changes
            .map(|(metric, change)| (*metric, evaluated(change, facts)))
            .collect()
    }
}

fn evaluated(change: &MetricChange, facts: Option<&Facts<'_>>) -> Change {
    let tag = |(label, tag): (&Arc<str>, &TagChange)| {
        let value = match tag {
            TagChange::Remove => None,
            TagChange::Upsert(expression) => Some(value(expression, facts)),
        };
        (Arc::clone(label), value)
    };
    Change {
        disabled: change.disabled,
        tags: change.tags.iter().map(tag).collect(),
    }
}

fn value(expression: &Expression, facts: Option<&Facts<'_>>) -> Arc<str> {
    let value = facts.and_then(|facts| expression.evaluate(facts).ok());
    let Some(value) = value else {
        return Arc::from(UNKNOWN);
    };
    let text = value.to_string();
    let whole = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=LONGEST.min(text.len())).rev().find(whole);
    Arc::from(text.get(..end.unwrap_or_default()).unwrap_or_default())
}

impl<C: Connector + Clone> Arrival<C> {
    /// What is told of what arrived; none where no control plane says anything, or what it names is not
    /// told of, and nothing passes.
    pub(super) fn records(&self, seen: &Seen) -> Option<Arc<Records>> {
        let attached = seen.attached(&self.bound).ok()??;
        attached.records(|merged, setup| self.caller().records(seen, merged, setup))
    }
}

impl<C: Connector + Clone> Caller<C> {
    /// What is told of something for which `merged` holds.
    pub(super) fn records(&self, seen: &Seen, merged: Merged, setup: &Setup) -> Records {
        let own = seen.instance.identity().ok().map(|id| id.to_string());
        Records::new(merged, setup, own, |name, is| self.keeper(name, is))
    }

    fn keeper(&self, name: &Arc<str>, is: &Exporter) -> Option<(Layout, Keeper)> {
        match is {
            Exporter::File(file) => {
                let keeper = Keeper::File(self.shared.files.open(&file.path));
                Some((file.layout.clone(), keeper))
            }
            Exporter::OtelLog { format, .. } => {
                let collector = Collector {
                    name: Arc::clone(name),
                    is: is.clone(),
                };
                let layout = Layout {
                    format: format.clone(),
                    omit_empty: false,
                };
                let sink = self.shared.exports.records(self, &collector);
                Some((layout, Keeper::Collector(sink)))
            }
            Exporter::Prometheus | Exporter::OpenTelemetry { .. } | Exporter::Zipkin { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::telemetry::Defaults;
    use crate::telemetry::{ConnectionLabels, Reporter};
    use std::collections::BTreeMap;

    fn labels(code: u16) -> RequestLabels {
        RequestLabels {
            connection: ConnectionLabels::new(Reporter::waypoint, None, None, None),
            response_code: code,
            grpc_response_status: String::new(),
        }
    }

    fn key(code: u16) -> Key {
        Key {
            source: None,
            identity: None,
            destination: None,
            service: None,
            grpc: false,
            flag: "-",
            code,
            status: None,
        }
    }

    fn facts() -> Facts<'static> {
        let address = |text: &str| text.parse().unwrap();
        Facts::of_connection(address("10.1.0.1:4711"), address("10.96.0.20:80"))
    }

    fn merged(tags: &[(&str, Option<&str>)]) -> Merged {
        let tag = |(label, value): &(&str, Option<&str>)| {
            let change = match value {
                Some(text) => TagChange::Upsert(Expression::parse(text).unwrap()),
                None => TagChange::Remove,
            };
            (Arc::from(*label), change)
        };
        let change = MetricChange {
            disabled: false,
            tags: tags.iter().map(tag).collect(),
        };
        let mut merged = Merged::new(&Defaults::default(), &[]);
        merged.metering.changes = BTreeMap::from([(Metric::RequestCount, change)]);
        merged
    }

    fn records(merged: Merged) -> Records {
        let none = |_: &Arc<str>, _: &Exporter| unreachable!("there is no log");
        Records::new(merged, &Setup::default(), None, none)
    }

    #[test]
    fn labels_say_what_their_expressions_do() {
        for (name, tags, want) in [
            ("one that goes", &[("reporter", None)][..], None),
            (
                "one that comes",
                &[("port", Some("destination.port"))],
                Some("port=\"80\""),
            ),
            (
                "one that nobody knows",
                &[("host", Some("request.host"))],
                Some("host=\"unknown\""),
            ),
        ] {
            let metrics = Metrics::default();
            let records = records(merged(tags));
            let (facts, counted) = (facts(), Counted::default());
            for _ in 0..2 {
                records.count(&metrics, key(200), Some(&facts), || labels(200), &counted);
            }
            let text = metrics.render().unwrap();
            let mut lines = text.lines();
            let line = lines.find(|l| l.starts_with("istio_requests_total"));
            let line = line.unwrap();
            assert!(line.ends_with(" 2"), "{name}: {line}");
            match want {
                Some(want) => assert!(line.contains(want), "{name}: {line}"),
                None => assert!(!line.contains("reporter"), "{name}: {line}"),
            }
        }
    }

    #[test]
    fn requests_are_counted_by_how_they_ended() {
        let metrics = Metrics::default();
        let records = records(Merged::new(&Defaults::default(), &[]));
        for code in [200, 404, 200] {
            let counted = Counted::default();
            records.count(&metrics, key(code), None, || labels(code), &counted);
        }
        assert_eq!(records.series.lock().unwrap().len(), 2);
        let text = metrics.render().unwrap();
        for (code, want) in [("200", " 2"), ("404", " 1")] {
            let code = format!("response_code=\"{code}\"");
            let of_code = |l: &&str| l.starts_with("istio_requests_total") && l.contains(&code);
            let line = text.lines().find(of_code).unwrap();
            assert!(line.ends_with(want), "{line}");
        }
    }

    #[test]
    fn nobody_counts_for_somebody_else() {
        let metrics = Metrics::default();
        let mut elsewhere = Merged::new(&Defaults::default(), &[]);
        elsewhere.metering.providers = vec![Arc::from("elsewhere")];
        let records = records(elsewhere);
        records.count(
            &metrics,
            key(200),
            None,
            || labels(200),
            &Counted::default(),
        );
        let text = metrics.render().unwrap();
        assert!(!text.contains("istio_requests_total{"), "{text}");
        let changes = records.changes(None);
        assert!(changes.values().all(|change| change.disabled));
    }
}
