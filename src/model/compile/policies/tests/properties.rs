//! The compiled form says what the declared form means, before the wire and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::naive::Naive;
use super::shorthand::{Asked, Judge, ROOT, account, mesh, network, pattern, told, written_on};
use crate::identity::{SpiffeId, TrustDomain};
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Condition, Mesh, MtlsMode, Operation, PathPattern,
    PeerAuthentication, Rule, Source, TargetKind, TargetRef, Values,
};
use crate::model::policy::{Guard, Policies};
use crate::wire::convert::{decode_policy, encode_policy};

const PRINCIPALS: [&str; 16] = [
    "*",
    "*/sa/web",
    "*b",
    "*/ns/shop/sa/web",
    "cluster.local/ns/shop/sa/web",
    "cluster.local/ns/shop/sa/we",
    "cluster.local/ns/shop/sa/w*",
    "cluster.local/ns/shop/*",
    "cluster.local/ns/infra/sa/cart",
    "td1/ns/shop/sa/web",
    "td1/ns/shop/sa/*",
    "td-2/ns/infra/sa/web",
    "td9/ns/shop/sa/web",
    "*l/ns/shop/sa/web",
    "*2/ns/infra/sa/cart",
    "td*",
];
const NAMESPACES: [&str; 6] = ["*", "shop", "infra", "sh*", "*a", "sho"];
const ACCOUNTS: [&str; 4] = ["shop/web", "shop/cart", "infra/web", "infra/cart"];
const TRUST_DOMAINS: [&str; 7] = ["*", "cluster.local", "td1", "td-2", "td*", "*2", "td9"];
const SOURCES: [&str; 7] = [
    "10.1.0.77/24",
    "10.1.0.12",
    "10.1.0.0/24",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "2001:db8::/33",
    "::/0",
];
const DESTINATIONS: [&str; 4] = ["10.1.0.11", "10.1.0.8/29", "10.1.0.16/28", "2001:db8::/32"];
const PORTS: [u16; 3] = [80, 8080, 9090];
const HTTP: [&str; 4] = [
    "request.headers[a]",
    "request.auth.claims[a]",
    "connection.sni",
    "request.auth.presenter",
];

/// Some of a pool: to be, not to be, or of both kinds.
fn values<T: Clone + Debug + 'static>(pool: &'static [T]) -> impl Strategy<Value = Values<T>> {
    let some = |most: usize| vec(select(pool), 1..=most);
    prop_oneof![
        5 => some(3).prop_map(|any| Values { any, not: Vec::new() }),
        3 => some(2).prop_map(|not| Values { any: Vec::new(), not }),
        2 => (some(2), some(1)).prop_map(|(any, not)| Values { any, not }),
    ]
}

fn read<T: Debug>(
    pool: &'static [&'static str],
    read: impl Fn(&str) -> T,
) -> impl Strategy<Value = Values<T>> {
    values(pool).prop_map(move |texts| Values {
        any: texts.any.into_iter().map(&read).collect(),
        not: texts.not.into_iter().map(&read).collect(),
    })
}

/// A field that is asked for one time in `n`.
fn rarely<T: Debug>(
    n: u32,
    field: impl Strategy<Value = Values<T>>,
) -> impl Strategy<Value = Values<T>> {
    weighted(1.0 / f64::from(n), field).prop_map(Option::unwrap_or_default)
}

