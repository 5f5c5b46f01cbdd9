//! Rows about policies and what they are for.

use super::super::{Code, Row};
use super::{service, workload};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = placed();
    rows.extend(selected());
    rows.extend(targeted());
    rows.extend(mentioned());
    rows.extend(at_node_proxies());
    rows.extend(levels());
    rows
}

/// A policy that lets nobody in, on purpose; its fourth line is `more`.
fn closed(more: &str) -> String {
    format!("[[authorization-policy]]\nname = \"p\"\nrules = []\n{more}\n")
}

/// A policy that does `action` by these rules, which begin at line 4, column 10.
fn ruled(action: &str, rules: &str) -> String {
    format!("[[authorization-policy]]\nname = \"p\"\naction = \"{action}\"\nrules = [{rules}]\n")
}

fn authentication(name: &str, more: &str) -> String {
    format!("[[peer-authentication]]\nname = \"{name}\"\nmtls.mode = \"STRICT\"\n{more}\n")
}

const SELECTOR: &str = "selector = { match-labels = { app = \"a\" } }";

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
            vec![],
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
    let loud = (
        "b.toml",
        4,
        15,
        NotInForce,
        "this version serves no waypoints",
    );
    vec![
        (
            "a service",
            vec![("a.toml", cart.clone()), ("b.toml", target("Service", "cart"))],
            vec![loud],
        ),
        (
            "a service by the older key",
            vec![
                ("a.toml", cart.clone()),
                ("b.toml", closed("target-ref = { kind = \"Service\", name = \"cart\" }")),
            ],
            vec![("b.toml", 4, 14, NotInForce, "serves no waypoints")],
        ),
        (
            "a misspelt service",
            vec![("a.toml", cart.clone()), ("b.toml", target("Service", "crat"))],
            vec![loud, ("b.toml", 4, 16, TargetNotFound, "did you mean `cart`?")],
        ),
        (
            "a service of another namespace",
            vec![
                ("a.toml", cart),
                ("b.toml", target("Service", "cart") + in_root),
            ],
            vec![loud, ("b.toml", 4, 16, TargetNotFound, "no such target")],
        ),
        (
            "all waypoints",
            vec![("b.toml", target("GatewayClass", "istio-waypoint") + in_root)],
            vec![loud],
        ),
        (
            "all waypoints, from elsewhere",
            vec![("b.toml", target("GatewayClass", "waypoint"))],
            vec![loud, ("b.toml", 4, 16, NoEffect, "attaches nowhere")],
        ),
        (
            "a class that is none",
            vec![("b.toml", target("GatewayClass", "waypiont") + in_root)],
            vec![loud, ("b.toml", 4, 16, TargetNotFound, "did you mean `waypoint`?")],
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

fn mentioned() -> Vec<Row> {
    use Code::*;
    let shop = "[[namespace]]\nname = \"shop\"\nservice-accounts = [\"cart\", \"web\"]\n";
    let rule = |source: &str| {
        ruled(
            "ALLOW",
            &format!("{{ from = [{{ source = {{ {source} }} }}] }}"),
        )
    };
    let with_shop = |source: &str| vec![("a.toml", shop.to_owned()), ("b.toml", rule(source))];
    let aliases = "[mesh]\ntrust-domain = \"td1\"\ntrust-domain-aliases = [\"td2\"]\n";
    vec![
        (
            "all that is declared, and patterns",
            with_shop("namespaces = [\"shop\", \"default\", \"x*\"], trust-domains = [\"cluster.local\", \"*x\"]"),
            vec![],
        ),
        (
            "identities that another mesh may have",
            with_shop("principals = [\"cluster.local/ns/x/sa/y\", \"cluster.local/ns/x*\", \"*/sa/y\", \"*\"]"),
            vec![],
        ),
        (
            "a misspelt namespace",
            with_shop("not-namespaces = [\"shpo\"]"),
            vec![("b.toml", 4, 51, NeverMatches, "did you mean `shop`?")],
        ),
        (
            "accounts, one of an unknown namespace, one unknown",
            with_shop("service-accounts = [\"own\", \"shop/web\", \"shpo/web\", \"shop/wbe\"]"),
            vec![
                ("b.toml", 4, 72, NeverMatches, "did you mean `shop`?"),
                ("b.toml", 4, 84, NeverMatches, "did you mean `web`?"),
            ],
        ),
        (
            "trust domains",
            vec![
                ("a.toml", aliases.to_owned()),
                ("b.toml", rule("principals = [\"td2/ns/a/sa/b\", \"cluster.local/ns/a/sa/b\", \"td9/ns/a/sa/b\", \"cluster.local/ns/a/*\"]")),
                ("c.toml", "[[authorization-policy]]\nname = \"q\"\nrules = [{ when = [{ key = \"source.trustDomain\", values = [\"td3\"] }] }]\n".to_owned()),
            ],
            vec![
                ("b.toml", 4, 91, NeverMatches, "nobody of trust domain `td9`"),
                ("b.toml", 4, 108, NeverMatches, "nobody of trust domain `cluster.local`"),
                ("c.toml", 3, 60, NeverMatches, "`trust-domain-aliases` in `[mesh]`"),
            ],
        ),
    ]
}

/// `spec/labels-and-policy.md` §3.5, row by row.
fn at_node_proxies() -> Vec<Row> {
    use Code::*;
    let both = "{ from = [{ source = { principals = [\"*\"], request-principals = [\"*\"] } }] }";
    let ports = "{ to = [{ operation = { ports = [\"80\"], methods = [\"GET\"] } }] }";
    let apart = "{ from = [{ source = { principals = [\"*\"] } }], to = [{ operation = { methods = [\"GET\"] } }] }";
    let header = "{ from = [{ source = { principals = [\"*\"] } }], when = [{ key = \"request.headers[a]\", values = [\"b\"] }] }";
    let either =
        "{ to = [{ operation = { methods = [\"GET\"] } }, { operation = { ports = [\"80\"] } }] }";
    let token = "{ from = [{ source = { request-principals = [\"*\"] } }] }";
    let sni = "{ when = [{ key = \"source.namespace\", values = [\"default\"] }, { key = \"connection.sni\", values = [\"a\"] }] }";
    let layer4 = "{ from = [{ source = { ip-blocks = [\"10.1.0.0/16\"] } }], to = [{ operation = { ports = [80] } }] }";
    let mut rows: Vec<Row> = vec![
        (
            "everything, and what node proxies know",
            vec![
                ("a.toml", ruled("ALLOW", &format!("{{}}, {layer4}"))),
                (
                    "b.toml",
                    ruled("DENY", &format!("{{}}, {layer4}")).replace("\"p\"", "\"q\""),
                ),
            ],
            vec![],
        ),
        (
            "nothing allowed, and nothing said",
            vec![(
                "a.toml",
                "[[authorization-policy]]\nname = \"p\"\n".to_owned(),
            )],
            vec![("a.toml", 2, 8, AllowsNothing, "write `rules = []`")],
        ),
        (
            "nothing allowed, on purpose",
            vec![("a.toml", closed(""))],
            vec![],
        ),
        (
            "one rule of two",
            vec![("a.toml", ruled("ALLOW", &format!("{layer4}, {ports}")))],
            vec![(
                "a.toml",
                4,
                10 + u32::try_from(layer4.len()).unwrap() + 2,
                AllowsLess,
                "needs `methods`",
            )],
        ),
    ];
    for (name, rule, code, text) in [
        (
            "a source of both",
            both,
            DeniesMore,
            "without `request-principals`",
        ),
        (
            "an operation of both",
            ports,
            DeniesMore,
            "without `methods`",
        ),
        (
            "operations beside sources",
            apart,
            DeniesNothing,
            "never match this rule, which needs `methods`",
        ),
        (
            "a header",
            header,
            DeniesNothing,
            "needs `request.headers[a]`",
        ),
        (
            "two operations",
            either,
            DeniesNothing,
            "the part of this rule that has nothing but `methods`",
        ),
        (
            "a token",
            token,
            DeniesNothing,
            "needs `request-principals`",
        ),
        (
            "a server name",
            sni,
            DeniesNothing,
            "needs `connection.sni`",
        ),
    ] {
        let allowed = vec![("a.toml", ruled("ALLOW", rule))];
        rows.push((
            name,
            allowed,
            vec![("a.toml", 2, 8, AllowsNothing, "leave out all its rules")],
        ));
        let denied = vec![("a.toml", ruled("DENY", rule))];
        rows.push((name, denied, vec![("a.toml", 4, 10, code, text)]));
    }
    rows
}

fn levels() -> Vec<Row> {
    use Code::*;
    let labels = |key: &str| format!("selector = {{ match-labels = {{ {key} = \"a\" }} }}");
    let root = "namespace = \"istio-system\"\n";
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
