//! What policies cost a connection: the verdict, and finding out which of them hold.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use lateen::identity::SpiffeId;
use lateen::model::policy::{
    Clause, Effect, Guard, Match, Pattern, Policies, Policy, Request, Rule, Scope, Values, Verdict,
};
use lateen::model::workload::Workload;

use crate::clock::Clock;
use crate::mesh::Mesh;

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    let mesh = Mesh::of(10);
    let mut workload = (*mesh.workloads[0]).clone();
    let mut group = c.benchmark_group("policy");
    for own in [1, 100, 1000] {
        let guard = guard(&mut workload, own, 0);
        group.bench_function(BenchmarkId::new("verdict", own), |b| {
            b.iter(|| guard.judge(&request()));
        });
    }
    // A verdict costs what holds for the workload, however much more there is.
    for others in [0, 10_000] {
        let guard = guard(&mut workload, 10, others);
        group.bench_function(BenchmarkId::new("verdict-beside", others), |b| {
            b.iter(|| guard.judge(&request()));
        });
        let policies = policies(10, others);
        group.bench_function(BenchmarkId::new("which-hold-beside", others), |b| {
            b.iter(|| policies.guard(black_box(&workload)));
        });
    }
    group.finish();
}

fn request() -> Request {
    let identity = SpiffeId::Workload {
        trust_domain: lateen::identity::TrustDomain::default(),
        namespace: Arc::from("shop"),
        service_account: Arc::from("web"),
    };
    let from = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 12));
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 11)), 8080);
    Request::new(black_box(Some(&identity)), Some(from), to)
}

/// `own` policies that list the workload: all but one deny somebody else, the last allows.
fn guard(workload: &mut Workload, own: usize, others: usize) -> Guard {
    workload.authorization_policies = (0..own).map(|n| key("own", n)).collect();
    let guard = policies(own, others).guard(workload);
    assert!(matches!(guard.judge(&request()), Verdict::Allowed(Some(_))));
    guard
}

fn policies(own: usize, others: usize) -> Policies {
    let held = (0..own).map(|n| match n + 1 == own {
        true => policy("own", n, Effect::Allow, "cluster.local/ns/shop/sa/web"),
        false => policy("own", n, Effect::Deny, "cluster.local/ns/bank/sa/teller"),
    });
    let other = |n| policy("other", n, Effect::Deny, "*");
    Policies::new(held.chain((0..others).map(other)).map(Arc::new))
}

fn key(kind: &str, number: usize) -> Arc<str> {
    Policy::key_of("shop", &format!("{kind}-{number}"))
}

fn policy(kind: &str, number: usize, effect: Effect, principal: &str) -> Policy {
    let principal = Pattern::parse(principal);
    let only = Match {
        principals: Values {
            any: principal.into_iter().collect(),
            not: Vec::new(),
        },
        destination_ports: Values {
            any: vec![8080],
            not: Vec::new(),
        },
        ..Match::default()
    };
    let clause = Clause {
        matches: vec![only],
    };
    Policy {
        key: key(kind, number),
        namespace: Arc::from("shop"),
        name: Arc::from(format!("{kind}-{number}")),
        scope: Scope::Listed,
        effect,
        dry_run: false,
        rules: vec![Rule {
            line: 1,
            clauses: vec![clause],
        }],
        origin: None,
        unreadable: None,
    }
}
