//! Questions and answers about the sample mesh.

use std::net::IpAddr;

use super::*;
use crate::model::compile::sample;
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Capture, DataplaneMode, Origin, Rule, Source, Values,
    WaypointFor,
};
use crate::model::policy::Pattern;
use crate::model::waypoint::Resolution;
use crate::model::workload::Transport;

fn only(principal: &str, action: Action, line: u32) -> AuthorizationPolicy {
    let source = Source {
        principals: Values {
            any: vec![Pattern::parse(principal).unwrap()],
            not: Vec::new(),
        },
        ..Source::default()
    };
    AuthorizationPolicy {
        origin: Origin {
            file: Arc::from("shop.toml"),
            line,
        },
        name: Arc::from(format!("p{line}")),
        namespace: Arc::from("shop"),
        attachment: Attachment::Selector([("app".to_owned(), "cart".to_owned())].into()),
        action,
        dry_run: false,
        rules: vec![Rule {
            line: line + 3,
            from: vec![source],
            ..Rule::default()
        }],
    }
}

/// Everything captured but `legacy-1`; a second endpoint of `cart` without the label.
fn mesh(policies: Vec<AuthorizationPolicy>) -> Intended {
    let mut mesh = sample::mesh();
    for namespace in mesh.namespaces.values_mut() {
        namespace.dataplane_mode = Some(DataplaneMode::Ambient);
    }
    for workload in &mut mesh.workloads {
        workload.capture = Some(Capture::Netns(workload.name.clone()));
    }
    let mut legacy = sample::workload("legacy-1", "legacy", "edge-2", "10.1.0.13");
    legacy.dataplane_mode = Some(DataplaneMode::None);
    mesh.workloads.push(legacy.into());
    mesh.authorization_policies = policies;
    intended(&mesh).unwrap()
}

fn asked(mesh: &Intended, from: &str, to: &str) -> Result<Explanation, QuestionError> {
    let (from, to) = (from.to_owned(), to.to_owned());
    let request = None;
    explain(
        &mesh.view,
        &mesh.names,
        &mesh.waypoints,
        &Question {
            from,
            to,
            request,
            udp: false,
        },
    )
}

#[test]
fn each_question_has_its_answer() {
    let open = mesh(Vec::new());
    let guarded = mesh(vec![
        only("cluster.local/ns/shop/sa/web", Action::Allow, 10),
        only("*/sa/evil", Action::Deny, 20),
    ]);
    for (view, from, to, allowed, reason) in [
        (
            &open,
            "shop/web-1",
            "cart:80",
            true,
            "no policy that allows",
        ),
        (
            &open,
            "shop/web-1",
            "cart.shop:80",
            true,
            "no policy that allows",
        ),
        (
            &guarded,
            "shop/web-1",
            "cart.shop.mesh.internal:80",
            true,
            "policy shop/p10 (shop.toml:13)",
        ),
        (
            &guarded,
            "shop/web-1",
            "Cart.Shop.Mesh.Internal.:80",
            true,
            "policy shop/p10",
        ),
        (
            &guarded,
            "shop/web-1",
            "10.1.0.11:8080",
            true,
            "policy shop/p10",
        ),
        (
            &guarded,
            "shop/cart-1",
            "cart:80",
            false,
            "not allowed by policy shop/p10 (shop.toml:10)",
        ),
        (
            &guarded,
            "shop/legacy-1",
            "10.1.0.11:8080",
            false,
            "not allowed by policy shop/p10",
        ),
        (
            &guarded,
            "shop/legacy-1",
            "cart:80",
            false,
            "nobody answers",
        ),
        (&guarded, "shop/web-1", "10.1.0.13:80", true, "not captured"),
        (
            &open,
            "shop/web-1",
            "cart:81",
            false,
            "refused by the client's node: service",
        ),
        (
            &open,
            "shop/web-1",
            "192.0.2.1:80",
            true,
            "sent there as it is",
        ),
        (
            &open,
            "shop/legacy-1",
            "192.0.2.1:80",
            true,
            "not of the mesh",
        ),
        (
            &open,
            "shop/web-1",
            "10.1.0.11:15008",
            false,
            "the proxy's own",
        ),
    ] {
        let answer = asked(view, from, to).unwrap();
        let told = format!("{from} to {to}: {}", answer.reason);
        assert_eq!(answer.allowed, allowed, "{told}");
        assert!(answer.reason.contains(reason), "{told}");
    }
}

