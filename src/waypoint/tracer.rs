//! How requests for a service are traced (`spec/waypoint-l7.md` §6.4): what telemetry resources say, in the
//! form that each request goes by.

use std::borrow::Cow;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName};

use super::Arrival;
use super::export::Collector;
use super::routing::Seen;
use crate::hbone::Connector;
use crate::model::log_format::TextFormat;
use crate::model::telemetry::{CustomTag, Exporter, Traces};
use crate::model::waypoint::Bound;
use crate::model::workload::Workload;
use crate::telemetry::batch::Sink;
use crate::telemetry::trace::{Propagation, Share, Span, Value};

/// Most octets of a text that clients write, where nobody says so.
const LONGEST: u32 = 256;

/// What holds for the traces of what is asked for.
pub(super) struct Tracer {
    /// Which headers carry the trace.
    pub(super) propagation: Propagation,
    /// Whether they are written; if not, they are left as they came.
    pub(super) propagates: bool,
    /// What is kept where nobody has decided.
    pub(super) share: Share,
    /// Where spans are told; nowhere, if they are not to be.
    pub(super) sink: Option<Arc<Sink<Span>>>,
    /// The tags that are always the same.
    pub(super) own: Vec<Tag>,
    /// Whether spans say between which workloads the request went.
    pub(super) istio_tags: bool,
    /// Tags that operators ask for, and what they are made of.
    pub(super) custom: Vec<(Arc<str>, Custom)>,
    /// Most octets of a text that clients write.
    pub(super) longest: usize,
}

impl Tracer {
    /// How `traces` has what is asked of `instance` traced, for whom it names; `sink` is where that one is
    /// told. None where it takes no spans.
    pub(super) fn new(
        traces: &Traces,
        exporter: &Exporter,
        instance: &Workload,
        sink: impl FnOnce() -> Arc<Sink<Span>>,
    ) -> Option<Self> {
        let propagation = Propagation::of(exporter)?;
        let longest = match exporter {
            Exporter::OpenTelemetry { max_tag_length, .. } => *max_tag_length,
            _ => LONGEST,
        };
        let custom = traces.custom_tags.iter();
        let custom = custom.filter_map(|(key, tag)| Some((Arc::clone(key), Custom::new(tag)?)));
        Some(Self {
            propagation,
            propagates: traces.propagates,
            share: Share::hundredths(traces.sampling.0),
            sink: traces.reports.then(sink),
            own: own(instance, traces.istio_tags),
            istio_tags: traces.istio_tags,
            custom: custom.collect(),
            longest: usize::try_from(longest).unwrap_or(usize::MAX),
        })
    }
}

impl<C: Connector + Clone> Arrival<C> {
    /// How what arrived is traced; not at all where nobody says so.
    pub(super) fn tracer(&self, seen: &Seen) -> Option<Arc<Tracer>> {
        let attached = seen.attached(&self.bound).ok()??;
        attached.tracer(|traces, exporter| {
            Tracer::new(traces, exporter, &seen.instance, || {
                let collector = Collector {
                    name: Arc::clone(&traces.provider),
                    is: exporter.clone(),
                };
                self.shared.exports.spans(&self.caller(), &collector)
            })
        })
    }
}

/// A tag by its key.
pub(super) type Tag = (Cow<'static, str>, Value);

/// What a tag is made of.
pub(super) enum Custom {
    /// It is always the same.
    Text(Arc<str>),
    /// A field of the request.
    Header {
        name: HeaderName,
        default: Option<Arc<str>>,
    },
    /// What an access log would say.
    Format(TextFormat),
}

impl Custom {
    /// What `tag` says; none where it never says anything.
    fn new(tag: &CustomTag) -> Option<Self> {
        match tag {
            CustomTag::Literal(text) => Some(Self::Text(Arc::clone(text))),
            CustomTag::Environment { name, default } => {
                // It is this process's own environment that is asked for.
                let found = std::env::var_os(&**name);
                let found = found.map(|text| Arc::from(text.to_string_lossy()));
                found.or_else(|| default.clone()).map(Self::Text)
            }
            CustomTag::Header { name, default } => Some(Self::Header {
                name: HeaderName::from_bytes(name.as_bytes()).ok()?,
                default: default.clone(),
            }),
            CustomTag::Formatter(format) => Some(Self::Format(format.clone())),
        }
    }

    /// The tag's value for a request that comes with these fields; none where there is nothing to say, or
    /// not yet.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        match self {
            Self::Text(text) => Some(Arc::clone(text)),
            Self::Header { name, default } => {
                let field = headers.get(name).and_then(|field| field.to_str().ok());
                field.map(Arc::from).or_else(|| default.clone())
            }
            Self::Format(_) => None,
        }
    }
}

