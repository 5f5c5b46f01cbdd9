//! Policies become what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::loaded;
use super::mesh;
use crate::config::Code;
use crate::identity::TrustDomain;
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Condition, Mesh, MtlsMode, Operation, Origin,
    PathPattern, PeerAuthentication, Rule, ServiceAccount, Source, TargetKind, TargetRef, Values,
};
use crate::model::policy::Pattern;

const WORKLOAD: &str =
    "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\nlabels = { app = \"a\" }\n";

fn patterns(any: &[&str], not: &[&str]) -> Values<Pattern> {
    let read = |texts: &[&str]| texts.iter().map(|t| Pattern::parse(t).unwrap()).collect();
    Values {
        any: read(any),
        not: read(not),
    }
}

fn ports(any: &[u16], not: &[u16]) -> Values<u16> {
    Values {
        any: any.to_vec(),
        not: not.to_vec(),
    }
}

fn blocks(any: &[&str], not: &[&str]) -> Values<ipnet::IpNet> {
    let read = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
    Values {
        any: read(any),
        not: read(not),
    }
}

fn accounts(any: &[(&str, &str)], not: &[(&str, &str)]) -> Values<ServiceAccount> {
    let read = |texts: &[(&str, &str)]| {
        let account = |(namespace, name): &(&str, &str)| ServiceAccount {
            namespace: Arc::from(*namespace),
            name: Arc::from(*name),
        };
        texts.iter().map(account).collect()
    };
    Values {
        any: read(any),
        not: read(not),
    }
}

/// A mesh with warnings, as they are of no matter here.
fn warned(text: &str) -> Mesh {
    let loaded = loaded(&[("a.toml", text.to_owned())]);
    assert_eq!(loaded.report.errors(), 0, "{}", loaded.report);
    loaded.mesh.unwrap()
}

const EVERY_FIELD: &str = r#"
[[authorization-policy]]
name = "every.field"
action = "DENY"
dry-run = true
labels = { team = "a" }
annotations = { "istio.io/dry-run" = "T", "example.com/why" = "any text" }
selector = { match-labels = { app = "a" } }

[[authorization-policy.rules]]
from = [
  { source = { principals = ["cluster.local/ns/default/sa/web", "*/sa/web"], not-principals = ["*"], namespaces = ["default", "b*"], not-namespaces = ["*c"], trust-domains = ["cluster.local"], not-trust-domains = ["x*"], ip-blocks = ["10.1.0.1", "10.2.0.0/16", "fd00::/8", "0.0.0.0/0"], not-ip-blocks = ["10.1.0.2"], remote-ip-blocks = ["10.3.0.0/16"], not-remote-ip-blocks = ["10.3.0.1"], request-principals = ["iss/*"], not-request-principals = ["*/sub"] } },
  { source = { service-accounts = ["web", "default/cart"], not-service-accounts = ["ledger"] } },
]
to = [{ operation = { ports = ["80", 8080], not-ports = ["0"], hosts = ["*.example.com"], not-hosts = ["a"], methods = ["GET"], not-methods = ["PUT*"], paths = ["/a*", "/{*}/b/{**}"], not-paths = ["/c"] } }]

[[authorization-policy.rules]]
when = [
  { key = "source.ip", values = ["10.1.0.1"], not-values = ["10.1.0.2"] },
  { key = "source.namespace", values = ["default"] },
  { key = "source.principal", not-values = ["*"] },
  { key = "source.serviceAccount", values = ["web"] },
  { key = "source.trustDomain", values = ["cluster.local"] },
  { key = "destination.ip", values = ["fd00::1"] },
  { key = "destination.port", values = ["80"], not-values = [81] },
  { key = "request.headers[x-token]", values = ["a*"], not-values = ["*b"] },
  { key = "request.auth.claims[a][b]", values = ["c"] },
  { key = "remote.ip", values = ["10.1.0.0/16"] },
  { key = "connection.sni", values = ["*"] },
]
"#;

#[test]
fn every_field_of_a_policy_is_taken() {
    let mesh = warned(&(EVERY_FIELD.to_owned() + WORKLOAD));
    let [policy] = mesh.authorization_policies.as_slice() else {
        panic!()
    };
    let origin = Origin {
        file: Arc::from("a.toml"),
        line: 2,
    };
    let want = AuthorizationPolicy {
        origin,
        name: Arc::from("every.field"),
        namespace: Arc::from("default"),
        attachment: Attachment::Selector(BTreeMap::from([("app".to_owned(), "a".to_owned())])),
        action: Action::Deny,
        dry_run: true,
        rules: vec![
            Rule {
                line: 10,
                from: vec![all_of_a_source(), accounts_of_a_source()],
                to: vec![all_of_an_operation()],
                when: vec![],
            },
            Rule {
                line: 17,
                from: vec![],
                to: vec![],
                when: all_conditions(),
            },
        ],
    };
    assert_eq!(*policy, want);
}