#[test]
fn every_policy_is_shown_with_its_line() {
    let view = mesh(vec![
        only("cluster.local/ns/shop/sa/web", Action::Allow, 10),
        only("*/sa/evil", Action::Deny, 20),
    ]);
    let answer = asked(&view, "shop/web-1", "cart:80").unwrap();
    let shown: Vec<_> = answer.ways[0].policies.iter().collect();
    let told = shown
        .iter()
        .map(|j| (&*j.policy, &*j.action, j.matches, &*j.place));
    let want = [
        ("shop/p20", "DENY", false, "shop.toml:20"),
        ("shop/p10", "ALLOW", true, "shop.toml:13"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), want);
}

#[test]
fn one_closed_way_of_several_is_told() {
    let mut declared = sample::mesh();
    for namespace in declared.namespaces.values_mut() {
        namespace.dataplane_mode = Some(DataplaneMode::Ambient);
    }
    let mut second = sample::workload("cart-2", "cart", "edge-2", "10.1.0.14");
    second.labels.insert("version".to_owned(), "v2".to_owned());
    declared.workloads.push(second.into());
    for workload in &mut declared.workloads {
        workload.capture = Some(Capture::Netns(workload.name.clone()));
    }
    let mut closes = only("*", Action::Deny, 10);
    closes.attachment = Attachment::Selector([("version".to_owned(), "v2".to_owned())].into());
    declared.authorization_policies.push(closes);
    let view = intended(&declared).unwrap();
    let answer = asked(&view, "shop/web-1", "cart:80").unwrap();
    assert!(!answer.allowed && answer.ways.len() == 2);
    assert!(
        answer
            .reason
            .starts_with("it depends on the endpoint: 1 of 2"),
        "{}",
        answer.reason
    );
    assert!(answer.reason.contains("shop/cart-2"), "{}", answer.reason);
}

#[test]
fn a_question_about_nothing_says_so() {
    let view = mesh(Vec::new());
    for (from, to, want) in [
        ("web-1", "cart:80", "namespace/name"),
        ("shop/web-2", "cart:80", "did you mean `shop/web-1`?"),
        ("shop/web-1", "cart", "host:port"),
        ("shop/web-1", "cart:http", "host:port"),
        ("shop/web-1", ":80", "host:port"),
        ("shop/web-1", "carts:80", "did you mean `cart`?"),
        ("shop/web-1", "cart.shoop:80", "did you mean `cart.shop`?"),
    ] {
        let refused = asked(&view, from, to).unwrap_err().to_string();
        assert!(refused.contains(want), "{from} to {to}: {refused}");
    }
}

#[test]
fn a_waypoint_is_a_step_on_the_way() {
    let mut mesh = sample::mesh();
    mesh.gateways = vec![sample::gateway("wp", WaypointFor::Service)];
    let mut machine = sample::node("edge-3");
    machine.addresses = vec!["192.0.2.3".parse().unwrap()];
    mesh.nodes.insert(machine.name.clone(), machine);
    mesh.services[0].use_waypoint = sample::using("wp");
    let view = intended(&mesh).unwrap();
    let told = asked(&view, "shop/web-1", "cart:80").unwrap();
    let waypoint = told.steps.iter().find(|step| step.stage == "waypoint");
    let waypoint = &waypoint.unwrap().text;
    assert!(
        waypoint.contains("behind waypoint shop/wp: HBONE to 192.0.2.3:15008"),
        "{waypoint}"
    );
    assert!(told.allowed, "{}", told.reason);
    let seen = told.ways[0]
        .steps
        .iter()
        .find(|step| step.stage == "arrival");
    let seen = &seen.unwrap().text;
    assert!(seen.contains("/ns/shop/sa/wp from 192.0.2.3"), "{seen}");

    // Its policies see the waypoint, and not who is behind it (vectors 33 and 34).
    mesh.authorization_policies = vec![only("cluster.local/ns/shop/sa/web", Action::Allow, 10)];
    let view = intended(&mesh).unwrap();
    let told = asked(&view, "shop/web-1", "cart:80").unwrap();
    assert!(!told.allowed, "{}", told.reason);
    mesh.authorization_policies = vec![only("cluster.local/ns/shop/sa/wp", Action::Allow, 10)];
    let view = intended(&mesh).unwrap();
    assert!(asked(&view, "shop/web-1", "cart:80").unwrap().allowed);
    assert!(
        !asked(&view, "shop/web-1", "10.1.0.11:8080")
            .unwrap()
            .allowed
    );
}

