//! The declaration: what is written, with everything that was left out filled in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use super::destinations::in_full;
use super::{Context, Known, sharing};
use crate::config::mesh::{
    WrittenAttachment, WrittenAuthentication, WrittenAuthorization, WrittenLimit,
    WrittenRequestAuthentication,
};
use crate::config::mesh::{
    WrittenGateway, WrittenMachines, WrittenNamespace, WrittenNode, WrittenRoute, WrittenService,
    WrittenServiceEntry, WrittenTelemetry, WrittenVirtualService, WrittenWorkload,
};
use crate::config::source::At;
use crate::model::declaration::{
    Attachment, AuthorizationPolicy, PeerAuthentication, RateLimit, RequestAuthentication,
};
use crate::model::declaration::{
    Canary, Gateway, Machines, Mesh, Namespace, Node, Route, Service, ServiceEntry, Telemetry,
    Workload,
};
use crate::model::route::RouteKey;
use crate::model::shared::Shared;
use crate::model::workload::Locality;

/// The declaration, and the workloads in it by file.
pub(super) fn declare(context: &Context<'_>) -> (Mesh, Vec<Vec<Shared<Workload>>>) {
    let written = context.written;
    let nodes = written
        .nodes
        .iter()
        .map(|node| declared_node(context, node));
    let files = context.files.iter();
    let workloads: Vec<_> = files
        .map(|file| declared_workloads(context, file))
        .collect();
    let mesh = Mesh {
        settings: context.settings.clone(),
        nodes: nodes.map(|node| (Arc::clone(&node.name), node)).collect(),
        namespaces: namespaces(context),
        workloads: workloads.concat(),
        services: written
            .services
            .iter()
            .map(|s| declared_service(s))
            .collect(),
        gateways: written
            .gateways
            .iter()
            .map(|g| declared_gateway(g))
            .collect(),
        authorization_policies: written
            .authorization_policies
            .iter()
            .map(|policy| declared_authorization(policy))
            .collect(),
        peer_authentications: written
            .peer_authentications
            .iter()
            .map(|policy| declared_authentication(policy))
            .collect(),
        request_authentications: {
            let policies = written.request_authentications.iter();
            policies.map(|p| declared_request(p)).collect()
        },
        telemetry: written
            .telemetry
            .iter()
            .map(|telemetry| declared_telemetry(telemetry))
            .collect(),
        rate_limits: written
            .rate_limits
            .iter()
            .map(|l| declared_limit(l))
            .collect(),
        routes: {
            let routes = written.routes.iter().map(|r| declared_route(r));
            let virtual_services = written.virtual_services.iter();
            let virtual_services = virtual_services.map(|v| declared_virtual_service(context, v));
            routes.chain(virtual_services).collect()
        },
        destination_rules: super::destinations::declare(context),
        service_entries: {
            let entries = written.service_entries.iter();
            entries.map(|e| declared_service_entry(e)).collect()
        },
    };
    (mesh, workloads)
}

/// A file's workloads. Where nothing that one comes from has changed it is the same as last time.
fn declared_workloads(context: &Context<'_>, file: &Known) -> Vec<Shared<Workload>> {
    if file.clean {
        return file.declared.clone();
    }
    let declared = |(at, written): (usize, &WrittenWorkload)| {
        let same = |known: &&Shared<Workload>| {
            known.network == *context.network_of(written)
                && known.locality == *locality(context, written)
                && known
                    .addresses
                    .iter()
                    .eq(addresses(context, written).iter().map(|a| &a.value))
        };
        let known = file.declared.get(at).filter(same);
        known.map_or_else(|| declared_workload(context, written).into(), Shared::clone)
    };
    let workloads = file.written.workloads.iter().enumerate();
    workloads.map(declared).collect()
}

