//! Verdicts on requests and connections (`spec/waypoint-l7.md` §11, rows 48 to 58, as far as they are
//! policy's alone).

mod indexed;

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::*;
use crate::identity::SpiffeId;
use crate::model::authorization::{Http, Token};
use crate::model::declaration::{
    Attribute, Condition, Operation, Origin, PathPattern, Rule, ServiceAccount, Source, Values,
};
use crate::model::policy::{Pattern, Peer};

/// A rule by its fields, `not-` for a twin, values parted by `|`: `methods=GET paths=/a*|/b`. Fields of a
/// source make one source, those of an operation one operation, keys with a dot a condition each.
fn rule(text: &str) -> Rule {
    let mut rule = Rule::default();
    let (mut source, mut operation) = (Source::default(), Operation::default());
    for field in text.split_whitespace() {
        let (key, values) = field.split_once('=').unwrap();
        let (key, not) = match key.strip_prefix("not-") {
            Some(key) => (key, true),
            None => (key, false),
        };
        fn put<T>(to: &mut Values<T>, not: bool, values: &str, read: impl Fn(&str) -> T) {
            let read = values.split('|').map(read);
            if not { &mut to.not } else { &mut to.any }.extend(read);
        }
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let account = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            ServiceAccount {
                namespace: Arc::from(namespace),
                name: Arc::from(name),
            }
        };
        let path = |text: &str| match text.contains('{') {
            true => PathPattern::Template(Arc::from(text)),
            false => PathPattern::Text(pattern(text)),
        };
        match key {
            "principals" => put(&mut source.principals, not, values, pattern),
            "namespaces" => put(&mut source.namespaces, not, values, pattern),
            "accounts" => put(&mut source.service_accounts, not, values, account),
            "domains" => put(&mut source.trust_domains, not, values, pattern),
            "ips" => put(&mut source.ip_blocks, not, values, |t| t.parse().unwrap()),
            "remotes" => put(&mut source.remote_ip_blocks, not, values, |t| {
                t.parse().unwrap()
            }),
            "tokens" => put(&mut source.request_principals, not, values, pattern),
            "ports" => put(&mut operation.ports, not, values, |t| t.parse().unwrap()),
            "hosts" => put(&mut operation.hosts, not, values, pattern),
            "methods" => put(&mut operation.methods, not, values, pattern),
            "paths" => put(&mut operation.paths, not, values, path),
            "remote.ip" => {
                let mut nets = Values::default();
                put(&mut nets, not, values, |t| t.parse().unwrap());
                rule.when.push(Condition::RemoteIp(nets));
            }
            key => {
                let key: Attribute = key.parse().unwrap();
                let mut patterns = Values::default();
                put(&mut patterns, not, values, pattern);
                rule.when.push(Condition::Waypoint {
                    key,
                    values: patterns,
                });
            }
        }
    }
    rule.from = Some(source)
        .filter(|s| *s != Source::default())
        .into_iter()
        .collect();
    rule.to = Some(operation)
        .filter(|o| *o != Operation::default())
        .into_iter()
        .collect();
    rule
}

fn policy(name: &str, action: Action, rules: &[&str]) -> Arc<Authorization> {
    Arc::new(Authorization {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        },
        origin: Origin {
            file: Arc::from("shop.toml"),
            line: 7,
        },
        action,
        dry_run: false,
        rules: rules.iter().map(|text| rule(text)).collect(),
    })
}

/// What is asked for: a request line, fields a line each, and by whom.
struct Client {
    line: &'static str,
    fields: &'static [(&'static str, &'static str)],
    host: &'static str,
    token: Option<Token>,
}

const fn client(line: &'static str) -> Client {
    Client {
        line,
        fields: &[],
        host: "echo",
        token: None,
    }
}

/// Whether it passes.
fn passes(policies: &[Arc<Authorization>], client: &Client) -> bool {
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let peer = Peer::new(&identity).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in client.fields {
        headers.append(*name, value.parse().unwrap());
    }
    let http = client.line.split_once(' ').map(|(method, target)| Http {
        method,
        path: target.split('?').next().unwrap(),
        target,
        authority: client.host,
        scheme: "http",
        headers: &headers,
        token: client.token.as_ref(),
    });
    let asked = Asked {
        peer: Some(&peer),
        source: IpAddr::from([10, 77, 1, 11]),
        remote: IpAddr::from([192, 0, 2, 7]),
        destination: SocketAddr::from(([10, 96, 0, 20], 80)),
        server_name: None,
        http,
    };
    let set = Set::new(policies.iter().cloned(), None);
    matches!(set.judge(&asked), Verdict::Allowed(_))
}

