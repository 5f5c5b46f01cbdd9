//! The declaration: what is written, with everything that was left out filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Context;
use crate::config::mesh::{WrittenAttachment, WrittenAuthentication, WrittenAuthorization};
use crate::config::mesh::{WrittenNamespace, WrittenNode, WrittenService, WrittenWorkload};
use crate::config::source::At;
use crate::model::declaration::{Attachment, AuthorizationPolicy, PeerAuthentication};
use crate::model::declaration::{Mesh, Namespace, Node, Service, Workload};

pub(super) fn declare(context: &Context<'_>) -> Mesh {
    let written = context.written;
    let nodes = written
        .nodes
        .iter()
        .map(|node| declared_node(context, node));
    let workloads = written.workloads.iter();
    Mesh {
        settings: context.settings.clone(),
        nodes: nodes.map(|node| (Arc::clone(&node.name), node)).collect(),
        namespaces: namespaces(context),
        workloads: workloads
            .map(|workload| declared_workload(context, workload))
            .collect(),
        services: written.services.iter().map(declared_service).collect(),
        authorization_policies: written
            .authorization_policies
            .iter()
            .map(declared_authorization)
            .collect(),
        peer_authentications: written
            .peer_authentications
            .iter()
            .map(declared_authentication)
            .collect(),
    }
}

/// Those declared, and the undeclared one that needs no declaration, where something is in it.
fn namespaces(context: &Context<'_>) -> BTreeMap<Arc<str>, Namespace> {
    let written = context.written;
    let declared = written.namespaces.iter().map(declared_namespace);
    let mut namespaces: BTreeMap<_, _> = declared
        .map(|namespace| (Arc::clone(&namespace.name), namespace))
        .collect();
    let of_workloads = written.workloads.iter().map(|w| (&w.namespace, &w.place));
    let of_services = written.services.iter().map(|s| (&s.namespace, &s.place));
    for (At { value: name, .. }, place) in of_workloads.chain(of_services) {
        namespaces
            .entry(Arc::clone(name))
            .or_insert_with(|| Namespace {
                origin: place.origin(),
                name: Arc::clone(name),
                dataplane_mode: None,
                use_waypoint: None,
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
    }
}

fn declared_namespace(written: &WrittenNamespace) -> Namespace {
    Namespace {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        dataplane_mode: written.dataplane_mode.as_ref().map(|mode| mode.value),
        use_waypoint: written.use_waypoint.clone(),
        service_accounts: written.service_accounts.clone(),
        labels: written.labels.clone(),
    }
}

fn declared_workload(context: &Context<'_>, written: &WrittenWorkload) -> Workload {
    let node = context.node_of(written);
    let of_node = || node.map(|node| node.locality.clone()).unwrap_or_default();
    Workload {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        service_account: Arc::clone(&written.service_account.value),
        node: written.node.as_ref().map(|node| Arc::clone(&node.value)),
        addresses: values(&written.addresses),
        network: Arc::clone(context.network_of(written)),
        labels: written.labels.clone(),
        capture: written
            .capture
            .as_ref()
            .and_then(|capture| capture.value.clone()),
        dataplane_mode: written.dataplane_mode.as_ref().map(|mode| mode.value),
        use_waypoint: written.use_waypoint.clone(),
        health: written.health.as_ref().map(|health| health.value.clone()),
        locality: written.locality.clone().unwrap_or_else(of_node),
        capacity: written.capacity,
    }
}

fn declared_service(written: &WrittenService) -> Service {
    Service {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        addresses: values(&written.addresses),
        headless: written.headless,
        ports: written.ports.clone(),
        selector: written.selector.clone(),
        use_waypoint: written.use_waypoint.clone(),
        labels: written.labels.clone(),
    }
}

fn declared_authorization(written: &WrittenAuthorization) -> AuthorizationPolicy {
    AuthorizationPolicy {
        origin: written.place.origin(),
        name: Arc::clone(&written.name.value),
        namespace: Arc::clone(&written.namespace.value),
        attachment: match &written.attachment {
            WrittenAttachment::Namespace => Attachment::Namespace,
            WrittenAttachment::Selector(labels) => Attachment::Selector(labels.value.clone()),
            WrittenAttachment::Targets(targets) => Attachment::Targets(values(&targets.value)),
        },
        action: written.action.value.clone(),
        dry_run: written.dry_run,
        rules: values(&written.rules.list),
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

fn values<T: Clone>(written: &[At<T>]) -> Vec<T> {
    written.iter().map(|at| at.value.clone()).collect()
}
