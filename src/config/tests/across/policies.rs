//! Rows about policies and what they are for.

use super::super::{Code, Row};
use super::{NODES, service, workload};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = placed();
    rows.extend(selected());
    rows.extend(targeted());
    rows.extend(levels());
    rows
}

/// A policy that lets nobody in, on purpose; its fourth line is `more`.
pub(super) fn closed(more: &str) -> String {
    format!("[[authorization-policy]]\nname = \"p\"\nrules = []\n{more}\n")
}

/// A policy that does `action` by these rules, which begin at line 4, column 10.
pub(super) fn ruled(action: &str, rules: &str) -> String {
    format!("[[authorization-policy]]\nname = \"p\"\naction = \"{action}\"\nrules = [{rules}]\n")
}

fn tokens(target: &str, kind: &str) -> String {
    format!(
        "[[request-authentication]]\nname = \"p\"\nnamespace = \"istio-system\"\ntarget-refs = [{{ kind = \"{kind}\", name = \"{target}\" }}]\njwt-rules = [{{ issuer = \"https://i\" }}]\n"
    )
}

fn authentication(name: &str, more: &str) -> String {
    format!("[[peer-authentication]]\nname = \"{name}\"\nmtls.mode = \"STRICT\"\n{more}\n")
}

const SELECTOR: &str = "selector = { match-labels = { app = \"a\" } }";

const CAPTURED: &str =
    "node = \"edge-1\"\ndataplane-mode = \"ambient\"\ncapture = { netns = \"v\" }";

fn placed() -> Vec<Row> {
    use Code::*;
    vec![
        (
            "a policy twice, and another kind of its name",
            vec![(
                "a.toml",
                closed("") + &closed("") + &authentication("p", ""),
            )],
            vec![(
                "a.toml",
                6,
                8,
                DuplicateName,
                "authorization-policy `default/p`",
            )],
        ),
        (
            "a request-authentication twice",
            vec![("a.toml", tokens("istio-waypoint", "GatewayClass").repeat(2))],
            vec![(
                "a.toml",
                7,
                8,
                DuplicateName,
                "request-authentication `istio-system/p`",
            )],
        ),
        (
            "a request-authentication for nobody",
            vec![("a.toml", tokens("nope", "Service"))],
            vec![(
                "a.toml",
                4,
                16,
                TargetNotFound,
                "request-authentication `p`",
            )],
        ),
        (
            "a peer-authentication twice",
            vec![
                ("a.toml", workload("w", "10.1.0.1", "")),
                (
                    "b.toml",
                    authentication("p", SELECTOR) + &authentication("p", ""),
                ),
            ],
            vec![(
                "b.toml",
                6,
                8,
                DuplicateName,
                "peer-authentication `default/p`",
            )],
        ),
        (
            "policies in unknown namespaces",
            vec![(
                "a.toml",
                closed("namespace = \"x\"") + &authentication("q", "namespace = \"y\""),
            )],
            vec![
                (
                    "a.toml",
                    4,
                    13,
                    UnknownNamespace,
                    "authorization-policy `p`",
                ),
                ("a.toml", 8, 13, UnknownNamespace, "peer-authentication `q`"),
            ],
        ),
        (
            "policies in the root namespace, which needs no declaration",
            vec![(
                "a.toml",
                "[mesh]\nroot-namespace = \"root\"\n".to_owned()
                    + &closed("namespace = \"root\"")
                    + &authentication("q", "namespace = \"root\""),
            )],
            vec![],
        ),
        (
            "what is not a policy needs it to be declared",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "namespace = \"istio-system\""),
            )],
            vec![("a.toml", 5, 13, UnknownNamespace, "declare it")],
        ),
    ]
}

fn selected() -> Vec<Row> {
    use Code::*;
    let root = "namespace = \"istio-system\"\n";
    let elsewhere = "[[namespace]]\nname = \"x\"\n".to_owned()
        + &workload("w", "10.1.0.1", "namespace = \"x\"");
    vec![
        (
            "selectors of workloads",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "") + &closed(SELECTOR) + &authentication("q", SELECTOR),
            )],
            vec![(
                "a.toml",
                7,
                8,
                NotInForce,
                "none of the workloads it is for is captured",
            )],
        ),
        (
            "selectors of workloads of which one is captured",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "")
                    + &workload("v", "10.1.0.2", CAPTURED)
                    + NODES
                    + &closed(SELECTOR),
            )],
            vec![],
        ),
        (
            "selectors of workloads in another namespace",
            vec![
                ("a.toml", elsewhere.clone()),
                ("b.toml", closed(SELECTOR) + &authentication("q", SELECTOR)),
            ],
            vec![
                (
                    "b.toml",
                    4,
                    12,
                    SelectorMatchesNothing,
                    "`p` selects no workload of namespace `default`",
                ),
                (
                    "b.toml",
                    8,
                    12,
                    SelectorMatchesNothing,
                    "`q` selects no workload",
                ),
            ],
        ),
        (
            "a selector for the whole mesh",
            vec![
                ("a.toml", elsewhere.clone()),
                ("b.toml", closed(&format!("{root}{SELECTOR}"))),
            ],
            vec![("b.toml", 2, 8, NotInForce, "is captured")],
        ),
        (
            "a selector of nothing in the whole mesh",
            vec![("b.toml", closed(&format!("{root}{SELECTOR}")))],
            vec![(
                "b.toml",
                5,
                12,
                SelectorMatchesNothing,
                "no workload of the mesh",
            )],
        ),
        (
            "a selector that the root namespace ignores",
            vec![
                ("a.toml", elsewhere),
                ("b.toml", authentication("q", &format!("{root}{SELECTOR}"))),
            ],
            vec![(
                "b.toml",
                5,
                12,
                NoEffect,
                "is ignored: it is in the root namespace",
            )],
        ),
    ]
}