fn token(claims: &str) -> Token {
    Token {
        issuer: Arc::from("issuer-1"),
        subject: Arc::from("sub-1"),
        claims: serde_json::from_str(claims).unwrap(),
        spaced: Arc::from([]),
    }
}

#[test]
fn requests_pass_as_rules_say() {
    let get = client;
    for (action, rules, asked, want) in [
        (
            Action::Allow,
            &["methods=GET paths=/public*"][..],
            get("GET /public"),
            true,
        ),
        (
            Action::Allow,
            &["methods=GET paths=/public*"],
            get("GET /private"),
            false,
        ),
        (
            Action::Allow,
            &["methods=GET paths=/public*"],
            get("POST /public"),
            false,
        ),
        (Action::Allow, &["methods=GET"], get("get /"), false),
        (Action::Allow, &[], get("GET /"), false),
        (Action::Deny, &[], get("GET /"), true),
        (Action::Allow, &[""], get("GET /"), true),
        (Action::Deny, &[""], get("GET /"), false),
        (
            Action::Deny,
            &["paths=/admin"],
            get("GET /admin?x=/"),
            false,
        ),
        (
            Action::Allow,
            &["paths=/allow/admin/{**}"],
            get("GET /allow/admin/"),
            true,
        ),
        (
            Action::Allow,
            &["paths=/allow/admin/{**}"],
            get("GET /allow/admin?param=value"),
            false,
        ),
        (
            Action::Allow,
            &["paths=/allow/admin/{**}"],
            get("GET /allow/admin/foo/temp.txt"),
            true,
        ),
        (Action::Allow, &["ports=80"], get("GET /"), true),
        (Action::Allow, &["ports=8080"], get("GET /"), false),
        (Action::Allow, &["not-ports=80"], get("GET /"), false),
        (
            Action::Allow,
            &["principals=cluster.local/ns/shop/sa/web"],
            get("GET /"),
            true,
        ),
        (Action::Allow, &["principals=*/sa/api"], get("GET /"), false),
        (
            Action::Allow,
            &["namespaces=shop accounts=shop/web domains=cluster.local"],
            get("GET /"),
            true,
        ),
        (Action::Allow, &["domains=other"], get("GET /"), false),
        (Action::Allow, &["ips=10.77.0.0/16"], get("GET /"), true),
        (
            Action::Allow,
            &["remotes=10.77.0.0/16"],
            get("GET /"),
            false,
        ),
        (Action::Allow, &["remotes=192.0.2.0/24"], get("GET /"), true),
        (
            Action::Deny,
            &["remote.ip=192.0.2.7/32"],
            get("GET /"),
            false,
        ),
        (
            Action::Allow,
            &["not-paths=/healthz"],
            get("GET /healthz"),
            false,
        ),
        (
            Action::Allow,
            &["paths=/a", "paths=/b"],
            get("GET /b"),
            true,
        ),
        (
            Action::Allow,
            &["paths=/a methods=GET|POST not-methods=POST"],
            get("POST /a"),
            false,
        ),
    ] {
        let policies = [policy("p", action.clone(), rules)];
        let told = format!("{action:?} {rules:?} {}", asked.line);
        assert_eq!(passes(&policies, &asked), want, "{told}");
    }
}

