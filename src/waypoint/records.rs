//! What is counted and written of what passes, as telemetry resources say: made once per revision for what
//! they are attached to (`spec/labels-and-policy.md` §5.2, `spec/waypoint-l7.md` §6).

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::Arrival;
use super::routing::Seen;
use crate::hbone::Connector;
use crate::identity::SpiffeId;
use crate::model::expression::Expression;
use crate::model::log_format::Layout;
use crate::model::service::Service;
use crate::model::telemetry::{
    Exporter, Facts, Log, Merged, Metering, Metric, MetricChange, Setup, TagChange,
};
use crate::model::workload::Workload;
use crate::telemetry::access_log::Entry;
use crate::telemetry::files::{Files, LogFile};
use crate::telemetry::{Change, Changes, Counted, Metrics, RequestLabels, RequestSeries};

/// Sets of labels that are kept at hand; beyond, all are found anew.
const KEPT: usize = 10_000;
/// Bytes of a label's value, which a client may have a say in.
const LONGEST: usize = 256;
/// What a label says that nobody knows.
const UNKNOWN: &str = "unknown";

thread_local! {
    /// The record being written.
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What is told of the traffic for one service, or for what is addressed to workloads.
pub(super) struct Records {
    metering: Metering,
    /// Whether metrics are shown where ours are.
    counts: bool,
    /// Whether labels depend on more than what is usually counted.
    evaluates: bool,
    logs: Vec<Written>,
    /// Who this waypoint is.
    own: Option<String>,
    series: Mutex<HashMap<Key, Arc<RequestSeries>>>,
}

/// An access log.
struct Written {
    layout: Layout,
    filter: Option<Expression>,
    file: Arc<LogFile>,
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
    /// What `merged` comes to with those there are to tell.
    pub(super) fn new(
        merged: Merged,
        setup: &Setup,
        own: Option<String>,
        open: impl Fn(&Arc<str>) -> Arc<LogFile>,
    ) -> Self {
        let written = |log: Log| match setup.providers.get(&log.provider) {
            Some(Exporter::File(file)) => Some(Written {
                layout: file.layout.clone(),
                filter: log.filter,
                file: open(&file.path),
            }),
            _ => {
                // The mesh's files are checked: it is one that this build does not know.
                warn!(provider = %log.provider, "no such provider of access logs, there is none");
                None
            }
        };
        let changes = merged.metering.changes.values();
        let mut tags = changes.flat_map(|change| change.tags.values());
        Self {
            counts: setup.counts(&merged.metering),
            evaluates: tags.any(|tag| matches!(tag, TagChange::Upsert(_))),
            logs: merged.logs.into_iter().filter_map(written).collect(),
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

    /// Writes a record to each log that wants it.
    pub(super) fn write(&self, facts: &Facts<'_>) {
        for log in &self.logs {
            let wanted = log.filter.as_ref().is_none_or(|filter| filter.holds(facts));
            if !wanted {
                continue;
            }
            TEXT.with_borrow_mut(|text| {
                text.clear();
                log.layout.write(facts, text);
                log.file.write(text);
            });
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

impl<C: Connector> Arrival<C> {
    /// What is told of what arrived; none where no control plane says anything, or what it names is not
    /// told of, and nothing passes.
    pub(super) fn records(&self, seen: &Seen) -> Option<Arc<Records>> {
        let attached = seen.attached(&self.bound).ok()??;
        let files: &Files = &self.shared.files;
        attached.records(|merged, setup| {
            let own = seen.instance.identity().ok().map(|id| id.to_string());
            Records::new(merged, setup, own, |path| files.open(path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::log_format::{LogFormat, TextFormat};
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
        let none = |_: &Arc<str>| unreachable!("there is no log");
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

    #[test]
    fn only_what_the_filter_takes_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path: Arc<str> = Arc::from(dir.path().join("log").to_str().unwrap());
        let files = Files::new(Arc::default());
        let log = |filter: &str, text: &str| Written {
            layout: Layout {
                format: LogFormat::Text(TextFormat::parse(text).unwrap()),
                omit_empty: false,
            },
            filter: (!filter.is_empty()).then(|| Expression::parse(filter).unwrap()),
            file: files.open(&path),
        };
        let mut records = records(Merged::new(&Defaults::default(), &[]));
        records.logs = vec![
            log("", "all"),
            log("destination.port == 80", "port"),
            log("destination.port == 81", "other"),
            log("request.host == 'x'", "absent"),
            log("destination.port", "no truth"),
        ];
        records.write(&facts());
        drop(records);
        drop(files);
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "all\nport\n");
    }
}