fn targeted() -> Vec<Row> {
    use Code::*;
    let target = |kind: &str, name: &str| {
        closed(&format!(
            "target-refs = [{{ kind = \"{kind}\", name = \"{name}\" }}]"
        ))
    };
    let in_root = "\nnamespace = \"istio-system\"\n";
    let cart = workload("w", "10.1.0.1", "") + &service("cart", "");
    let waypoint = "[[gateway]]\nname = \"wp\"\nclass = \"waypoint\"\nnode = \"edge-1\"\n";
    let by_path = |action: &str, more: &str| {
        ruled(
            action,
            "{ to = [{ operation = { paths = [\"/admin*\"] } }] }",
        ) + "target-refs = [{ kind = \"Service\", name = \"cart\" }]\n"
            + more
    };
    let by_method = |kind: &str, name: &str, ports: &str| {
        ruled(
            "DENY",
            &format!("{{ to = [{{ operation = {{ {ports}methods = [\"PUT\"] }} }}] }}"),
        ) + &format!("target-refs = [{{ kind = \"{kind}\", name = \"{name}\" }}]\n")
    };
    let tcp = "[[service]]\nname = \"db\"\nuse-waypoint = \"wp\"\nselector.app = \"a\"\n\
        ports = [{ port = 5432, app-protocol = \"tcp\" }]\n";
    let dns = "[[service]]\nname = \"dns\"\nselector.app = \"a\"\nports = [{ port = 53 }, { port = 53, protocol = \"udp\" }]\n";
    let udp = dns.to_owned() + "use-waypoint = \"wp\"\n";
    let dry = |policy: String| policy + "dry-run = true\n";
    let bound = workload("w", "10.1.0.1", "")
        + &service("cart", "use-waypoint = \"wp\"")
        + waypoint
        + NODES;
    vec![
        (
            "a service behind a waypoint",
            vec![("a.toml", bound.clone()), ("b.toml", target("Service", "cart"))],
            vec![],
        ),
        (
            "paths that more slashes get past",
            vec![("a.toml", bound.clone()), ("b.toml", by_path("DENY", ""))],
            vec![("b.toml", 4, 10, SlashesPass, "passed by more slashes")],
        ),
        (
            "the same where it is decided",
            vec![
                ("a.toml", bound.clone() + "[mesh]\npath-normalization = \"BASE\"\n"),
                ("b.toml", by_path("DENY", "")),
            ],
            vec![],
        ),
        (
            "the same where it is only tried, and where it allows",
            vec![
                ("a.toml", bound.clone()),
                ("b.toml", by_path("DENY", "dry-run = true\n")),
                ("c.toml", by_path("ALLOW", "").replace("\"p\"", "\"q\"")),
            ],
            vec![],
        ),
        (
            "a rule by method, beside a port of bytes",
            vec![
                ("a.toml", bound.clone() + tcp),
                ("b.toml", by_method("Service", "db", "")),
                ("c.toml", by_method("Service", "cart", "").replace("\"p\"", "\"q\"")),
                ("d.toml", by_method("Gateway", "wp", "").replace("\"p\"", "\"r\"")),
                ("e.toml", by_method("Gateway", "wp", "ports = [\"80\"], ").replace("\"p\"", "\"s\"")),
            ],
            vec![
                ("b.toml", 4, 10, DeniesMore, "every connection that is no HTTP"),
                ("d.toml", 4, 10, DeniesMore, "every connection that is no HTTP"),
            ],
        ),
        (
            "UDP, which passes no waypoint",
            vec![
                ("a.toml", bound.clone() + &udp),
                ("b.toml", target("Service", "dns")),
                ("c.toml", target("Service", "cart").replace("\"p\"", "\"q\"")),
                ("d.toml", target("Gateway", "wp").replace("\"p\"", "\"r\"")),
                ("e.toml", dry(target("Service", "dns")).replace("\"p\"", "\"s\"")),
            ],
            vec![
                ("b.toml", 4, 16, NotInForce, "for the UDP ports of service `dns`"),
                ("d.toml", 4, 16, NotInForce, "for the UDP ports of service `dns`"),
            ],
        ),
        (
            "UDP behind no waypoint",
            vec![
                ("a.toml", bound.clone() + dns),
                ("b.toml", target("Service", "dns")),
            ],
            vec![("b.toml", 4, 16, AncestorNotBound, "")],
        ),
        (
            "a port of UDP, at its node",
            vec![
                ("a.toml", NODES.to_owned() + &dns.replace("{ port = 53 }, ", "")),
                ("b.toml", workload("v", "10.1.0.2", CAPTURED)),
                ("c.toml", ruled("DENY", "{ to = [{ operation = { ports = [\"53\"] } }] }") + SELECTOR),
            ],
            vec![],
        ),
        (
            "a waypoint, and one that is none",
            vec![
                ("a.toml", bound.clone()),
                ("b.toml", target("Gateway", "wp")),
                ("c.toml", target("Gateway", "pw").replace("\"p\"", "\"q\"")),
            ],
            vec![("c.toml", 4, 16, TargetNotFound, "did you mean `wp`?")],
        ),
        (
            "a service that is behind none",
            vec![("a.toml", cart.clone()), ("b.toml", target("Service", "cart"))],
            vec![("b.toml", 4, 16, AncestorNotBound, "give the service, or its namespace")],
        ),
        (
            "a service by the older key",
            vec![
                ("a.toml", bound),
                ("b.toml", closed("target-ref = { kind = \"Service\", name = \"cart\" }")),
            ],
            vec![],
        ),
        (
            "a misspelt service",
            vec![("a.toml", cart.clone()), ("b.toml", target("Service", "crat"))],
            vec![("b.toml", 4, 16, TargetNotFound, "did you mean `cart`?")],
        ),
        (
            "a service of another namespace",
            vec![
                ("a.toml", cart),
                ("b.toml", target("Service", "cart") + in_root),
            ],
            vec![("b.toml", 4, 16, TargetNotFound, "no such target")],
        ),
        (
            "all waypoints",
            vec![("b.toml", target("GatewayClass", "istio-waypoint") + in_root)],
            vec![],
        ),
        (
            "all waypoints, from elsewhere",
            vec![("b.toml", target("GatewayClass", "waypoint"))],
            vec![("b.toml", 4, 16, NoEffect, "attaches nowhere")],
        ),
        (
            "a class that is none",
            vec![("b.toml", target("GatewayClass", "waypiont") + in_root)],
            vec![("b.toml", 4, 16, TargetNotFound, "did you mean `waypoint`?")],
        ),
        (
            "actions of waypoints at node proxies",
            vec![("b.toml", ruled("AUDIT", "{}")), ("c.toml", "[[authorization-policy]]\nname = \"q\"\naction = \"CUSTOM\"\nprovider.name = \"opa\"\nrules = [{}]\n".to_owned())],
            vec![
                ("b.toml", 3, 10, NotInForce, "only know `ALLOW` and `DENY`"),
                ("c.toml", 3, 10, NotInForce, "`q` is not in force"),
            ],
        ),
    ]
}

