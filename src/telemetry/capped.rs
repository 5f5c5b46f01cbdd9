//! Metrics by their labels, of which there are no more than a limit: what clients have a say in must not
//! fill a waypoint's memory, nor that of whoever reads its metrics (`spec/waypoint-l7.md` §6.2).

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};

use crate::model::telemetry::Metric;

/// Series of one metric.
const MOST: usize = 10_000;
/// What labels say of what is beyond.
const OVERFLOW: &str = "overflow";

/// A label and its value.
pub type Pair = (Arc<str>, Arc<str>);

/// A set of labels that can be changed.
pub trait Pairs: Clone + Eq + Hash {
    /// Each of them, in order.
    fn pairs(&self) -> Vec<Pair>;
}

/// Labels as they usually are, or otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Labels<T> {
    /// As they usually are.
    Standard(T),
    /// As telemetry resources say.
    Changed(Vec<Pair>),
}

/// How the metrics of one request or connection differ from the standard ones.
pub type Changes = BTreeMap<Metric, Change>;

/// How one metric does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// It is not counted.
    pub disabled: bool,
    /// The values that labels have instead; none of those that go.
    pub tags: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl<T: Pairs> Labels<T> {
    /// Those of a metric, with what is changed about it; none where it is not counted.
    pub fn of(labels: &T, change: Option<&Change>) -> Option<Self> {
        let Some(change) = change else {
            return Some(Self::Standard(labels.clone()));
        };
        if change.disabled {
            return None;
        }
        if change.tags.is_empty() {
            return Some(Self::Standard(labels.clone()));
        }
        let mut pairs = labels.pairs();
        for (label, value) in &change.tags {
            let known = pairs.iter().position(|(known, _)| known == label);
            match (known, value) {
                (Some(at), None) => drop(pairs.remove(at)),
                (None, None) => {}
                (Some(at), Some(value)) => {
                    if let Some((_, old)) = pairs.get_mut(at) {
                        *old = Arc::clone(value);
                    }
                }
                (None, Some(value)) => pairs.push((Arc::clone(label), Arc::clone(value))),
            }
        }
        Some(Self::Changed(pairs))
    }

    /// The same labels, of all that there is no room for.
    fn overflow(&self) -> Self {
        let pairs = match self {
            Self::Standard(labels) => labels.pairs(),
            Self::Changed(pairs) => pairs.clone(),
        };
        let overflow: Arc<str> = Arc::from(OVERFLOW);
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(label, _)| (label, Arc::clone(&overflow)));
        Self::Changed(pairs.collect())
    }
}

impl<T: EncodeLabelSet> EncodeLabelSet for Labels<T> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Standard(labels) => labels.encode(encoder),
            Self::Changed(pairs) => pairs.encode(encoder),
        }
    }
}

/// A metric by its labels. Clones are the same.
pub(super) struct Capped<T, M, C = fn() -> M> {
    family: Family<Labels<T>, M, C>,
    count: Arc<AtomicUsize>,
    most: usize,
}

impl<T: Clone + Eq + Hash, M, C: Clone> Clone for Capped<T, M, C> {
    fn clone(&self) -> Self {
        Self {
            family: self.family.clone(),
            count: Arc::clone(&self.count),
            most: self.most,
        }
    }
}

impl<T: Pairs, M: Clone, C: MetricConstructor<M> + Clone> Capped<T, M, C> {
    pub(super) fn new(constructor: C) -> Self {
        Self {
            family: Family::new_with_constructor(constructor),
            count: Arc::default(),
            most: MOST,
        }
    }

    /// What is to be registered.
    pub(super) fn family(&self) -> Family<Labels<T>, M, C> {
        self.family.clone()
    }

    /// The metric of these labels.
    pub(super) fn of(&self, labels: &Labels<T>) -> M {
        if let Some(known) = self.family.get(labels) {
            return M::clone(&known);
        }
        // Two at once may count one twice, which costs a place of ten thousand.
        if self.count.fetch_add(1, Ordering::Relaxed) < self.most {
            return self.family.get_or_create_owned(labels);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.family.get_or_create_owned(&labels.overflow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;

    #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Two {
        a: &'static str,
        b: String,
    }

    impl Pairs for Two {
        fn pairs(&self) -> Vec<Pair> {
            let pair = |label: &str, value: &str| (Arc::from(label), Arc::from(value));
            vec![pair("a", self.a), pair("b", &self.b)]
        }
    }

    #[test]
    fn labels_are_changed_as_they_are_told() {
        let labels = Two {
            a: "1",
            b: "2".to_owned(),
        };
        let tag = |label: &str, value: Option<&str>| (Arc::from(label), value.map(Arc::from));
        let changed = |tags: &[(Arc<str>, Option<Arc<str>>)]| Change {
            disabled: false,
            tags: tags.to_vec(),
        };
        let off = Change {
            disabled: true,
            tags: vec![tag("a", None)],
        };
        for (name, change, want) in [
            ("nothing", changed(&[]), Some("a=\"1\",b=\"2\"")),
            ("one goes", changed(&[tag("a", None)]), Some("b=\"2\"")),
            (
                "one that is not there goes",
                changed(&[tag("c", None)]),
                Some("a=\"1\",b=\"2\""),
            ),
            (
                "one comes, one is another",
                changed(&[tag("c", Some("3")), tag("b", Some("x\"\n"))]),
                Some("a=\"1\",b=\"x\\\"\\n\",c=\"3\""),
            ),
            ("off", off, None),
        ] {
            let mut registry = Registry::default();
            let counters: Capped<Two, Counter> = Capped::new(Counter::default);
            registry.register("n", "N", counters.family());
            let labels = Labels::of(&labels, Some(&change));
            if let Some(labels) = &labels {
                counters.of(labels).inc();
            }
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let line = want.map(|want| format!("n_total{{{want}}} 1"));
            let got = text.lines().find(|line| line.starts_with("n_total"));
            assert_eq!(got, line.as_deref(), "{name}: {text}");
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_together() {
        let mut counters: Capped<Two, Counter> = Capped::new(Counter::default);
        counters.most = 3;
        let labels = |b: u32| {
            Labels::Standard(Two {
                a: "1",
                b: b.to_string(),
            })
        };
        for b in [0, 1, 2, 3, 4, 0, 3] {
            counters.of(&labels(b)).inc();
        }
        assert_eq!(counters.of(&labels(0)).get(), 2);
        assert_eq!(counters.of(&labels(2)).get(), 1);
        assert_eq!(counters.of(&labels(9)).get(), 3);
        let mut text = String::new();
        let mut registry = Registry::default();
        registry.register("n", "N", counters.family());
        encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("n_total{a=\"overflow\",b=\"overflow\"} 3"),
            "{text}"
        );
    }
}
