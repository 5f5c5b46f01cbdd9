//! What the files of a mesh directory mean together: every check across resources, then the
//! declaration with all defaults filled in.
//!
//! Each check is linear in the number of resources, or nearly so, and makes nothing while all is
//! well: a directory of 100,000 workloads is judged as a whole at every change.

mod addresses;
mod bindings;
mod carriers;
mod declare;
mod destinations;
mod enrolment;
mod exposed;
mod guesses;
mod limits;
mod memory;
mod names;
mod policies;
mod probes;
mod providers;
mod references;
mod routes;
mod service_entries;
mod sharing;
mod targets;
mod telemetry;
mod tokens;
mod transports;
mod virtual_services;

use std::collections::HashMap;
use std::sync::Arc;

use super::diagnose::{Code, Diagnostic};
use super::mesh::{
    Written, WrittenAuthentication, WrittenAuthorization, WrittenBackendTls, WrittenDestination,
    WrittenGateway, WrittenLimit, WrittenNamespace, WrittenNode, WrittenRequestAuthentication,
    WrittenRoute, WrittenService, WrittenServiceEntry, WrittenSettings, WrittenTelemetry,
    WrittenVirtualService, WrittenWorkload, default_settings,
};
use crate::model::binding::{Attachments, Waypoints};
use crate::model::declaration::{Mesh, Settings};

use carriers::Carriers;
pub(super) use memory::Memory;
use memory::{Known, Tables};
use targets::Targets;

/// What all files say.
#[derive(Default)]
struct Whole<'a> {
    settings: Vec<&'a WrittenSettings>,
    nodes: Vec<&'a WrittenNode>,
    namespaces: Vec<&'a WrittenNamespace>,
    workloads: Vec<&'a WrittenWorkload>,
    services: Vec<&'a WrittenService>,
    service_entries: Vec<&'a WrittenServiceEntry>,
    gateways: Vec<&'a WrittenGateway>,
    authorization_policies: Vec<&'a WrittenAuthorization>,
    peer_authentications: Vec<&'a WrittenAuthentication>,
    request_authentications: Vec<&'a WrittenRequestAuthentication>,
    telemetry: Vec<&'a WrittenTelemetry>,
    rate_limits: Vec<&'a WrittenLimit>,
    routes: Vec<&'a WrittenRoute>,
    virtual_services: Vec<&'a WrittenVirtualService>,
    destinations: Vec<&'a WrittenDestination>,
    backend_tls: Vec<&'a WrittenBackendTls>,
    unread: bool,
}

impl<'a> Whole<'a> {
    fn new(files: impl Iterator<Item = &'a Written>) -> Self {
        let mut whole = Self::default();
        for file in files {
            let Written {
                settings,
                nodes,
                namespaces,
                workloads,
                services,
                service_entries,
                gateways,
                authorization_policies,
                peer_authentications,
                request_authentications,
                telemetry,
                rate_limits,
                routes,
                virtual_services,
                destinations,
                backend_tls,
                unread,
            } = file;
            whole.settings.extend(settings);
            whole.nodes.extend(nodes);
            whole.namespaces.extend(namespaces);
            whole.workloads.extend(workloads);
            whole.services.extend(services);
            whole.service_entries.extend(service_entries);
            whole.gateways.extend(gateways);
            whole.authorization_policies.extend(authorization_policies);
            whole.peer_authentications.extend(peer_authentications);
            whole
                .request_authentications
                .extend(request_authentications);
            whole.telemetry.extend(telemetry);
            whole.rate_limits.extend(rate_limits);
            whole.routes.extend(routes);
            whole.virtual_services.extend(virtual_services);
            whole.destinations.extend(destinations);
            whole.backend_tls.extend(backend_tls);
            whole.unread |= unread;
        }
        whole
    }
}

/// What is written, indexed, with the settings that hold for it.
struct Context<'a> {
    written: &'a Whole<'a>,
    settings: &'a Settings,
    nodes: HashMap<&'a str, &'a WrittenNode>,
    namespaces: HashMap<&'a str, &'a WrittenNamespace>,
    files: Vec<&'a Known>,
    /// The workloads that may be wrong by themselves, in their order: those of the files that are
    /// not known to be clean.
    doubtful: Vec<&'a WrittenWorkload>,
}

impl<'a> Context<'a> {
    /// Where a name is written twice the first one counts; the second is an error anyway.
    fn new(written: &'a Whole<'a>, settings: &'a Settings, files: &'a [Known]) -> Self {
        let nodes = written.nodes.iter().rev();
        let namespaces = written.namespaces.iter().rev();
        let doubtful = files.iter().filter(|file| !file.clean);
        Self {
            written,
            settings,
            nodes: nodes.map(|node| (&*node.name.value, *node)).collect(),
            namespaces: namespaces.map(|n| (&*n.name.value, *n)).collect(),
            files: files.iter().collect(),
            doubtful: doubtful.flat_map(|file| &file.written.workloads).collect(),
        }
    }