#[test]
fn hosts_and_fields_are_compared_as_they_are_written() {
    let field = |fields| Client {
        fields,
        ..client("GET /")
    };
    let host = |host| Client {
        host,
        ..client("GET /")
    };
    for (action, rule, asked, want) in [
        (Action::Allow, "hosts=a.com", host("A.COM"), true),
        (Action::Allow, "hosts=a.com", host("a.com:80"), false),
        (Action::Allow, "hosts=a.com|a.com:*", host("a.com:80"), true),
        (Action::Allow, "hosts=A.com", host("a.com"), true),
        (Action::Deny, "hosts=*.evil", host("x.EVIL"), false),
        // The same name, as DNS has it in full.
        (Action::Deny, "hosts=a.com", host("a.com."), false),
        (Action::Deny, "hosts=a.com:*", host("A.com.:80"), false),
        (Action::Deny, "hosts=*.com", host("a.com."), false),
        (Action::Allow, "hosts=a.com", host("a.com."), true),
        (Action::Allow, "not-hosts=a.com", host("a.com."), false),
        (Action::Deny, "hosts=a.com.", host("a.com."), false),
        (
            Action::Allow,
            "request.headers[x-test]=*",
            field(&[("x-test", "")]),
            true,
        ),
        (
            Action::Allow,
            "request.headers[x-test]=*",
            field(&[]),
            false,
        ),
        (
            Action::Deny,
            "not-request.headers[x-test]=v",
            field(&[]),
            false,
        ),
        (
            Action::Deny,
            "not-request.headers[x-test]=v",
            field(&[("x-test", "v")]),
            true,
        ),
        (
            Action::Deny,
            "request.headers[x-role]=admin",
            field(&[("x-role", "user"), ("x-role", "admin")]),
            false,
        ),
        (
            Action::Deny,
            "request.headers[x-role]=admin",
            field(&[("x-role", "admin"), ("x-role", "user")]),
            false,
        ),
        (
            Action::Deny,
            "request.headers[x-role]=user,admin",
            field(&[("x-role", "user"), ("x-role", "admin")]),
            false,
        ),
        (
            Action::Allow,
            "request.headers[x-role]=user",
            field(&[("x-role", "user"), ("x-role", "admin")]),
            false,
        ),
        (
            Action::Allow,
            "not-request.headers[x-role]=admin",
            field(&[("x-role", "user"), ("x-role", "admin")]),
            false,
        ),
        (
            Action::Deny,
            "not-request.headers[x-role]=user",
            field(&[("x-role", "user"), ("x-role", "user")]),
            false,
        ),
        (
            Action::Allow,
            "request.headers[:method]=GET",
            field(&[]),
            true,
        ),
        (
            Action::Deny,
            "request.headers[host]=echo",
            field(&[]),
            false,
        ),
    ] {
        let policies = [policy("p", action.clone(), &[rule])];
        let told = format!("{action:?} {rule} {} {:?}", asked.host, asked.fields);
        assert_eq!(passes(&policies, &asked), want, "{told}");
    }
}

