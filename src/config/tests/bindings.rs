//! Waypoints, and what is behind them.

use std::sync::Arc;

use super::{Code, Row, judge, loaded};
use crate::model::declaration::{
    AllowedRoutes, Canary, CanaryWeight, Machines, Mesh, UseWaypoint, WaypointFor,
};

#[test]
fn each_binding_that_comes_to_nothing_is_found_where_it_is() {
    judge(rows());
}

/// Nodes and namespaces, 10 lines.
const BASE: &str = "[[node]]\nname = \"e\"\naddresses = [\"192.0.2.1\"]\n\
    [[namespace]]\nname = \"infra\"\n[[node]]\nname = \"f\"\naddresses = [\"192.0.2.2\"]\n\n\n";

fn gateway(name: &str, more: &str) -> String {
    format!("[[gateway]]\nname = \"{name}\"\nclass = \"waypoint\"\nnode = \"e\"\n{more}\n")
}

/// In namespace `shop`: its table with one more line, the third; a service from line 4 with one
/// more line, the eighth; a workload from line 9 with one more line, the thirteenth.
fn shop(namespace: &str, service: &str, workload: &str) -> String {
    format!(
        "[[namespace]]\nname = \"shop\"\n{namespace}\n\
         [[service]]\nname = \"cart\"\nnamespace = \"shop\"\nselector = {{ app = \"a\" }}\n\
         ports = [{{ port = 80 }}]\n{service}\n\
         [[workload]]\nname = \"cart-1\"\nnamespace = \"shop\"\naddresses = [\"10.1.0.11\"]\n\
         labels = {{ app = \"a\" }}\n{workload}\n"
    )
}

/// `shop/wp`, `shop/wl`, and `infra/closed`.
fn waypoints() -> String {
    let at = |namespace: &str, more: &str| format!("namespace = \"{namespace}\"\n{more}");
    [
        BASE.to_owned(),
        gateway("wp", &at("shop", "")),
        gateway(
            "wl",
            &at(
                "shop",
                "waypoint-for = \"workload\"\nlisteners = [{ port = 15009 }]",
            ),
        ),
        gateway("closed", &at("infra", "")).replace("\"e\"", "\"f\""),
    ]
    .concat()
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = references();
    rows.extend(outcomes());
    rows.extend(gateways());
    rows.extend(open());
    rows
}

type Found = (&'static str, u32, u32, Code, &'static str);

fn row(name: &'static str, shop: String, want: Vec<Found>) -> Row {
    (name, vec![("a.toml", waypoints()), ("b.toml", shop)], want)
}

/// Who is reached past a waypoint.
fn open() -> Vec<Row> {
    let captured = "node = \"f\"\ndataplane-mode = \"ambient\"\ncapture = { netns = \"a\" }";
    let policy = |more: &str| {
        format!(
            "[[authorization-policy]]\nname = \"a\"\nnamespace = \"shop\"\naction = \"ALLOW\"\n{more}\n"
        )
    };
    let of_wp =
        "rules = [{ from = [{ source = { principals = [\"cluster.local/ns/shop/sa/wp\"] } }] }]";
    let anybody = "rules = [{}]";
    let strict = "[[peer-authentication]]\nname = \"s\"\nnamespace = \"shop\"\nmtls = { mode = \"STRICT\" }\n";
    let one = || shop("use-waypoint = \"wp\"", "", captured);
    let another = "[[service]]\nname = \"also\"\nnamespace = \"shop\"\nselector = { app = \"a\" }\nports = [{ port = 80 }]\n";
    let open = |text| vec![("b.toml", 5, 8, Code::OpenPastWaypoint, text)];
    let told = "service `cart` of namespace `shop` is behind a waypoint";
    [
        ("open past its waypoint", String::new(), open(told)),
        (
            "told once of a namespace",
            another.to_owned(),
            open("service `cart` and 1 more of namespace `shop` are behind"),
        ),
        (
            "waypoints alone are let through",
            "[mesh]\nauto-allow-waypoint = true\n".to_owned(),
            vec![],
        ),
        ("the waypoint is named", policy(of_wp), vec![]),
        ("anybody is let in", policy(anybody), open(told)),
        (
            "anybody with an identity is",
            policy(anybody) + strict,
            vec![],
        ),
        ("strict, and nobody is named", strict.to_owned(), open(told)),
        (
            "the policy is for others",
            policy(of_wp).replace("\"shop\"", "\"infra\""),
            open(told),
        ),
    ]
    .into_iter()
    .map(|(name, more, want)| row(name, one() + &more, want))
    .collect()
}