fn all_of_a_source() -> Source {
    Source {
        principals: patterns(&["cluster.local/ns/default/sa/web", "*/sa/web"], &["*"]),
        namespaces: patterns(&["default", "b*"], &["*c"]),
        service_accounts: Values::default(),
        trust_domains: patterns(&["cluster.local"], &["x*"]),
        ip_blocks: blocks(
            &["10.1.0.1/32", "10.2.0.0/16", "fd00::/8", "0.0.0.0/0"],
            &["10.1.0.2/32"],
        ),
        remote_ip_blocks: blocks(&["10.3.0.0/16"], &["10.3.0.1/32"]),
        request_principals: patterns(&["iss/*"], &["*/sub"]),
    }
}

fn accounts_of_a_source() -> Source {
    let (web, cart, ledger) = (
        ("default", "web"),
        ("default", "cart"),
        ("default", "ledger"),
    );
    Source {
        service_accounts: accounts(&[web, cart], &[ledger]),
        ..Source::default()
    }
}

fn all_of_an_operation() -> Operation {
    let text = |text| PathPattern::Text(Pattern::parse(text).unwrap());
    Operation {
        ports: ports(&[80, 8080], &[0]),
        hosts: patterns(&["*.example.com"], &["a"]),
        methods: patterns(&["GET"], &["PUT*"]),
        paths: Values {
            any: vec![text("/a*"), PathPattern::Template(Arc::from("/{*}/b/{**}"))],
            not: vec![text("/c")],
        },
    }
}

fn all_conditions() -> Vec<Condition> {
    let waypoint = |key: &str, values| Condition::Waypoint {
        key: key.parse().unwrap(),
        values,
    };
    vec![
        Condition::SourceIp(blocks(&["10.1.0.1/32"], &["10.1.0.2/32"])),
        Condition::SourceNamespace(patterns(&["default"], &[])),
        Condition::SourcePrincipal(patterns(&[], &["*"])),
        Condition::SourceServiceAccount(accounts(&[("default", "web")], &[])),
        Condition::SourceTrustDomain(patterns(&["cluster.local"], &[])),
        Condition::DestinationIp(blocks(&["fd00::1/128"], &[])),
        Condition::DestinationPort(ports(&[80], &[81])),
        waypoint("request.headers[x-token]", patterns(&["a*"], &["*b"])),
        waypoint("request.auth.claims[a][b]", patterns(&["c"], &[])),
        Condition::RemoteIp(blocks(&["10.1.0.0/16"], &[])),
        waypoint("connection.sni", patterns(&["*"], &[])),
    ]
}

#[test]
fn what_a_policy_leaves_out_is_filled_in() {
    let text = "default-namespace = \"shop\"\n[[namespace]]\nname = \"shop\"\n\
        [[authorization-policy]]\nname = \"all\"\nrules = [{}]\n\
        [[authorization-policy]]\nname = \"none\"\nrules = []\ntarget-refs = []\n\
        annotations = { \"istio.io/dry-run\" = \"0\" }\n\
        [[authorization-policy]]\nname = \"accounts\"\nnamespace = \"istio-system\"\n\
        rules = [{ from = [{ source = { service-accounts = [\"shop/web\"] } }] }]\n\
        [[peer-authentication]]\nname = \"peers\"\nselector = {}\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    let [all, none, accounts] = mesh.authorization_policies.as_slice() else {
        panic!()
    };
    for policy in [all, none, accounts] {
        assert_eq!(policy.attachment, Attachment::Namespace, "{}", policy.name);
        assert_eq!(policy.action, Action::Allow, "{}", policy.name);
        assert!(!policy.dry_run, "{}", policy.name);
    }
    assert_eq!(
        (&*all.namespace, &*accounts.namespace),
        ("shop", "istio-system")
    );
    let everything = Rule {
        line: 6,
        ..Rule::default()
    };
    assert_eq!(all.rules, [everything]);
    assert_eq!(none.rules, []);
    let [peers] = mesh.peer_authentications.as_slice() else {
        panic!()
    };
    assert_eq!((peers.mode, peers.selector.len()), (MtlsMode::Unset, 0));
    // The root namespace holds policies and is no namespace of workloads for that.
    assert_eq!(
        mesh.namespaces.keys().map(|n| &**n).collect::<Vec<_>>(),
        ["shop"]
    );
}

#[test]
fn accounts_without_a_namespace_are_of_the_policys_own() {
    let text = "[[namespace]]\nname = \"shop\"\n[[authorization-policy]]\nname = \"p\"\nnamespace = \"shop\"\n\
        rules = [{ from = [{ source = { service-accounts = [\"web\", \"default/web\"] } }] }]\n";
    let mesh = mesh(&[("a.toml", text.to_owned())]);
    let rule = &mesh.authorization_policies[0].rules[0];
    let want = accounts(&[("shop", "web"), ("default", "web")], &[]);
    assert_eq!(rule.from[0].service_accounts, want);
}

