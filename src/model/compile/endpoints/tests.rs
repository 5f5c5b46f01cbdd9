use super::*;
use crate::model::compile::sample::{labels, mesh, service, workload};
use crate::model::compile::{Assignments, Compiled, Observed, Reported, compile, workload_uid};

/// A service `cart` of workloads `a`, `b` and so on, one for each letter of `states`: `+` healthy,
/// `-` unhealthy, `~` healthy and held back, `=` unhealthy and held back, `0` healthy without a
/// share of the traffic.
fn carts(states: &str) -> Compiled {
    let mut mesh = mesh();
    mesh.workloads.clear();
    let mut reported = Reported::default();
    for (state, name) in states.chars().zip('a'..) {
        let name = name.to_string();
        let mut cart = workload(&name, "cart", "edge-1", "10.1.0.1");
        cart.capacity = u32::from(state != '0');
        mesh.workloads.push(cart.into());
        let observed = Observed {
            captured: true,
            health: match state {
                '-' | '=' => Health::Unhealthy,
                _ => Health::Healthy,
            },
            held: matches!(state, '~' | '='),
        };
        reported.set(workload_uid("Kubernetes", "shop", &name), observed);
    }
    compile(&mesh, &reported, &Assignments::default()).unwrap()
}

fn published(compiled: &Compiled) -> String {
    let letter = |workload: &Arc<Workload>| match workload.health {
        Health::Healthy => '+',
        Health::Unhealthy => '-',
    };
    compiled.workloads.iter().map(letter).collect()
}

#[test]
fn all_are_used_when_none_is_healthy() {
    use HealthPolicy::{AllowAll, OnlyHealthy};
    for (name, states, want, policy, counts) in [
        ("all healthy", "+++", "+++", OnlyHealthy, (3, 3)),
        ("one fails", "+-+", "+-+", OnlyHealthy, (2, 3)),
        ("one is left", "--+", "--+", OnlyHealthy, (1, 3)),
        ("all fail", "---", "---", AllowAll, (0, 3)),
        ("the only one fails", "-", "-", AllowAll, (0, 1)),
        ("nobody is there", "", "", OnlyHealthy, (0, 0)),
        (
            "a share of nothing is no help",
            "-0",
            "-+",
            AllowAll,
            (0, 1),
        ),
        ("held back", "~++", "-++", OnlyHealthy, (2, 3)),
        (
            "the last healthy one is not",
            "~--",
            "+--",
            OnlyHealthy,
            (1, 3),
        ),
        ("nor are the last two", "~~-", "++-", OnlyHealthy, (2, 3)),
        ("held back and failing", "=--", "---", AllowAll, (0, 3)),
        (
            "one without a share is no other",
            "~0",
            "++",
            OnlyHealthy,
            (1, 1),
        ),
    ] {
        let compiled = carts(states);
        assert_eq!(published(&compiled), want, "{name}");
        let cart = &compiled.services[0];
        assert_eq!(cart.load_balancing.health_policy, policy, "{name}");
        let count = compiled.endpoints.get(&cart.key).copied();
        let count = count.unwrap_or_default();
        assert_eq!((count.healthy, count.total), counts, "{name}");
    }
}

#[test]
fn one_that_two_services_share_is_kept_for_the_one_that_needs_it() {
    let mut mesh = mesh();
    let mut both = workload("both", "cart", "edge-1", "10.1.0.1");
    both.labels = labels(&[("app", "cart"), ("tier", "old")]);
    mesh.workloads = vec![
        both.into(),
        workload("other", "cart", "edge-1", "10.1.0.2").into(),
    ];
    let mut old = service("old");
    old.selector = labels(&[("tier", "old")]);
    let held = Observed {
        held: true,
        ..Observed::default()
    };
    let reported = [(workload_uid("Kubernetes", "shop", "both"), held)];
    let reported = reported.into_iter().collect();
    for (name, services, want) in [
        ("cart has another", vec![service("cart")], "-+"),
        ("old has none", vec![service("cart"), old], "++"),
    ] {
        mesh.services = services;
        let compiled = compile(&mesh, &reported, &Assignments::default()).unwrap();
        assert_eq!(published(&compiled), want, "{name}");
    }
}