fn levels() -> Vec<Row> {
    use Code::*;
    let labels = |key: &str| format!("selector = {{ match-labels = {{ {key} = \"a\" }} }}");
    let root = "namespace = \"istio-system\"\n";
    let ignored = |name: &str| authentication(name, &format!("{root}{SELECTOR}"));
    let two = "[[workload]]\nname = \"v\"\naddresses = [\"10.1.0.2\"]\nlabels = { app = \"a\", tier = \"a\" }\n";
    vec![
        (
            "two of a namespace, in two files",
            vec![
                ("b.toml", authentication("a", "")),
                ("a.toml", authentication("z", "")),
            ],
            vec![(
                "b.toml",
                2,
                8,
                Superseded,
                "`a` says nothing about namespace `default`: `z` stands before it",
            )],
        ),
        (
            "two of the mesh",
            vec![(
                "a.toml",
                authentication("a", root) + &authentication("b", root),
            )],
            vec![("a.toml", 7, 8, Superseded, "the whole mesh")],
        ),
        (
            "one of each reach",
            vec![
                (
                    "a.toml",
                    authentication("a", root)
                        + &authentication("b", "")
                        + &authentication("c", SELECTOR),
                ),
                ("b.toml", workload("w", "10.1.0.1", "")),
            ],
            vec![],
        ),
        (
            "two of a workload in the root namespace, both ignored",
            vec![
                ("a.toml", ignored("a") + &ignored("b")),
                (
                    "b.toml",
                    "[[namespace]]\nname = \"istio-system\"\n".to_owned()
                        + &workload("w", "10.1.0.1", root),
                ),
            ],
            vec![
                ("a.toml", 5, 12, NoEffect, "`a` is ignored"),
                ("a.toml", 10, 12, NoEffect, "`b` is ignored"),
            ],
        ),
        (
            "two of a workload, by different labels",
            vec![
                (
                    "a.toml",
                    authentication("a", &labels("app")) + &authentication("b", &labels("tier")),
                ),
                ("b.toml", two.to_owned()),
            ],
            vec![("a.toml", 6, 8, Superseded, "workload `v`")],
        ),
    ]
}