fn references() -> Vec<Row> {
    use Code::*;
    vec![
        row("all is well", shop("use-waypoint = \"wp\"", "", ""), vec![]),
        row(
            "6 a service's typo",
            shop(
                "use-waypoint = \"wp\"",
                "use-waypoint = \"infra/clozed\"",
                "",
            ),
            vec![(
                "b.toml",
                9,
                16,
                WaypointIsNotReady,
                "did you mean `infra/closed`?",
            )],
        ),
        row(
            "a workload's",
            shop("", "", "use-waypoint = \"nope\""),
            vec![("b.toml", 15, 16, WaypointIsNotReady, "workload `cart-1`")],
        ),
        row(
            "a namespace's, once",
            shop("use-waypoint = \"nope\"", "", ""),
            vec![(
                "b.toml",
                3,
                16,
                WaypointIsNotReady,
                "declare it with `[[gateway]]`",
            )],
        ),
        row(
            "7 of a namespace that is not admitted",
            shop(
                "",
                "use-waypoint = \"closed\"\nuse-waypoint-namespace = \"infra\"",
                "",
            ),
            vec![(
                "b.toml",
                9,
                16,
                AttachmentDenied,
                "does not admit namespace `shop`",
            )],
        ),
    ]
}

fn outcomes() -> Vec<Row> {
    use Code::*;
    vec![
        row(
            "4 yields to the namespace's",
            shop("use-waypoint = \"wp\"", "use-waypoint = \"wl\"", ""),
            vec![("b.toml", 9, 16, WaypointFallThrough, "is behind `shop/wp`")],
        ),
        row(
            "4 without the namespace's",
            shop("", "use-waypoint = \"wl\"", ""),
            vec![("b.toml", 9, 16, UnsupportedTrafficType, "to a service")],
        ),
        row(
            "5 a workload's own",
            shop("", "", "use-waypoint = \"wp\""),
            vec![("b.toml", 15, 16, UnsupportedTrafficType, "to a workload")],
        ),
        row(
            "5 inherited",
            shop("use-waypoint = \"wl\"", "", ""),
            vec![(
                "b.toml",
                3,
                16,
                UnsupportedTrafficTypeInherited,
                "`cart` of namespace `shop` go",
            )],
        ),
        row(
            "14 a wrong weight",
            shop(
                "",
                "use-waypoint = \"wp\"\nuse-waypoint-canary = \"nope\"\nuse-waypoint-canary-weight = 101",
                "",
            ),
            vec![("b.toml", 10, 23, CanaryNotUsed, "CanaryInvalidWeight")],
        ),
        row(
            "14 the same",
            shop(
                "",
                "use-waypoint = \"wp\"\nuse-waypoint-canary = \"wp\"",
                "",
            ),
            vec![("b.toml", 10, 23, CanaryNotUsed, "CanarySameAsPrimary")],
        ),
        row(
            "14 a namespace's",
            shop(
                "use-waypoint = \"wp\"\nuse-waypoint-canary = \"nope\"",
                "",
                "",
            ),
            vec![("b.toml", 4, 23, CanaryNotUsed, "WaypointIsNotReady")],
        ),
        row(
            "two weights",
            shop(
                "",
                "use-waypoint = \"wp\"\nuse-waypoint-canary-weight = 10\n\
                 annotations = { \"istio.io/use-waypoint-canary-weight\" = \"20\" }",
                "",
            ),
            vec![("b.toml", 11, 57, ConflictingKeys, "disagree")],
        ),
        row(
            "15 a word that is neither",
            shop(
                "",
                "use-waypoint = \"wp\"\nlabels = { \"istio.io/ingress-use-waypoint\" = \"eurt\" }",
                "",
            ),
            vec![("b.toml", 10, 46, NoEffect, "neither true nor false")],
        ),
        row(
            "a misspelt annotation",
            shop(
                "annotations = { \"istio.io/use-waypoint-canary-weigth\" = \"1\", own = \"x\" }",
                "",
                "",
            ),
            vec![("b.toml", 3, 17, UnknownKey, "did you mean")],
        ),
    ]
}

