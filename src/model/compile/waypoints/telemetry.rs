//! Which telemetry holds for a service behind a waypoint, and whom the waypoint can tell
//! (`spec/labels-and-policy.md` §5.2).

use std::collections::HashMap;
use std::sync::Arc;

use super::World;
use super::sites::{Is, Site};
use super::targets::{Attachable as _, Targets};
use crate::model::declaration::{
    Attachment, FileAccessLog, Origin, Provider, ProviderKind, ProviderService, Settings,
    TargetKind, Telemetry,
};
use crate::model::log_format::{Layout, LogFormat};
use crate::model::route::{BackendKind, BackendRef, Target};
use crate::model::telemetry::{self as told, Defaults, ENVOY, Exporter, PROMETHEUS, Setup};
use crate::model::waypoint::WaypointName;

/// The telemetry of a mesh.
pub(super) struct Levels<'a> {
    root: &'a str,
    /// The oldest of each namespace that is for all of it.
    wide: HashMap<&'a str, &'a Telemetry>,
    targeted: Targets<'a, Telemetry>,
}

impl<'a> Levels<'a> {
    pub(super) fn new(all: &'a [Telemetry], root: &'a str) -> Self {
        let mut wide: HashMap<&str, &Telemetry> = HashMap::new();
        let for_all = all.iter().filter(|t| t.attachment == Attachment::Namespace);
        for telemetry in for_all {
            let oldest = wide.entry(&telemetry.namespace).or_insert(telemetry);
            if telemetry.origin < oldest.origin {
                *oldest = telemetry;
            }
        }
        Self {
            root,
            wide,
            targeted: Targets::new(all, root),
        }
    }

    /// What holds for a service behind a waypoint, or without one for what is addressed to workloads:
    /// the widest first, and of those with targets the ones for the service last.
    pub(super) fn on(
        &self,
        waypoint: &WaypointName,
        site: Option<&Site<'a>>,
    ) -> Vec<&'a Telemetry> {
        let of_site = site.map(|site| match site.is {
            Is::Service(service) => &*service.namespace,
            Is::Entry(entry) => &*entry.namespace,
        });
        let mut namespaces = vec![self.root, &*waypoint.namespace];
        namespaces.extend(of_site);
        let mut levels: Vec<&Telemetry> = Vec::new();
        for namespace in namespaces {
            let wide = self.wide.get(namespace).copied();
            let new = wide.filter(|wide| !levels.iter().any(|known| std::ptr::eq(*known, *wide)));
            levels.extend(new);
        }
        let mut targeted = self.targeted.on(waypoint, site);
        targeted.sort_by_key(|telemetry| closeness(telemetry, waypoint, site));
        levels.extend(targeted);
        levels
    }
}

/// How near what a telemetry is for is to a service: all waypoints, this waypoint, the service.
fn closeness(telemetry: &Telemetry, waypoint: &WaypointName, site: Option<&Site<'_>>) -> u8 {
    let Attachment::Targets(refs) = &telemetry.attachment else {
        return 0;
    };
    let near = refs
        .iter()
        .map(|target| match (target.kind, site.map(|s| s.is)) {
            (TargetKind::Service, Some(Is::Service(service))) if service.name == target.name => 2,
            (TargetKind::ServiceEntry, Some(Is::Entry(entry))) if entry.name == target.name => 2,
            (TargetKind::Gateway, _) if target.name == waypoint.name => 1,
            _ => 0,
        });
    near.max().unwrap_or(0)
}

pub(super) fn of(telemetry: &Telemetry) -> told::Telemetry {
    told::Telemetry {
        key: telemetry.key(),
        origin: telemetry.origin.clone(),
        says: telemetry.says.clone(),
    }
}

impl World<'_> {
    /// Whom a waypoint of `namespace` can tell.
    pub(super) fn setup(&self, settings: &Settings, namespace: &Arc<str>) -> Setup {
        let said = &settings.telemetry;
        let declared = settings.providers.iter().filter_map(|provider| {
            let exporter = self.exporter(provider, namespace)?;
            Some((Arc::clone(&provider.name), exporter))
        });
        let mut setup = Setup {
            defaults: Defaults {
                tracing: said.tracing.clone(),
                metrics: said.metrics.clone(),
                access_logging: said.access_logging.clone(),
                file: said.access_log.is_some(),
            },
            providers: declared.collect(),
        };
        let providers = &mut setup.providers;
        let prometheus = providers.entry(Arc::from(PROMETHEUS));
        prometheus.or_insert(Exporter::Prometheus);
        let file = || said.access_log.clone().unwrap_or_else(stdout);
        let envoy = providers.entry(Arc::from(ENVOY));
        envoy.or_insert_with(|| Exporter::File(file()));
        setup
    }

    fn exporter(&self, provider: &Provider, namespace: &Arc<str>) -> Option<Exporter> {
        let to = |service: &ProviderService| self.provider(service, namespace, &provider.origin);
        Some(match &provider.kind {
            ProviderKind::Prometheus => Exporter::Prometheus,
            ProviderKind::FileAccessLog(log) => Exporter::File(log.clone()),
            ProviderKind::OtelAccessLog(log) => Exporter::OtelLog {
                to: to(&log.service),
                log_name: Arc::clone(&log.log_name),
                format: log.format.clone(),
            },
            ProviderKind::OpenTelemetry(collector) => Exporter::OpenTelemetry {
                to: to(&collector.service),
                http: collector.http.clone(),
                max_tag_length: collector.max_tag_length,
            },
            ProviderKind::Zipkin(collector) => Exporter::Zipkin {
                to: to(&collector.service),
                path: Arc::clone(&collector.path),
                trace_context: collector.trace_context,
            },
            _ => return None,
        })
    }

    /// The service a provider is, to a waypoint of `namespace`.
    fn provider(&self, service: &ProviderService, namespace: &Arc<str>, origin: &Origin) -> Target {
        let wanted = BackendRef {
            kind: BackendKind::Hostname,
            name: Arc::clone(&service.host),
            namespace: Arc::clone(service.namespace.as_ref().unwrap_or(namespace)),
            port: Some(service.port),
            subset: None,
            origin: origin.clone(),
        };
        self.target(&wanted, namespace)
    }
}

/// What Istio's own provider of this name writes.
fn stdout() -> FileAccessLog {
    FileAccessLog {
        path: Arc::from("/dev/stdout"),
        layout: Layout {
            format: LogFormat::text(),
            omit_empty: false,
        },
    }
}