/// What the span of a request for `bound` is called, as Istio's routes have it:
/// `cart.shop.mesh.internal:80/*`.
pub(super) fn operation(bound: &Bound) -> String {
    match bound {
        Bound::Service { service, asked, .. } => {
            format!("{}:{}/*", service.key.hostname, asked.port())
        }
        Bound::Workload { asked, .. } => format!("{asked}/*"),
    }
}

/// The tags by which a waypoint's instance says who it is.
pub(super) fn own(instance: &Workload, istio_tags: bool) -> Vec<Tag> {
    let address = instance.addresses.first();
    let address = address.map(ToString::to_string).unwrap_or_default();
    let (name, namespace) = (&instance.name, &instance.namespace);
    let id = format!("waypoint~{address}~{name}.{namespace}~{namespace}");
    let mut tags: Vec<Tag> = vec![
        ("component".into(), "proxy".into()),
        ("node_id".into(), id.into()),
    ];
    if istio_tags {
        let mesh = Arc::<str>::from(instance.trust_domain.to_string());
        for (key, value) in [
            ("istio.mesh_id", &mesh),
            ("istio.cluster_id", &instance.cluster_id),
            ("istio.namespace", &instance.namespace),
            ("istio.canonical_service", &instance.canonical_name),
            ("istio.canonical_revision", &instance.canonical_revision),
        ] {
            tags.push((key.into(), Arc::clone(value).into()));
        }
    }
    tags
}

/// The tags that say who is at one end of a request; `unknown` where nobody is known.
pub(super) fn end(keys: &[&'static str; 9], workload: Option<&Workload>) -> Vec<Tag> {
    let unknown = || Value::from("unknown");
    let values = match workload {
        None => std::array::from_fn(|_| unknown()),
        Some(w) => {
            let known = |text: &Arc<str>| match text.is_empty() {
                true => unknown(),
                false => Arc::clone(text).into(),
            };
            [
                known(&w.workload_name),
                known(&w.namespace),
                known(&w.cluster_id),
                known(&w.canonical_name),
                known(&w.canonical_revision),
                known(&w.canonical_name),
                known(&w.canonical_revision),
                // What workloads are to stock proxies, too.
                "deployment".into(),
                known(&w.name),
            ]
        }
    };
    let keys = keys.iter().map(|key| Cow::Borrowed(*key));
    keys.zip(values).collect()
}

/// The keys of [`end`] for the client.
pub(super) const SOURCE: [&str; 9] = [
    "istio.source_workload",
    "istio.source_namespace",
    "istio.source_cluster_id",
    "istio.source_canonical_service",
    "istio.source_canonical_revision",
    "istio.source_app",
    "istio.source_app_version",
    "istio.source_workload_type",
    "istio.source_instance_name",
];
/// The keys of [`end`] for the endpoint.
pub(super) const DESTINATION: [&str; 9] = [
    "istio.destination_workload",
    "istio.destination_namespace",
    "istio.destination_cluster_id",
    "istio.destination_canonical_service",
    "istio.destination_canonical_revision",
    "istio.destination_app",
    "istio.destination_app_version",
    "istio.destination_workload_type",
    "istio.destination_instance_name",
];

#[cfg(test)]
mod tests;