/// A gateway with one more line, the fifth, after [`BASE`].
fn alone(name: &'static str, line: &str, want: (u32, Code, &'static str)) -> Row {
    let text = format!(
        "{BASE}{}",
        gateway("wp", &format!("namespace = \"infra\"\n{line}"))
    );
    (
        name,
        vec![("a.toml", text)],
        vec![("a.toml", 16, want.0, want.1, want.2)],
    )
}

fn gateways() -> Vec<Row> {
    use Code::*;
    let infra = |name: &str, more: &str| gateway(name, &format!("namespace = \"infra\"\n{more}"));
    let file = |text: String, want: Vec<Found>| (vec![("a.toml", format!("{BASE}{text}"))], want);
    let mut rows = vec![
        alone(
            "for what",
            "waypoint-for = \"services\"",
            (16, BadValue, "write `\\\"service\\\"`"),
        ),
        alone(
            "its label",
            "labels = { \"istio.io/waypoint-for\" = \"x\" }",
            (38, BadValue, "expected one of"),
        ),
        alone(
            "a listener for others",
            "listeners = [{ protocol = \"HTTP\" }]",
            (27, Unsupported, "HBONE"),
        ),
        alone(
            "another port",
            "listeners = [{ port = 80 }]",
            (23, BadValue, "15008"),
        ),
        alone(
            "two listeners",
            "listeners = [{ port = 15008 }, { port = 15009 }]",
            (32, ConflictingKeys, "more than one listener"),
        ),
        alone(
            "a selector that is not looked at",
            "listeners = [{ allowed-routes = { namespaces = { from = \"All\", selector = {} } } }]",
            (75, NoEffect, "from = \\\"Selector\\\""),
        ),
        alone(
            "expressions",
            "listeners = [{ allowed-routes = { namespaces = { from = \"Selector\", selector = { match-expressions = [] } } } }]",
            (102, Unsupported, "match-labels"),
        ),
        alone(
            "another binding",
            "annotations = { \"ambient.istio.io/waypoint-inbound-binding\" = \"PROXY/80\" }",
            (63, Unsupported, "HBONE"),
        ),
        alone(
            "a key and its annotation disagree",
            "annotations = { \"ambient.istio.io/xfcc-include-client-identity\" = \"false\" }\nxfcc-include-client-identity = true",
            (67, ConflictingKeys, "drop the annotation"),
        ),
        alone(
            "an address outside the range",
            "addresses = [\"10.9.0.1\"]",
            (14, OutsideServiceRange, "gateway `infra/wp`"),
        ),
    ];
    for (name, (files, want)) in [
        (
            "called none",
            file(
                infra("none", ""),
                vec![("a.toml", 12, 8, BadName, "no waypoint")],
            ),
        ),
        (
            "a later class",
            file(
                infra("wp", "").replace("class = \"waypoint\"", "class = \"istio\""),
                vec![("a.toml", 13, 9, Unsupported, "the one class")],
            ),
        ),
        (
            "no class and no node",
            file(
                "[[gateway]]\nname = \"wp\"\n".to_owned(),
                vec![
                    ("a.toml", 11, 1, MissingKey, "no `class`"),
                    ("a.toml", 11, 1, MissingKey, "no `node`"),
                ],
            ),
        ),
        (
            "on no node there is",
            file(
                infra("wp", "").replace("\"e\"", "\"g\""),
                vec![("a.toml", 14, 8, UnknownNode, "gateway `wp`")],
            ),
        ),
        (
            "on a node without addresses",
            file(
                format!(
                    "{}[[node]]\nname = \"bare\"\n",
                    infra("wp", "").replace("\"e\"", "\"bare\"")
                ),
                vec![("a.toml", 14, 8, MissingKey, "reached by nobody")],
            ),
        ),
        (
            "on machines and on one",
            file(
                infra("wp", "nodes = [\"f\"]"),
                vec![("a.toml", 14, 8, ConflictingKeys, "keep `nodes`")],
            ),
        ),
        (
            "on no machines",
            file(
                infra("wp", "").replace("node = \"e\"", "nodes = []"),
                vec![("a.toml", 14, 9, BadValue, "name at least one")],
            ),
        ),
        (
            "on one machine twice",
            file(
                infra("wp", "").replace("node = \"e\"", "nodes = [\"e\", \"f\", \"e\"]"),
                vec![("a.toml", 14, 20, DuplicateName, "take one of the two out")],
            ),
        ),
        (
            "on a machine that there is not, of several",
            file(
                infra("wp", "").replace("node = \"e\"", "nodes = [\"e\", \"g\"]"),
                vec![("a.toml", 14, 15, UnknownNode, "gateway `wp`")],
            ),
        ),
        (
            "two on one machine, of several",
            file(
                infra("a", "") + &infra("b", "").replace("node = \"e\"", "nodes = [\"f\", \"e\"]"),
                vec![("a.toml", 20, 15, DuplicateAddress, "`a` and `b`")],
            ),
        ),
        (
            "two on one machine",
            file(
                infra("a", "") + &infra("b", ""),
                vec![("a.toml", 20, 8, DuplicateAddress, "port 15008")],
            ),
        ),
        (
            "twice",
            file(
                infra("wp", "") + &infra("wp", "").replace("\"e\"", "\"f\""),
                vec![(
                    "a.toml",
                    18,
                    8,
                    DuplicateName,
                    "gateway `infra/wp` is declared twice",
                )],
            ),
        ),
        (
            "a service's name",
            file(
                infra("cart", "")
                    + &shop("", "", "")
                        .replace("\"shop\"", "\"infra\"")
                        .replace("[[namespace]]\nname = \"infra\"\n", ""),
                vec![("a.toml", 12, 8, DuplicateName, "the name of a service")],
            ),
        ),
        (
            "under another account",
            file(
                infra("wp", "service-account = \"x\"").replace("infra", "t")
                    + "[[namespace]]\nname = \"t\"\nservice-accounts = [\"wp\"]\n",
                vec![("a.toml", 16, 19, UnknownServiceAccount, "gateway `wp`")],
            ),
        ),
        (
            "in no namespace there is",
            file(
                infra("wp", "").replace("infra", "nowhere"),
                vec![("a.toml", 15, 13, UnknownNamespace, "gateway `wp`")],
            ),
        ),
    ] {
        rows.push((name, files, want));
    }
    rows
}