/// Those declared, and the undeclared one that needs no declaration, where something is in it.
fn namespaces(context: &Context<'_>) -> BTreeMap<Arc<str>, Namespace> {
    let written = context.written;
    let declared = written.namespaces.iter().map(|n| declared_namespace(n));
    let mut namespaces: BTreeMap<_, _> = declared
        .map(|namespace| (Arc::clone(&namespace.name), namespace))
        .collect();
    let of_workloads = written.workloads.iter().map(|w| (&w.namespace, &w.place));
    let of_services = written.services.iter().map(|s| (&s.namespace, &s.place));
    let mut last: Option<&Arc<str>> = None;
    let of_gateways = written.gateways.iter().map(|g| (&g.namespace, &g.place));
    let of_entries = written.service_entries.iter();
    let of_entries = of_entries.map(|e| (&e.namespace, &e.place));
    let all = of_workloads.chain(of_services).chain(of_gateways);
    let all = all.chain(of_entries);
    for (At { value: name, .. }, place) in all {
        // Most have theirs from their file, with the one before.
        if last
            .replace(name)
            .is_some_and(|last| Arc::ptr_eq(last, name))
        {
            continue;
        }
        namespaces
            .entry(Arc::clone(name))
            .or_insert_with(|| Namespace {
                origin: place.origin(),
                name: Arc::clone(name),
                dataplane_mode: None,
                transport: None,
                use_waypoint: None,
                canary: Canary::default(),
                ingress_use_waypoint: None,
                service_accounts: None,
                labels: BTreeMap::new(),
            });
    }
    namespaces
}

fn declared_node(context: &Context<'_>, written: &WrittenNode) -> Node {
    Node {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        addresses: values(&written.addresses),
        locality: written.locality.clone(),
        network: Arc::clone(
            written
                .network
                .as_ref()
                .unwrap_or(&context.settings.network),
        ),
        labels: written.labels.clone(),
        proxy: written.proxy,
        transport: written.transport.as_ref().map(|at| at.value),
    }
}

fn declared_namespace(written: &WrittenNamespace) -> Namespace {
    Namespace {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        dataplane_mode: written.dataplane_mode.as_ref().map(|mode| mode.value),
        transport: written.transport,
        use_waypoint: written.use_waypoint.as_ref().map(|w| w.value.clone()),
        canary: written.canary.canary.clone(),
        ingress_use_waypoint: written.ingress_use_waypoint,
        service_accounts: written.service_accounts.clone(),
        labels: written.labels.clone(),
    }
}

fn declared_workload(context: &Context<'_>, written: &WrittenWorkload) -> Workload {
    Workload {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        service_account: Arc::clone(&written.service_account.value),
        node: written.node.as_ref().map(|node| Arc::clone(&node.value)),
        addresses: values(addresses(context, written)),
        network: Arc::clone(context.network_of(written)),
        labels: written.labels.clone(),
        capture: written
            .capture
            .as_ref()
            .and_then(|capture| capture.value.clone()),
        dataplane_mode: written.dataplane_mode.as_ref().map(|mode| mode.value),
        transport: written.transport.as_ref().map(|at| at.value),
        dns_capture: written.dns_capture,
        use_waypoint: written.use_waypoint.as_ref().map(|w| w.value.clone()),
        health: written.health.as_ref().map(|health| health.value.clone()),
        locality: locality(context, written).clone(),
        capacity: written.capacity,
    }
}

/// Its own, else those of the machine whose network it is on.
fn addresses<'a>(context: &Context<'a>, written: &'a WrittenWorkload) -> &'a [At<IpAddr>] {
    match sharing::machine(context, written) {
        Some(node) if written.addresses.is_empty() => &node.addresses,
        _ => &written.addresses,
    }
}

/// Its own, else its node's.
fn locality<'a>(context: &Context<'a>, written: &'a WrittenWorkload) -> &'a Locality {
    static UNKNOWN: LazyLock<Locality> = LazyLock::new(Locality::default);
    let of_node = || context.node_of(written).map(|node| &node.locality);
    let known = written.locality.as_ref().or_else(of_node);
    known.unwrap_or(&UNKNOWN)
}

fn declared_service(written: &WrittenService) -> Service {
    Service {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        addresses: values(&written.addresses),
        headless: written.headless,
        ports: written.ports.clone(),
        udp_ports: written.udp_ports.clone(),
        selector: written.selector.clone(),
        traffic_distribution: written.traffic_distribution,
        canary: written.canary.canary.clone(),
        ingress_use_waypoint: written.ingress_use_waypoint,
        use_waypoint: written.use_waypoint.as_ref().map(|w| w.value.clone()),
        labels: written.labels.clone(),
    }
}

