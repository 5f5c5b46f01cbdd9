//! What policies of a waypoint cost a request: the verdict, where the last of so many rules decides.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use http::HeaderMap;
use lateen::identity::{SpiffeId, TrustDomain};
use lateen::model::attached::PolicyKey;
use lateen::model::authorization::{Asked, Authorization, Http, Set, Verdict};
use lateen::model::declaration::{Action, Operation, Origin, PathPattern, Rule, Source, Values};
use lateen::model::policy::{Pattern, Peer};

use crate::clock::Clock;

/// How many rules a policy has, as Istio bounds it.
const RULES: usize = 500;

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    let identity = SpiffeId::Workload {
        trust_domain: TrustDomain::default(),
        namespace: Arc::from("shop"),
        service_account: Arc::from("web"),
    };
    let peer = Peer::new(&identity);
    let mut headers = HeaderMap::new();
    headers.insert("x-user", "anna".parse().expect("a header"));
    let asked = Asked {
        peer: peer.as_ref(),
        source: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 12)),
        remote: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 12)),
        destination: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 20)), 80),
        server_name: None,
        http: Some(Http {
            method: "GET",
            path: "/api/v1/items/4711",
            target: "/api/v1/items/4711?q=1",
            authority: "cart.shop.mesh.internal",
            scheme: "http",
            headers: &headers,
            token: None,
        }),
    };
    let mut group = c.benchmark_group("authorization");
    for rules in [0, 10, 1_000] {
        let set = set(rules);
        assert!(matches!(set.judge(&asked), Verdict::Allowed(_)));
        group.bench_function(BenchmarkId::new("verdict", rules), |b| {
            b.iter(|| set.judge(black_box(&asked)));
        });
    }
    group.finish();
}

/// So many rules, of which the last takes the request.
fn set(rules: usize) -> Set {
    let rules: Vec<Rule> = (0..rules).map(|n| rule(n, n + 1 == rules)).collect();
    let policies = rules.chunks(RULES).enumerate().map(|(n, rules)| {
        let key = PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from(format!("p-{n}")),
        };
        Arc::new(Authorization {
            key,
            origin: Origin {
                file: Arc::from("shop.toml"),
                line: 1,
            },
            action: Action::Allow,
            dry_run: false,
            rules: rules.to_vec(),
        })
    });
    Set::new(policies, None)
}

fn rule(number: usize, takes: bool) -> Rule {
    let path = match takes {
        true => "/api/v1/items/*".to_owned(),
        false => format!("/api/v1/items/{number}/parts*"),
    };
    let only = |text: &str| Values {
        any: Pattern::parse(text).into_iter().collect(),
        not: Vec::new(),
    };
    Rule {
        from: vec![Source {
            principals: only("cluster.local/ns/shop/sa/*"),
            ..Source::default()
        }],
        to: vec![Operation {
            methods: only("GET"),
            paths: Values {
                any: Pattern::parse(&path)
                    .map(PathPattern::Text)
                    .into_iter()
                    .collect(),
                not: Vec::new(),
            },
            ..Operation::default()
        }],
        when: Vec::new(),
        line: 1,
    }
}