fn mesh(text: &str) -> Mesh {
    let loaded = loaded(&[("a.toml", format!("{BASE}{text}"))]);
    assert!(loaded.report.diagnostics().is_empty(), "{}", loaded.report);
    loaded.mesh.unwrap()
}

#[test]
fn a_gateway_is_read() {
    let plain = mesh(&gateway("wp", "")).gateways.remove(0);
    assert_eq!(
        (&*plain.namespace, &*plain.service_account),
        ("default", "wp")
    );
    assert_eq!(plain.waypoint_for, WaypointFor::Service);
    assert_eq!(plain.allowed_routes, AllowedRoutes::Same);
    assert_eq!(plain.hbone_port, None);
    assert_eq!(plain.machines, Machines::One(Arc::from("e")));
    let text = gateway("wp", "").replace("node = \"e\"", "nodes = [\"f\", \"e\"]");
    let several = mesh(&text).gateways.remove(0).machines;
    let each = ["f", "e"].map(Arc::from);
    assert_eq!(several, Machines::Each(each.to_vec()));
    assert!(!plain.tells_identities);
    for (line, want) in [
        ("xfcc-include-client-identity = true", true),
        ("xfcc-include-client-identity = false", false),
        (
            "annotations = { \"ambient.istio.io/xfcc-include-client-identity\" = \"true\" }",
            true,
        ),
    ] {
        let told = mesh(&gateway("wp", line)).gateways.remove(0);
        assert_eq!(told.tells_identities, want, "{line}");
    }
    for (written, want) in [
        ("from = \"All\"", AllowedRoutes::All),
        ("from = \"Selector\"", AllowedRoutes::Nobody),
        (
            "from = \"Selector\", selector = {}",
            AllowedRoutes::Labels([].into()),
        ),
        (
            "from = \"Selector\", selector = { match-labels = { team = \"a\" } }",
            AllowedRoutes::Labels([("team".to_owned(), "a".to_owned())].into()),
        ),
    ] {
        let text = format!(
            "service-account = \"gate\"\naddresses = [\"240.240.3.3\"]\nlabels = {{ \"istio.io/waypoint-for\" = \"all\", own = \"x\" }}\n\
             listeners = [{{ name = \"mesh\", port = 15009, protocol = \"HBONE\", allowed-routes = {{ namespaces = {{ {written} }} }} }}]"
        );
        let text = gateway("wp", &text).replace("\"waypoint\"", "\"istio-waypoint\"");
        let gateway = mesh(&text).gateways.remove(0);
        assert_eq!(gateway.allowed_routes, want, "{written}");
        assert_eq!(gateway.waypoint_for, WaypointFor::All);
        assert_eq!(&*gateway.service_account, "gate");
        assert_eq!(gateway.hbone_port, Some(15009));
        assert_eq!(gateway.addresses.len(), 1);
        assert_eq!(gateway.labels.len(), 1);
    }
}