    fn node_of(&self, workload: &WrittenWorkload) -> Option<&'a WrittenNode> {
        let name = workload.node.as_ref()?;
        self.nodes.get(&*name.value).copied()
    }

    fn namespace_of(&self, workload: &WrittenWorkload) -> Option<&'a WrittenNamespace> {
        self.namespaces.get(&*workload.namespace.value).copied()
    }

    fn network_of_node(&self, node: &'a WrittenNode) -> &'a Arc<str> {
        node.network.as_ref().unwrap_or(&self.settings.network)
    }

    /// The workload's own network, else its node's, else the mesh's.
    fn network_of(&self, workload: &'a WrittenWorkload) -> &'a Arc<str> {
        let node = self.node_of(workload);
        let of_node = || node.and_then(|node| node.network.as_ref());
        let network = workload.network.as_ref().or_else(of_node);
        network.unwrap_or(&self.settings.network)
    }
}

/// Judges what is written. With `whole` false some files are known only in part, and what refers
/// to something missing is not wrong for that.
///
/// The mesh may only be used when there are no errors, neither here nor from reading. What `memory`
/// has of these files is not found out again; it is the same.
pub(super) fn check(
    files: &[Arc<Written>],
    whole: bool,
    memory: &mut Memory,
) -> (Mesh, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let written = Whole::new(files.iter().map(|file| &**file));
    let settings = settings(&written, &mut found);
    let tables = Tables::new(&settings, &written.nodes, &written.namespaces);
    let same = memory.tables.as_ref() == Some(&tables);
    let mut known: Vec<_> = files.iter().map(|file| memory.take(file)).collect();
    for file in &mut known {
        file.clean &= same;
    }
    let context = Context::new(&written, &settings, &known);
    names::check(&context, &mut found);
    addresses::check(&context, &mut found);
    enrolment::check(&context, &mut found);
    probes::check(&context, &mut found);
    transports::check(&context, &mut found);
    sharing::check(&context, &mut found);
    let refers = whole && !written.unread;
    let carriers = Carriers::new(&written.workloads);
    if refers {
        references::check(&context, &mut found);
        policies::check(&context, &carriers, &mut found);
        tokens::check(&context, &mut found);
        telemetry::check(&context, &mut found);
        service_entries::check(&context, &carriers, &mut found);
    }
    let (mesh, declared) = declare::declare(&context);
    if refers {
        let waypoints = Waypoints::new(&mesh);
        sharing::ports(&context, &mesh, &mut found);
        bindings::check(&context, (&mesh, &waypoints), &mut found);
        let attachments = Attachments::new(&mesh, &waypoints);
        let mut targets = Targets::new(attachments, &mesh.settings.root_namespace);
        policies::targeted(&context, (&mesh, &waypoints), &mut targets, &mut found);
        tokens::targeted(&context, &mut targets, &mut found);
        telemetry::targeted(&context, &mut targets, &mut found);
        limits::check(&context, &mesh, &mut targets, &mut found);
        service_entries::bindings(&context, (&mesh, &waypoints), &mut found);
        destinations::check(&context, &carriers, (&mesh, &waypoints), &mut found);
        exposed::check(&context, &mesh, &mut found);
        routes::check(&context, (&mesh, &waypoints), &mut found);
        virtual_services::check(&context, &mesh, &mut found);
        providers::check(&context, &mesh, &mut found);
    }
    let clean: Vec<bool> = match refers {
        true => known.iter().map(|file| is_clean(file, &found)).collect(),
        false => vec![false; known.len()],
    };
    for ((file, declared), clean) in known.iter_mut().zip(declared).zip(clean) {
        (file.declared, file.clean) = (declared, clean);
    }
    memory.keep(tables, known);
    (mesh, found)
}

/// Whether nothing was found in a file. Whatever is wrong with a workload is told where it is.
fn is_clean(file: &Known, found: &[Diagnostic]) -> bool {
    let Some(workload) = file.written.workloads.first() else {
        return true;
    };
    let source = workload.place.source();
    !found
        .iter()
        .any(|finding| Arc::ptr_eq(finding.place().source(), source))
}

fn settings(written: &Whole<'_>, found: &mut Vec<Diagnostic>) -> Settings {
    let Some((first, rest)) = written.settings.split_first() else {
        return default_settings();
    };
    for again in rest {
        let message = "the mesh has more than one `[mesh]` table";
        found.push(
            Diagnostic::new(Code::DuplicateSettings, again.place.clone(), message)
                .label("again")
                .related(first.place.clone(), "first here")
                .help("keep all settings in one of the two"),
        );
    }
    first.settings.clone()
}