#[test]
fn tokens_count_when_they_were_validated() {
    let with = |claims: Option<&str>| Client {
        token: claims.map(token),
        ..client("GET /")
    };
    for (action, rule, claims, want) in [
        (
            Action::Allow,
            "request.auth.claims[a][b]=v",
            Some(r#"{"a": {"b": "v"}}"#),
            true,
        ),
        (
            Action::Allow,
            "request.auth.claims[a][b]=v",
            Some(r#"{"a": {"b": ["w", "v"]}}"#),
            true,
        ),
        (
            Action::Allow,
            "request.auth.claims[a][b]=v",
            Some(r#"{"a": {"b": "x v"}}"#),
            false,
        ),
        (
            Action::Allow,
            "request.auth.claims[a][b]=v",
            Some("{}"),
            false,
        ),
        (Action::Allow, "request.auth.claims[a][b]=v", None, false),
        (Action::Deny, "not-tokens=*", None, false),
        (Action::Deny, "not-tokens=*", Some("{}"), true),
        (Action::Allow, "tokens=issuer-1/sub-1", Some("{}"), true),
        (Action::Allow, "tokens=issuer-1/sub-2", Some("{}"), false),
        (
            Action::Allow,
            "request.auth.principal=issuer-1/*",
            Some("{}"),
            true,
        ),
        (
            Action::Allow,
            "request.auth.audiences=foo",
            Some(r#"{"aud": ["bar", "foo"]}"#),
            true,
        ),
        (
            Action::Allow,
            "request.auth.audiences=foo",
            Some(r#"{"aud": "bar"}"#),
            false,
        ),
        (
            Action::Allow,
            "request.auth.presenter=p",
            Some(r#"{"azp": "p"}"#),
            true,
        ),
        (Action::Allow, "not-request.auth.claims[a]=b", None, true),
    ] {
        let policies = [policy("p", action.clone(), &[rule])];
        assert_eq!(
            passes(&policies, &with(claims)),
            want,
            "{action:?} {rule} {claims:?}"
        );
    }
}

#[test]
fn connections_have_no_requests_to_go_by() {
    for (action, rules, want) in [
        (Action::Allow, &["ports=80"][..], true),
        (Action::Allow, &["ports=80 methods=GET"], false),
        (Action::Allow, &["methods=GET", "principals=*"], true),
        (Action::Deny, &["methods=GET"], false),
        (Action::Deny, &["methods=GET ports=81"], true),
        (Action::Deny, &["not-tokens=*"], false),
        (
            Action::Deny,
            &["request.headers[x]=y ips=10.77.1.12/32"],
            true,
        ),
        (Action::Deny, &["remote.ip=192.0.2.9/32"], false),
        (Action::Deny, &["connection.sni=a"], true),
        (Action::Allow, &["not-connection.sni=a"], true),
    ] {
        let policies = [policy("p", action.clone(), rules)];
        assert_eq!(passes(&policies, &client("")), want, "{action:?} {rules:?}");
    }
}

#[test]
fn what_denies_comes_before_what_allows() {
    let policies = [
        policy("allow", Action::Allow, &["paths=/allow*"]),
        policy("deny", Action::Deny, &["paths=/allow/admin"]),
    ];
    for (line, want) in [
        ("GET /allow/admin?param=value", false),
        ("GET /allow?param=value", true),
        ("GET /other", false),
    ] {
        assert_eq!(passes(&policies, &client(line)), want, "{line}");
    }
    let with = |action| [policy("p", action, &["paths=/a"])];
    let custom = Action::Custom(Arc::from("opa"));
    assert!(passes(&with(Action::Audit), &client("GET /a")));
    assert!(passes(&with(custom), &client("GET /a")));
}

#[test]
fn who_is_asked_and_what_is_told() {
    let custom =
        |name, provider, paths| policy(name, Action::Custom(Arc::from(provider)), &[paths]);
    let tried = |action, rules: &[&str]| {
        let mut tried = Authorization::clone(&policy("tried", action, rules));
        tried.dry_run = true;
        Arc::new(tried)
    };
    let headers = HeaderMap::new();
    let asked = Asked {
        peer: None,
        source: IpAddr::from([10, 77, 1, 11]),
        remote: IpAddr::from([10, 77, 1, 11]),
        destination: SocketAddr::from(([10, 96, 0, 20], 80)),
        server_name: None,
        http: Some(Http {
            method: "GET",
            path: "/a",
            target: "/a",
            authority: "echo",
            scheme: "http",
            headers: &headers,
            token: None,
        }),
    };
    let set = Set::new(
        [
            custom("one", "opa", "paths=/b"),
            custom("two", "opa", "paths=/a"),
            custom("three", "other", "paths=/*"),
            custom("four", "opa", "paths=/a"),
            policy("audit", Action::Audit, &["paths=/a"]),
            tried(Action::Deny, &["paths=/a"]),
            tried(Action::Allow, &["paths=/b"]),
        ],
        None,
    );
    let questions = set.questions(&asked);
    let questions: Vec<_> = questions
        .iter()
        .map(|q| (&*q.provider, &*q.cause.policy.key.name))
        .collect();
    assert_eq!(questions, [("opa", "two"), ("other", "three")]);
    let marks = set.marks(&asked);
    let marks: Vec<_> = marks.iter().map(ToString::to_string).collect();
    assert_eq!(
        marks,
        [
            "audited by policy shop/audit (shop.toml:7)",
            "would be denied by policy shop/tried (shop.toml:7)",
            "would be denied: no policy would allow it, such as shop/tried",
        ]
    );
    assert_eq!(set.judge(&asked), Verdict::Allowed(None));
    let missing = PolicyKey {
        namespace: Arc::from("shop"),
        name: Arc::from("gone"),
    };
    let set = Set::new([], Some(missing));
    let Verdict::Denied(denial) = set.judge(&asked) else {
        panic!("{set:?}")
    };
    assert_eq!(denial.detail(), "rbac_access_denied_matched_policy[none]");
    let set = Set::new([policy("d", Action::Deny, &["paths=/b", "paths=/a"])], None);
    let Verdict::Denied(denial) = set.judge(&asked) else {
        panic!("{set:?}")
    };
    let want = "rbac_access_denied_matched_policy[ns[shop]-policy[d]-rule[1]]";
    assert_eq!(denial.detail(), want);
}