#[test]
fn canaries_and_ingress_are_read() {
    let named = |namespace, name| UseWaypoint::Named {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
    };
    for (written, waypoint, weight, ingress) in [
        (
            "use-waypoint-canary = \"infra/c\"\nuse-waypoint-canary-weight = 20\ningress-use-waypoint = true",
            Some(named("infra", "c")),
            Some(CanaryWeight::Percent(20)),
            Some(true),
        ),
        (
            "labels = { \"istio.io/use-waypoint-canary\" = \"c\", \"istio.io/use-waypoint-canary-namespace\" = \"infra\", \"istio.io/ingress-use-waypoint\" = \"T\" }\n\
             annotations = { \"istio.io/use-waypoint-canary-weight\" = \"x\" }",
            Some(named("infra", "c")),
            Some(CanaryWeight::Invalid(Arc::from("x"))),
            Some(true),
        ),
        (
            "use-waypoint-canary = \"\"\ningress-use-waypoint = \"0\"",
            Some(UseWaypoint::None),
            None,
            Some(false),
        ),
    ] {
        let text = format!("[[namespace]]\nname = \"shop\"\n{written}\n");
        let mesh = mesh(&text);
        let shop = &mesh.namespaces["shop"];
        assert_eq!(shop.canary, Canary { waypoint, weight }, "{written}");
        assert_eq!(shop.ingress_use_waypoint, ingress, "{written}");
    }
    let served = mesh("[mesh]\nauto-allow-waypoint = true\n");
    assert!(served.settings.auto_allow_waypoint);
}