fn declared_service_entry(written: &WrittenServiceEntry) -> ServiceEntry {
    let selector = written.selector.as_ref();
    ServiceEntry {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        hosts: values(&written.hosts),
        addresses: values(&written.addresses),
        ports: written.ports.clone(),
        resolution: written.resolution,
        endpoints: written.endpoints.clone(),
        selector: selector.map(|s| s.value.clone()).unwrap_or_default(),
        subject_alt_names: written.subject_alt_names.clone(),
        export_to: written.export_to,
        canary: written.canary.canary.clone(),
        ingress_use_waypoint: written.ingress_use_waypoint,
        use_waypoint: written.use_waypoint.as_ref().map(|w| w.value.clone()),
        labels: written.labels.clone(),
    }
}

fn declared_gateway(written: &WrittenGateway) -> Gateway {
    Gateway {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        service_account: Arc::clone(&written.service_account.value),
        machines: match &written.machines {
            WrittenMachines::One(node) => Machines::One(Arc::clone(&node.value)),
            WrittenMachines::Each(nodes) => Machines::Each(values(nodes)),
        },
        addresses: values(&written.addresses),
        waypoint_for: written.waypoint_for,
        allowed_routes: written.allowed_routes.clone(),
        hbone_port: written.hbone_port,
        tells_identities: written.tells_identities,
        labels: written.labels.clone(),
    }
}

fn declared_authorization(written: &WrittenAuthorization) -> AuthorizationPolicy {
    AuthorizationPolicy {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        attachment: attachment(&written.attachment),
        action: written.action.value.clone(),
        dry_run: written.dry_run,
        rules: values(&written.rules.list),
    }
}

fn declared_telemetry(written: &WrittenTelemetry) -> Telemetry {
    Telemetry {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        attachment: attachment(&written.attachment),
        says: written.says.clone(),
    }
}

fn attachment(written: &WrittenAttachment) -> Attachment {
    match written {
        WrittenAttachment::Namespace => Attachment::Namespace,
        WrittenAttachment::Selector(labels) => Attachment::Selector(labels.value.clone()),
        WrittenAttachment::Targets(targets) => Attachment::Targets(values(&targets.value)),
    }
}

fn declared_request(written: &WrittenRequestAuthentication) -> RequestAuthentication {
    RequestAuthentication {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        attachment: attachment(&written.attachment),
        rules: values(&written.rules),
    }
}

fn declared_authentication(written: &WrittenAuthentication) -> PeerAuthentication {
    let selector = written.selector.as_ref();
    PeerAuthentication {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        selector: selector
            .map(|labels| labels.value.clone())
            .unwrap_or_default(),
        mode: written.mode,
        ports: written.ports.clone(),
    }
}

fn declared_limit(written: &WrittenLimit) -> RateLimit {
    RateLimit {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        attachment: Attachment::Targets(values(&written.targets)),
        rules: written.rules.clone(),
    }
}

fn declared_route(written: &WrittenRoute) -> Route {
    Route {
        origin: written.place.origin(),
        key: RouteKey {
            kind: written.kind,
            namespace: Arc::clone(&written.namespace.value),
            name: Arc::clone(&written.name.value),
        },
        parents: values(&written.parents),
        hosts: written.hosts.clone(),
        rules: written.rules.iter().map(|r| r.rule.clone()).collect(),
        delegates: Vec::new(),
    }
}

fn declared_virtual_service(context: &Context<'_>, written: &WrittenVirtualService) -> Route {
    let (domain, namespace) = (&context.settings.domain, &written.route.namespace.value);
    let hosts = written.hosts.iter();
    Route {
        hosts: hosts
            .map(|host| in_full(domain, namespace, &host.value))
            .collect(),
        delegates: values(&written.delegates),
        ..declared_route(&written.route)
    }
}

fn values<T: Clone>(written: &[At<T>]) -> Vec<T> {
    written.iter().map(|at| at.value.clone()).collect()
}
