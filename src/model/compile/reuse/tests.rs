use proptest::prelude::*;

use super::*;
use crate::model::compile::sample::outside::{endpoint, entry};
use crate::model::compile::sample::{gateway, labels, large, mesh, node, service, using, workload};
use crate::model::compile::{
    Assignments, CompileError, Compiled, Observed, Reported, compile, recompile, workload_uid,
};
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Capture, DataplaneMode, Machines, Mesh, MtlsMode,
    Origin, PeerAuthentication, Proxy, Rule, WaypointFor, Workload as Declared,
};
use crate::model::service::UdpPort;
use crate::model::waypoint::Resolution;

/// What may happen to a mesh; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Edit {
    Add(u8),
    Remove(usize),
    Reorder(usize),
    Rename(usize, u8),
    Label(usize, &'static str),
    Move(usize, Option<&'static str>),
    Capture(usize, Option<Capture>),
    Mode(usize, Option<DataplaneMode>),
    Capacity(usize, u32),
    Network(usize, &'static str),
    Region(usize, &'static str),
    /// A workload has the address that a service without one has been given.
    Claim(usize),
    Serve(&'static str),
    Withdraw(usize),
    /// A service has a UDP port, or none.
    Datagrams(usize, bool),
    Select(usize, &'static str),
    Node(&'static str, Proxy, &'static str, &'static str),
    /// What the mesh, a node, the namespace and the first workload say.
    Over(Transport, [Option<Transport>; 3]),
    Enrol(Option<DataplaneMode>),
    Cluster(&'static str),
    TrustDomain(&'static str),
    MeshNetwork(&'static str),
    /// Those with the label, of the shop or of all the mesh, are closed to everybody.
    Deny(&'static str, &'static str),
    /// Those with the label take no plain connections on any port, or on one.
    Strict(&'static str, bool),
    Lift,
    /// Hosts outside are found so, or there are none.
    Outside(Resolution, bool),
    /// A waypoint on that node, and what uses it: the namespace, the first service, the first workload.
    Waypoint(&'static str, WaypointFor, u8),
    /// Whether waypoints alone are let through.
    AutoAllow(bool),
    Report(u8, Observed),
    /// What is heard of an instance of that waypoint.
    Reach(&'static str, Observed),
}

fn of<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> prop::sample::Select<T> {
    prop::sample::select(of.to_vec())
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0..8_usize;
    let nodes = ["edge-1", "edge-2"];
    let names = ["", "near", "far"];
    let apps = ["cart", "web", "pay"];
    let takes = [
        WaypointFor::Service,
        WaypointFor::Workload,
        WaypointFor::All,
    ];
    let modes = [
        None,
        Some(DataplaneMode::None),
        Some(DataplaneMode::Ambient),
    ];
    let captures = [
        None,
        Some(Capture::User(Arc::from("cart"))),
        Some(Capture::Netns(Arc::from("cart"))),
    ];
    let observed = (any::<bool>(), any::<bool>(), any::<bool>());
    let observed = observed.prop_map(|(captured, healthy, held)| Observed {
        captured,
        health: match healthy {
            true => Health::Healthy,
            false => Health::Unhealthy,
        },
        held,
    });
    let somewhere = [None, Some(nodes[0]), Some(nodes[1])];
    let transports = [Transport::Tcp, Transport::Auto, Transport::Quic];
    let says = [None, Some(Transport::Tcp), Some(Transport::Quic)];
    let proxies = [Proxy::Lateen, Proxy::Ztunnel];
    let workloads = prop_oneof![
        (0..6_u8).prop_map(Edit::Add),
        at().prop_map(Edit::Remove),
        at().prop_map(Edit::Reorder),
        (at(), 0..6_u8).prop_map(|(at, name)| Edit::Rename(at, name)),
        (at(), of(&apps)).prop_map(|(at, app)| Edit::Label(at, app)),
        (at(), of(&somewhere)).prop_map(|(at, node)| Edit::Move(at, node)),
        (at(), of(&captures)).prop_map(|(at, capture)| Edit::Capture(at, capture)),
        (at(), of(&modes)).prop_map(|(at, mode)| Edit::Mode(at, mode)),
        (at(), 0..3_u32).prop_map(|(at, capacity)| Edit::Capacity(at, capacity)),
        (at(), of(&names)).prop_map(|(at, name)| Edit::Network(at, name)),
        (at(), of(&names)).prop_map(|(at, name)| Edit::Region(at, name)),
        at().prop_map(Edit::Claim),
        (0..6_u8, observed.clone()).prop_map(|(name, observed)| Edit::Report(name, observed)),
        (of(&["", "/edge-1", "/edge-2"]), observed)
            .prop_map(|(instance, observed)| Edit::Reach(instance, observed)),
    ];
    let around = prop_oneof![
        of(&apps).prop_map(Edit::Serve),
        at().prop_map(Edit::Withdraw),
        (at(), any::<bool>()).prop_map(|(at, there)| Edit::Datagrams(at, there)),
        (at(), of(&apps)).prop_map(|(at, app)| Edit::Select(at, app)),
        (of(&nodes), of(&proxies), of(&names), of(&names))
            .prop_map(|(node, proxy, network, region)| Edit::Node(node, proxy, network, region)),
        of(&modes).prop_map(Edit::Enrol),
        (of(&transports), [of(&says), of(&says), of(&says)])
            .prop_map(|(mesh, others)| Edit::Over(mesh, others)),
        of(&["Kubernetes", "other"]).prop_map(Edit::Cluster),
        of(&["cluster.local", "other.org"]).prop_map(Edit::TrustDomain),
        of(&names).prop_map(Edit::MeshNetwork),
        (of(&["shop", "istio-system"]), of(&apps)).prop_map(|(ns, app)| Edit::Deny(ns, app)),
        (of(&apps), any::<bool>()).prop_map(|(app, all)| Edit::Strict(app, all)),
        Just(Edit::Lift),
        (
            of(&["edge-1", "edge-2", "edge-3", "both"]),
            of(&takes),
            0..8_u8
        )
            .prop_map(|(node, takes, users)| Edit::Waypoint(node, takes, users)),
        any::<bool>().prop_map(Edit::AutoAllow),
    ];
    let resolutions = [Resolution::Static, Resolution::Dns, Resolution::None];
    let outside = (of(&resolutions), any::<bool>());
    let outside = outside.prop_map(|(resolution, there)| Edit::Outside(resolution, there));
    let around = prop_oneof![12 => around, 2 => outside];
    prop_oneof![2 => workloads, 1 => around]
}

fn origin(number: usize) -> Origin {
    Origin {
        file: Arc::from("shop.toml"),
        line: u32::try_from(number).unwrap() + 1,
    }
}

fn carry_out(mesh: &mut Mesh, reported: &mut Reported, assigned: &Assignments, edit: Edit) {
    let name = |n: u8| format!("w-{n}");
    let many = mesh.workloads.len();
    let workload_at = |mesh: &mut Mesh, at: usize, edit: &dyn Fn(&mut Declared)| {
        if let Some(workload) = mesh.workloads.get_mut(at) {
            edit(workload);
        }
    };
    match edit {
        Edit::Add(n) => {
            let added = workload(&name(n), "cart", "edge-1", "10.1.0.9");
            mesh.workloads.push(added.into());
        }
        Edit::Remove(at) if at < many => drop(mesh.workloads.remove(at)),
        Edit::Reorder(at) if at < many => mesh.workloads.rotate_left(at),
        Edit::Remove(_) | Edit::Reorder(_) => {}
        Edit::Rename(at, n) => workload_at(mesh, at, &|w| w.name = name(n).into()),
        Edit::Label(at, app) => workload_at(mesh, at, &|w| w.labels = labels(&[("app", app)])),
        Edit::Move(at, node) => workload_at(mesh, at, &|w| w.node = node.map(Arc::from)),
        Edit::Capture(at, capture) => workload_at(mesh, at, &|w| w.capture = capture.clone()),
        Edit::Mode(at, mode) => workload_at(mesh, at, &|w| w.dataplane_mode = mode),
        Edit::Capacity(at, capacity) => workload_at(mesh, at, &|w| w.capacity = capacity),
        Edit::Network(at, network) => workload_at(mesh, at, &|w| w.network = network.into()),
        Edit::Region(at, region) => workload_at(mesh, at, &|w| w.locality.region = region.into()),
        Edit::Claim(at) => workload_at(mesh, at, &|w| {
            let taken = assigned
                .iter()
                .next()
                .map(|(_, addresses)| addresses.to_vec());
            w.addresses = taken.unwrap_or_default();
        }),
        Edit::Serve(app) => mesh.services.push(service(app)),
        Edit::Withdraw(at) if at < mesh.services.len() => drop(mesh.services.remove(at)),
        Edit::Withdraw(_) => {}
        Edit::Datagrams(at, there) => {
            if let Some(service) = mesh.services.get_mut(at) {
                let port = UdpPort {
                    service_port: 53,
                    target_port: 53,
                };
                service.udp_ports = there.then_some(port).into_iter().collect();
            }
        }
        Edit::Select(at, app) => {
            if let Some(service) = mesh.services.get_mut(at) {
                service.selector = labels(&[("app", app)]);
            }
        }
        Edit::Node(name, proxy, network, region) => {
            let mut node = node(name);
            node.proxy = proxy;
            node.network = network.into();
            node.locality.region = region.into();
            mesh.nodes.insert(node.name.clone(), node);
        }
        Edit::Over(settings, [node, namespace, own]) => {
            mesh.settings.transport = settings;
            mesh.nodes.values_mut().next().unwrap().transport = node;
            mesh.namespaces.values_mut().next().unwrap().transport = namespace;
            workload_at(mesh, 0, &|w| w.transport = own);
        }
        Edit::Enrol(mode) => {
            let shop = mesh.namespaces.values_mut().next().unwrap();
            shop.dataplane_mode = mode;
        }
        Edit::Cluster(id) => mesh.settings.cluster_id = id.into(),
        Edit::TrustDomain(name) => mesh.settings.trust_domain = name.parse().unwrap(),
        Edit::MeshNetwork(network) => mesh.settings.network = network.into(),
        Edit::Deny(namespace, app) => {
            let number = mesh.authorization_policies.len();
            mesh.authorization_policies.push(AuthorizationPolicy {
                origin: origin(number),
                name: Arc::from(format!("deny-{number}")),
                namespace: namespace.into(),
                attachment: Attachment::Selector(labels(&[("app", app)])),
                action: Action::Deny,
                dry_run: false,
                rules: vec![Rule::default()],
            });
        }
        Edit::Strict(app, all) => {
            let number = mesh.peer_authentications.len();
            let strict = MtlsMode::Strict;
            mesh.peer_authentications.push(PeerAuthentication {
                origin: origin(number),
                name: Arc::from(format!("strict-{number}")),
                namespace: Arc::from("shop"),
                selector: labels(&[("app", app)]),
                mode: if all { strict } else { MtlsMode::Unset },
                ports: (!all).then_some((80, strict)).into_iter().collect(),
            });
        }
        Edit::Outside(resolution, there) => {
            let mut listed = entry("listed", &["a.example", "b.example"], resolution);
            listed.endpoints = vec![endpoint("192.0.2.1")];
            mesh.service_entries = there.then_some(listed).into_iter().collect();
        }
        Edit::Lift => {
            mesh.authorization_policies.pop();
            mesh.peer_authentications.pop();
        }
        Edit::Waypoint(node, takes, users) => {
            let mut waypoint = gateway("wp", takes);
            waypoint.machines = match node {
                "both" => Machines::Each(["edge-1", "edge-2"].map(Arc::from).to_vec()),
                one => Machines::One(one.into()),
            };
            mesh.gateways = vec![waypoint];
            let uses = |bit: u8| using("wp").filter(|_| users & bit != 0);
            if let Some(shop) = mesh.namespaces.get_mut("shop") {
                shop.use_waypoint = uses(1);
            }
            if let Some(service) = mesh.services.first_mut() {
                service.use_waypoint = uses(2);
            }
            if let Some(workload) = mesh.workloads.first_mut() {
                workload.use_waypoint = uses(4);
            }
        }
        Edit::AutoAllow(on) => mesh.settings.auto_allow_waypoint = on,
        Edit::Reach(instance, observed) => {
            let cluster = &mesh.settings.cluster_id;
            let uid = format!("{cluster}/lateen/Gateway/shop/wp{instance}");
            reported.set(uid.into(), observed);
        }
        Edit::Report(n, observed) => {
            let uid = workload_uid(&mesh.settings.cluster_id, "shop", &name(n));
            reported.set(uid, observed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever came before, a mesh compiles to what it would compile to on a control plane that
    /// has only now been started.
    #[test]
    fn the_past_makes_no_difference(edits in prop::collection::vec(edit(), 1..40)) {
        let (mut mesh, mut reported) = (mesh(), Reported::default());
        let mut assignments = Assignments::default();
        let mut former = compile(&mesh, &reported, &assignments).unwrap();
        for edit in edits {
            carry_out(&mut mesh, &mut reported, &assignments, edit);
            let again = recompile(&mesh, &reported, &assignments, &former);
            let fresh = compile(&mesh, &reported, &assignments);
            // That a name is there twice is said of the same name.
            prop_assert_eq!(&again, &fresh);
            match again {
                Ok(compiled) => {
                    assignments = compiled.assignments.clone();
                    former = compiled;
                }
                Err(CompileError::Duplicate { .. }) => {}
                Err(e) => prop_assert!(false, "{}", e),
            }
        }
    }
}

fn shared(before: &Compiled, after: &Compiled) -> usize {
    let pairs = before.workloads.iter().zip(&after.workloads);
    pairs
        .filter(|(before, after)| Arc::ptr_eq(before, after))
        .count()
}

#[test]
fn what_stays_is_the_same_memory() {
    let mut mesh = large(100, 10);
    let none = Reported::default();
    let first = compile(&mesh, &none, &Assignments::default()).unwrap();
    let again = recompile(&mesh, &none, &first.assignments, &first).unwrap();
    assert_eq!(shared(&first, &again), 100);
    mesh.workloads[7].capacity = 5;
    let edited = recompile(&mesh, &none, &first.assignments, &again).unwrap();
    assert_eq!(shared(&again, &edited), 99);
    mesh.services[0].selector = labels(&[("app", "nobody")]);
    let withdrawn = recompile(&mesh, &none, &first.assignments, &edited).unwrap();
    assert_eq!(shared(&edited, &withdrawn), 90, "those it had selected");
}
