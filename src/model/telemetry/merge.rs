//! What telemetry resources come to together, from the widest to the most specific
//! (`spec/labels-and-policy.md` §5.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{
    CustomTag, ENVOY, Logging, Metric, Metrics, Override, PROMETHEUS, Sampling, Sections,
    TagChange, Tracing,
};
use crate::model::expression::Expression;

/// How often connections are counted anew, unless a resource says otherwise (`spec/waypoint-l7.md`
/// §6.2).
const INTERVAL: Duration = Duration::from_secs(15);

/// What holds in a mesh before any resource: its `default-providers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// To whom spans are told.
    pub tracing: Vec<Arc<str>>,
    /// To whom metrics are shown; to Prometheus where nobody is named.
    pub metrics: Vec<Arc<str>>,
    /// Who writes access logs.
    pub access_logging: Vec<Arc<str>>,
    /// Whether the mesh has an `access-log-file`, which is written where nobody else is named.
    pub file: bool,
}

/// What is told of the traffic for a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The spans; absent, there are none and the headers of traces pass untouched.
    pub traces: Option<Traces>,
    /// The metrics.
    pub metering: Metering,
    /// The access logs that are written, by provider.
    pub logs: Vec<Log>,
}

/// What spans are told and of which requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// To whom.
    pub provider: Arc<str>,
    /// Of which share of the requests of which nobody has decided.
    pub sampling: Sampling,
    /// Whether spans are told; the decision is passed on all the same.
    pub reports: bool,
    /// Tags beside the usual ones.
    pub custom_tags: BTreeMap<Arc<str>, CustomTag>,
    /// Whether spans bear Istio's own tags.
    pub istio_tags: bool,
    /// Whether the headers of the trace are written for whoever is next.
    pub propagates: bool,
}

/// What is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metering {
    /// To whom it is shown.
    pub providers: Vec<Arc<str>>,
    /// How metrics differ from the standard ones.
    pub changes: BTreeMap<Metric, MetricChange>,
    /// How often connections are counted anew.
    pub interval: Duration,
}

/// How a metric differs from the standard one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricChange {
    /// It is not counted.
    pub disabled: bool,
    /// What becomes of its labels.
    pub tags: BTreeMap<Arc<str>, TagChange>,
}

/// An access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Who writes it.
    pub provider: Arc<str>,
    /// What is written; everything where absent.
    pub filter: Option<Expression>,
}

impl Merged {
    /// Merges `levels`, the widest first.
    pub fn new<'a>(
        defaults: &Defaults,
        levels: impl IntoIterator<Item = &'a Sections> + Clone,
    ) -> Self {
        let tracing = levels.clone().into_iter().flat_map(|level| &level.tracing);
        let metrics = levels.clone().into_iter().flat_map(|level| &level.metrics);
        let logging = levels.into_iter().map(|level| &*level.logging);
        let logging: Vec<&[Logging]> = logging.collect();
        Self {
            traces: traces(&defaults.tracing, tracing),
            metering: metering(&defaults.metrics, metrics),
            logs: logs(defaults, &logging),
        }
    }
}

/// Each field as the last one says that has a word on it.
fn traces<'a>(defaults: &[Arc<str>], levels: impl Iterator<Item = &'a Tracing>) -> Option<Traces> {
    let mut merged = Tracing {
        providers: defaults.to_vec(),
        ..Tracing::default()
    };
    for level in levels {
        if !level.providers.is_empty() {
            merged.providers.clone_from(&level.providers);
        }
        if level.custom_tags.is_some() {
            merged.custom_tags.clone_from(&level.custom_tags);
        }
        merged.sampling = level.sampling.or(merged.sampling);
        let reporting = &mut merged.disable_span_reporting;
        *reporting = level.disable_span_reporting.or(*reporting);
        merged.enable_istio_tags = level.enable_istio_tags.or(merged.enable_istio_tags);
        let propagation = &mut merged.disable_context_propagation;
        *propagation = level.disable_context_propagation.or(*propagation);
    }
    Some(Traces {
        provider: merged.providers.into_iter().next()?,
        sampling: merged.sampling.unwrap_or(Sampling::USUAL),
        reports: !merged.disable_span_reporting.unwrap_or(false),
        custom_tags: merged.custom_tags.unwrap_or_default(),
        istio_tags: merged.enable_istio_tags.unwrap_or(true),
        propagates: !merged.disable_context_propagation.unwrap_or(false),
    })
}

/// The last that name providers win; what is changed adds up.
fn metering<'a>(defaults: &[Arc<str>], levels: impl Iterator<Item = &'a Metrics>) -> Metering {
    let mut metering = Metering {
        providers: match defaults {
            [] => vec![Arc::from(PROMETHEUS)],
            named => named.to_vec(),
        },
        changes: BTreeMap::new(),
        interval: INTERVAL,
    };
    for level in levels {
        if !level.providers.is_empty() {
            metering.providers.clone_from(&level.providers);
        }
        metering.interval = level.reporting_interval.unwrap_or(metering.interval);
        for change in &level.overrides {
            let all = Metric::ALL.iter().map(|(metric, _, _)| *metric);
            let meant = all.filter(|metric| change.metric.is_none_or(|one| one == *metric));
            for metric in meant {
                apply(metering.changes.entry(metric).or_default(), change);
            }
        }
    }
    let changed = |change: &MetricChange| *change != MetricChange::default();
    metering.changes.retain(|_, change| changed(change));
    metering
}

fn apply(to: &mut MetricChange, change: &Override) {
    to.disabled = change.disabled.unwrap_or(to.disabled);
    for (label, tag) in &change.tags {
        to.tags.insert(Arc::clone(label), tag.clone());
    }
}

/// The last level that names providers wins. What is said of a provider is said of it alone; who names
/// none speaks of those named before.
fn logs(defaults: &Defaults, levels: &[&[Logging]]) -> Vec<Log> {
    let of_mesh = match &*defaults.access_logging {
        [] if defaults.file => vec![Arc::from(ENVOY)],
        named => named.to_vec(),
    };
    let named = |level: &&[Logging]| {
        let named: BTreeSet<Arc<str>> = level.iter().flat_map(|l| &l.providers).cloned().collect();
        (!named.is_empty()).then_some(named)
    };
    let holding = levels.iter().rev().find_map(named);
    let holding = holding.unwrap_or_else(|| of_mesh.iter().cloned().collect());
    let all = |providers: &[Arc<str>]| {
        let held = providers.iter().filter(|name| holding.contains(*name));
        held.cloned().map(|name| (name, None)).collect()
    };
    let mut written: BTreeMap<Arc<str>, Option<Expression>> = all(&of_mesh);
    let mut meant = &of_mesh;
    for rule in levels.iter().copied().flatten() {
        if !rule.providers.is_empty() {
            meant = &rule.providers;
        }
        for provider in meant.iter().filter(|name| holding.contains(*name)) {
            match rule.disabled {
                true => drop(written.remove(provider)),
                false => drop(written.insert(Arc::clone(provider), rule.filter.clone())),
            }
        }
    }
    let logs = written.into_iter();
    logs.map(|(provider, filter)| Log { provider, filter })
        .collect()
}

#[cfg(test)]
mod tests;