#[test]
fn targets_are_read() {
    let text = "[[authorization-policy]]\nname = \"a\"\nrules = []\ntarget-refs = [\
        { kind = \"Gateway\", name = \"w\", group = \"gateway.networking.k8s.io\", namespace = \"\" }, \
        { kind = \"ServiceEntry\", name = \"e\", group = \"networking.istio.io\" }]\n\
        [[authorization-policy]]\nname = \"b\"\naction = \"CUSTOM\"\nprovider = { name = \"opa\" }\nrules = [{}]\n\
        target-ref = { kind = \"Service\", name = \"s\", group = \"core\" }\n\
        [[authorization-policy]]\nname = \"c\"\naction = \"AUDIT\"\n";
    let mesh = warned(text);
    let target = |kind, name| TargetRef {
        kind,
        name: Arc::from(name),
    };
    let (gateway, entry) = (TargetKind::Gateway, TargetKind::ServiceEntry);
    let attachments: Vec<_> = mesh
        .authorization_policies
        .iter()
        .map(|p| &p.attachment)
        .collect();
    let want = [
        &Attachment::Targets(vec![target(gateway, "w"), target(entry, "e")]),
        &Attachment::Targets(vec![target(TargetKind::Service, "s")]),
        &Attachment::Namespace,
    ];
    assert_eq!(attachments, want);
    let actions: Vec<_> = mesh
        .authorization_policies
        .iter()
        .map(|p| &p.action)
        .collect();
    let want = [
        &Action::Allow,
        &Action::Custom(Arc::from("opa")),
        &Action::Audit,
    ];
    assert_eq!(actions, want);
}

#[test]
fn peer_authentications_are_taken_as_written() {
    let text = "[[peer-authentication]]\nname = \"p\"\nmtls = { mode = \"STRICT\" }\n\
        selector = { match-labels = { app = \"a\" } }\n\
        port-level-mtls = { 8080 = { mode = \"DISABLE\" }, \"9090\" = { mode = \"PERMISSIVE\" }, 7 = { mode = \"UNSET\" } }\n";
    let mesh = mesh(&[("a.toml", text.to_owned() + WORKLOAD)]);
    let want = PeerAuthentication {
        origin: Origin {
            file: Arc::from("a.toml"),
            line: 1,
        },
        name: Arc::from("p"),
        namespace: Arc::from("default"),
        selector: BTreeMap::from([("app".to_owned(), "a".to_owned())]),
        mode: MtlsMode::Strict,
        ports: BTreeMap::from([
            (7, MtlsMode::Unset),
            (8080, MtlsMode::Disable),
            (9090, MtlsMode::Permissive),
        ]),
    };
    assert_eq!(mesh.peer_authentications, [want]);
}

#[test]
fn policies_are_in_the_order_of_files_and_lines() {
    let policy = |name: &str| format!("[[authorization-policy]]\nname = \"{name}\"\nrules = []\n");
    let peers = |name: &str, app: &str| {
        format!(
            "[[peer-authentication]]\nname = \"{name}\"\nselector.match-labels.app = \"{app}\"\n"
        )
    };
    let loaded = loaded(&[
        ("b.toml", policy("1") + &peers("1", "x")),
        ("a/z.toml", policy("4") + &policy("3") + &peers("4", "y")),
        ("B.toml", policy("2")),
    ]);
    // Nobody carries the labels.
    let codes = loaded.report.diagnostics().iter().map(|d| d.code());
    assert_eq!(codes.collect::<Vec<_>>(), [Code::SelectorMatchesNothing; 2]);
    let mesh = loaded.mesh.unwrap();
    let names = mesh.authorization_policies.iter().map(|p| &*p.name);
    assert_eq!(names.collect::<Vec<_>>(), ["2", "4", "3", "1"]);
    let names = mesh.peer_authentications.iter().map(|p| &*p.name);
    assert_eq!(names.collect::<Vec<_>>(), ["4", "1"]);
}

#[test]
fn go_knows_twelve_words_for_true_and_false() {
    for (word, want) in [
        ("1", true),
        ("t", true),
        ("T", true),
        ("true", true),
        ("True", true),
        ("TRUE", true),
        ("0", false),
        ("f", false),
        ("F", false),
        ("false", false),
        ("False", false),
        ("FALSE", false),
    ] {
        let text = format!(
            "[[authorization-policy]]\nname = \"p\"\nrules = []\nannotations.\"istio.io/dry-run\" = \"{word}\"\n"
        );
        let mesh = mesh(&[("a.toml", text)]);
        assert_eq!(mesh.authorization_policies[0].dry_run, want, "{word}");
    }
}

#[test]
fn aliases_of_the_trust_domain_are_taken() {
    let text = "[mesh]\ntrust-domain-aliases = [\"old.example\", \"older\"]\n";
    let aliases = mesh(&[("a.toml", text.to_owned())])
        .settings
        .trust_domain_aliases;
    let aliases: Vec<_> = aliases.iter().map(TrustDomain::as_str).collect();
    assert_eq!(aliases, ["old.example", "older"]);
}