fn source() -> impl Strategy<Value = Source> {
    let fields = (
        rarely(3, read(&PRINCIPALS, pattern)),
        rarely(4, read(&NAMESPACES, pattern)),
        rarely(5, read(&ACCOUNTS, |text| account(text, ""))),
        rarely(4, read(&TRUST_DOMAINS, pattern)),
        rarely(4, read(&SOURCES, network)),
        rarely(9, read(&SOURCES, network)),
        rarely(9, read(&["i/s", "*"], pattern)),
    );
    (fields, read(&PRINCIPALS, pattern)).prop_map(|(fields, instead)| {
        let (
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
        ) = fields;
        let mut source = Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
        };
        if source == Source::default() {
            source.principals = instead;
        }
        source
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let paths = read(&["/a*"], |text| PathPattern::Text(pattern(text)));
    let http = (
        rarely(9, read(&["a"], pattern)),
        rarely(9, read(&["GET"], pattern)),
        rarely(9, paths),
    );
    let ports = values(&PORTS);
    (0..6, ports, http).prop_map(|(draw, ports, (hosts, methods, paths))| {
        let bare = hosts.is_empty() && methods.is_empty() && paths.is_empty();
        let ports = if draw > 0 || bare {
            ports
        } else {
            Values::default()
        };
        Operation {
            ports,
            hosts,
            methods,
            paths,
        }
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        2 => read(&SOURCES, network).prop_map(Condition::SourceIp),
        2 => read(&NAMESPACES, pattern).prop_map(Condition::SourceNamespace),
        2 => read(&PRINCIPALS, pattern).prop_map(Condition::SourcePrincipal),
        2 => read(&ACCOUNTS, |text| account(text, "")).prop_map(Condition::SourceServiceAccount),
        2 => read(&TRUST_DOMAINS, pattern).prop_map(Condition::SourceTrustDomain),
        2 => read(&DESTINATIONS, network).prop_map(Condition::DestinationIp),
        2 => values(&PORTS).prop_map(Condition::DestinationPort),
        1 => read(&SOURCES, network).prop_map(Condition::RemoteIp),
        1 => (select(&HTTP[..]), read(&["a"], pattern)).prop_map(|(key, values)| {
            Condition::Waypoint { key: key.parse().unwrap(), values }
        }),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let (from, to, when) = (
        vec(source(), 0..3),
        vec(operation(), 0..3),
        vec(condition(), 0..3),
    );
    (from, to, when).prop_map(|(from, to, when)| Rule {
        line: 1,
        from,
        to,
        when,
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pairs = select(vec![
        &[("app", "cart")][..],
        &[("app", "web")],
        &[("app", "cart"), ("version", "v1")],
    ]);
    pairs.prop_map(|pairs| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    })
}

fn namespace() -> impl Strategy<Value = Arc<str>> {
    select(&["shop", "shop", "shop", "infra", ROOT, ROOT][..]).prop_map(Arc::from)
}

fn authorization() -> impl Strategy<Value = AuthorizationPolicy> {
    let target = TargetRef {
        kind: TargetKind::Service,
        name: Arc::from("cart"),
    };
    let attachment = prop_oneof![
        5 => Just(Attachment::Namespace),
        3 => labels().prop_map(Attachment::Selector),
        1 => Just(Attachment::Targets(vec![target])),
    ];
    let action = prop_oneof![
        6 => Just(Action::Allow),
        6 => Just(Action::Deny),
        1 => Just(Action::Audit),
        1 => Just(Action::Custom(Arc::from("asker"))),
    ];
    (
        namespace(),
        attachment,
        action,
        prop::bool::weighted(0.15),
        vec(rule(), 0..4),
    )
        .prop_map(
            |(namespace, attachment, action, dry_run, rules)| AuthorizationPolicy {
                origin: written_on(1),
                name: Arc::from(""),
                namespace,
                attachment,
                action,
                dry_run,
                rules,
            },
        )
}

fn peer_authentication() -> impl Strategy<Value = PeerAuthentication> {
    let mode = || {
        select(vec![
            MtlsMode::Unset,
            MtlsMode::Disable,
            MtlsMode::Permissive,
            MtlsMode::Strict,
        ])
    };
    let narrow = (labels(), btree_map(select(&PORTS[..]), mode(), 0..3)).prop_map(Some);
    let (whom, namespace) = (prop_oneof![Just(None), narrow], namespace());
    (namespace, whom, mode()).prop_map(|(namespace, whom, mode)| {
        let (selector, ports) = whom.unwrap_or_default();
        PeerAuthentication {
            origin: written_on(1),
            name: Arc::from(""),
            namespace,
            selector,
            mode,
            ports,
        }
    })
}

/// Policies of every kind in some order, which is their age; all of them with names of their own.
fn meshes() -> impl Strategy<Value = Mesh> {
    let domain = || select(&["cluster.local", "td1"][..]);
    let aliases = subsequence(vec!["td-2", "td3"], 0..=2);
    let policies = (
        vec(authorization(), 1..=6),
        vec(peer_authentication(), 0..4),
    );
    (domain(), aliases, policies).prop_map(|(domain, aliases, (authorization, peer))| {
        let mut mesh = mesh(&[]);
        mesh.settings.trust_domain = domain.parse().unwrap();
        mesh.settings.trust_domain_aliases = aliases.iter().map(|a| a.parse().unwrap()).collect();
        mesh.authorization_policies = authorization;
        mesh.peer_authentications = peer;
        for (policy, n) in mesh.authorization_policies.iter_mut().rev().zip(1..) {
            policy.name = Arc::from(format!("a{n}"));
            policy.origin = written_on(n);
        }
        for (policy, n) in mesh.peer_authentications.iter_mut().zip(1..) {
            policy.name = Arc::from(format!("s{n}"));
            policy.origin = written_on(n);
        }
        mesh
    })
}

/// Peers that a mesh shakes hands with, and those without a name.
fn requests(mesh: &Mesh) -> impl Strategy<Value = Asked> + use<> {
    let own = std::iter::once(&mesh.settings.trust_domain);
    let bundle: Vec<TrustDomain> = own
        .chain(&mesh.settings.trust_domain_aliases)
        .cloned()
        .collect();
    let named = (
        select(bundle),
        select(&["shop", "infra", "x"][..]),
        select(&["web", "cart"][..]),
    );
    let named =
        named.prop_map(|(td, namespace, name)| SpiffeId::workload(&td, namespace, name).ok());
    let peer = prop_oneof![5 => named, 1 => Just(None)];
    let sources = [
        "10.1.0.12",
        "10.2.0.1",
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8:8000::1",
        "::ffff:10.1.0.12",
    ];
    let workloads = ["cart-1", "cart-1", "cart-1", "web-1", "cart-2", "root-1"];
    (
        peer,
        select(sources.to_vec()),
        select(&PORTS[..]),
        select(workloads.to_vec()),
    )
        .prop_map(|(peer, source, port, workload)| Asked {
            peer,
            source: source.parse().unwrap(),
            port,
            workload: workload.to_owned(),
        })
}

fn cases() -> impl Strategy<Value = (Mesh, Vec<Asked>)> {
    meshes().prop_flat_map(|mesh| {
        let requests = vec(requests(&mesh), 1..12);
        (Just(mesh), requests)
    })
}

/// The policies as another node decodes them.
fn over_the_wire(judge: &Judge) -> Policies {
    let decoded = judge.compiled.policies.iter().map(|policy| {
        let bytes = encode_policy(policy);
        Arc::new(decode_policy(&policy.key, &bytes).unwrap())
    });
    Policies::new(decoded)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn compiled_is_what_is_declared((mesh, asked) in cases()) {
        let judge = Judge::new(mesh.clone());
        let received = over_the_wire(&judge);
        for asked in &asked {
            let workload = judge.declared(&asked.workload);
            let naive = Naive::new(&mesh, workload, asked);
            let want = naive.verdict();
            prop_assert_eq!(&judge.verdict(asked), &want, "{:?}", asked);
            let rehearsed: BTreeSet<String> = judge.rehearsal(asked).into_iter().collect();
            prop_assert_eq!(rehearsed, naive.rehearsal(), "{:?}", asked);
            let guard = received.guard(judge.workload(&asked.workload));
            let after = guard.judge(&judge.request(asked));
            prop_assert_eq!(told(&after), want, "after the wire: {:?}", asked);
        }
    }
}

/// The property above would hold of meshes that let everything in.
#[test]
fn all_verdicts_are_drawn() {
    const CASES: usize = 2000;
    let mut runner = TestRunner::deterministic();
    let mut drawn: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..CASES {
        let (mesh, asked) = cases().new_tree(&mut runner).unwrap().current();
        let judge = Judge::new(mesh);
        let verdict = judge.verdict(&asked[0]);
        let kind = match verdict.as_str() {
            "in" if judge.guard(&asked[0].workload).means(&Guard::default()) => "open",
            "in" => "in",
            "unallowed" => "unallowed",
            strict if strict.contains("converted") => "strict",
            _ => "denied",
        };
        *drawn.entry(kind).or_default() += 1;
    }
    let [often, seldom] = [CASES / 20, CASES / 50];
    for (kind, least) in [
        ("in", often),
        ("unallowed", often),
        ("denied", often),
        ("strict", seldom),
    ] {
        let times = drawn.get(kind).copied().unwrap_or_default();
        assert!(times >= least, "{kind}: {drawn:?}");
    }
}