#[test]
fn what_a_waypoint_finds_by_itself_is_sent_on() {
    let mut mesh = sample::mesh();
    for namespace in mesh.namespaces.values_mut() {
        namespace.dataplane_mode = Some(DataplaneMode::Ambient);
    }
    for workload in &mut mesh.workloads {
        workload.capture = Some(Capture::Netns(workload.name.clone()));
    }
    mesh.gateways = vec![sample::gateway("wp", WaypointFor::Service)];
    let mut machine = sample::node("edge-3");
    machine.addresses = vec!["192.0.2.3".parse().unwrap()];
    mesh.nodes.insert(machine.name.clone(), machine);
    for (name, host, resolution, address, reason) in [
        (
            "asis",
            "asis.example",
            Resolution::None,
            "198.51.100.7",
            "sent on to 198.51.100.7:",
        ),
        (
            "wild",
            "*.wild.example",
            Resolution::DynamicDns,
            "198.51.100.8",
            "to the host that is asked for",
        ),
    ] {
        let mut entry = sample::outside::entry(name, &[host], resolution);
        entry.addresses = vec![address.parse::<IpAddr>().unwrap().into()];
        entry.use_waypoint = sample::using("wp");
        mesh.service_entries = vec![entry];
        let known = intended(&mesh).unwrap();
        let told = asked(&known, "shop/web-1", &format!("{address}:443")).unwrap();
        assert!(told.allowed, "{name}: {}", told.reason);
        assert!(told.reason.contains(reason), "{name}: {}", told.reason);
    }
}

#[test]
fn a_shared_address_means_who_declares_the_port() {
    let mut mesh = sample::mesh();
    mesh.workloads[0].capture = Some(Capture::Unit(Arc::from("cart.service")));
    let mut legacy = sample::workload("legacy-1", "legacy", "edge-2", "10.1.0.13");
    legacy.dataplane_mode = Some(DataplaneMode::None);
    mesh.workloads.push(legacy.into());
    let mesh = intended(&mesh).unwrap();
    for (from, to, way) in [
        (
            "shop/web-1",
            "cart:80",
            Some(
                "HBONE to shop/cart-1 at 10.1.0.11:15008 by the name cart.shop.sa.cluster.local, asking for 10.1.0.11:8080",
            ),
        ),
        (
            "shop/web-1",
            "10.1.0.11:8080",
            Some("HBONE to shop/cart-1 at 10.1.0.11:15008 by the name"),
        ),
        (
            "shop/legacy-1",
            "10.1.0.11:8080",
            Some("plain text to shop/cart-1"),
        ),
        ("shop/web-1", "10.1.0.11:22", None),
        ("shop/legacy-1", "10.1.0.11:22", None),
    ] {
        let explained = asked(&mesh, from, to).unwrap();
        let steps = explained.ways.first().map(|way| format!("{:?}", way.steps));
        match (way, steps) {
            (Some(way), Some(steps)) => assert!(steps.contains(way), "{from} {to}: {steps}"),
            (way, steps) => assert_eq!(way, steps.as_deref(), "{from} {to}"),
        }
    }
}

#[test]
fn the_transport_is_told_where_it_is_not_the_usual_one() {
    for (name, of_mesh, of_client, want) in [
        ("tcp", Transport::Tcp, None, "HBONE to shop/cart-1"),
        (
            "either",
            Transport::Auto,
            None,
            "HBONE over QUIC or TCP to shop/cart-1",
        ),
        (
            "one insists",
            Transport::Auto,
            Some(Transport::Quic),
            "HBONE over QUIC to shop/cart-1",
        ),
        (
            "one cannot",
            Transport::Quic,
            Some(Transport::Tcp),
            "HBONE to shop/cart-1",
        ),
    ] {
        let mut mesh = sample::mesh();
        mesh.settings.transport = of_mesh;
        mesh.workloads[1].transport = of_client;
        let asked = asked(&intended(&mesh).unwrap(), "shop/web-1", "cart:80").unwrap();
        let told = &asked.ways[0].steps[0].text;
        assert!(told.starts_with(want), "{name}: {told}");
    }
}
