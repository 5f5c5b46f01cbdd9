//! Rows about destination rules and the rest of the mesh.

use super::super::{Code, Row};
use super::{NODES, service, workload};

/// A rule for `host`, which is on line 3; its fourth line is `more`.
fn rule(name: &str, host: &str, more: &str) -> String {
    format!("[[destination-rule]]\nname = \"{name}\"\nhost = \"{host}\"\n{more}\n")
}

fn backend_tls(name: &str) -> String {
    format!(
        "[[backend-tls-policy]]\nname = \"{name}\"\ntarget-refs = [{{ kind = \"Service\", name = \"s\" }}]\nvalidation = {{ hostname = \"a\", well-known-ca-certificates = \"System\" }}\n"
    )
}

/// What says that there is to be no TLS.
const DISABLED: &str = "traffic-policy = { tls = { mode = \"DISABLE\" } }";
/// The same, but not for port 80.
const OTHER_PORTS: &str = "traffic-policy = { tls = { mode = \"DISABLE\" }, port-level-settings = [{ port = { number = 80 } }] }";
/// The same, but not for port 80 of a subset.
const OTHER_SUBSETS: &str = "traffic-policy = { tls = { mode = \"DISABLE\" } }\nsubsets = [{ name = \"a\", labels = { app = \"a\" }, traffic-policy = { port-level-settings = [{ port = { number = 80 } }] } }]";
const ROOT: &str = "namespace = \"istio-system\"";
const NAMESPACES: &str =
    "[[namespace]]\nname = \"istio-system\"\n[[namespace]]\nname = \"infra\"\n";

/// A policy for `s`, whose waypoint is of another namespace, and a rule.
fn elsewhere(rule: &str) -> Vec<(&'static str, String)> {
    let waypoint = "[[gateway]]\nname = \"wp\"\nnamespace = \"infra\"\nclass = \"waypoint\"\nnode = \"edge-1\"\n\
        listeners = [{ allowed-routes = { namespaces = { from = \"All\" } } }]\n";
    let served = service("s", "use-waypoint = \"infra/wp\"") + &workload("w", "10.1.0.1", "");
    let text = backend_tls("p") + rule + NAMESPACES + waypoint + NODES + &served;
    vec![("a.toml", text)]
}

/// A service `s` with one workload.
fn served() -> String {
    service("s", "") + &workload("w", "10.1.0.1", "")
}

pub(super) fn rows() -> Vec<Row> {
    use Code::*;
    let file = |text: String| vec![("a.toml", text + &served())];
    let subset = |labels: &str| format!("subsets = [{{ name = \"v1\", labels = {labels} }}]");
    vec![
        (
            "hosts that are there",
            file(
                rule("a", "s", "")
                    + &rule("c", "*.default.mesh.internal", "")
                    + &rule("d", "*", &subset("{ app = \"a\" }")),
            ),
            vec![],
        ),
        (
            "a rule twice",
            file(rule("a", "s", "") + &rule("a", "*", "")),
            vec![(
                "a.toml",
                6,
                8,
                DuplicateName,
                "destination-rule `default/a`",
            )],
        ),
        (
            "an unknown namespace",
            file(rule("a", "s.default.mesh.internal", "namespace = \"x\"")),
            vec![("a.toml", 4, 13, UnknownNamespace, "destination-rule `a`")],
        ),
        (
            "an unknown host, short",
            file(rule("a", "t", "")),
            vec![("a.toml", 3, 8, TargetNotFound, "`t.default.mesh.internal`")],
        ),
        (
            "an unknown host, in full",
            file(rule("a", "s.defualt.mesh.internal", "")),
            vec![(
                "a.toml",
                3,
                8,
                TargetNotFound,
                "did you mean `s.default.mesh.internal`?",
            )],
        ),
        (
            "nobody under a wildcard",
            file(rule("a", "*.example.com", "")),
            vec![("a.toml", 3, 8, TargetNotFound, "unknown host")],
        ),
        (
            "two for one host",
            file(rule("a", "s", "") + &rule("b", "s.default.mesh.internal", "")),
            vec![("a.toml", 7, 8, Superseded, "destination-rule `a`")],
        ),
        (
            "a rule that speaks of TLS comes before a policy, wherever it stands",
            file(backend_tls("p") + &rule("a", "s", DISABLED)),
            vec![(
                "a.toml",
                3,
                43,
                Superseded,
                "destination-rule `a` of the same",
            )],
        ),
        (
            "a rule that does not is no place for a policy's TLS to go",
            file(backend_tls("p") + &rule("a", "s", "")),
            vec![(
                "a.toml",
                3,
                43,
                Unsupported,
                "would be spoken to in plain text",
            )],
        ),
        (
            "a rule that does so for other ports alone",
            file(backend_tls("p") + &rule("a", "s", OTHER_PORTS)),
            vec![("a.toml", 3, 43, Unsupported, "port-level-settings")],
        ),
        (
            "a rule that does so but for a subset's port",
            file(backend_tls("p") + &rule("a", "s", OTHER_SUBSETS)),
            vec![("a.toml", 3, 43, Unsupported, "in plain text")],
        ),
        (
            "a rule for many hosts, and a policy for one",
            file(backend_tls("p") + &rule("a", "*.mesh.internal", "") + &rule("b", "*", "")),
            vec![(
                "a.toml",
                3,
                43,
                Superseded,
                "destination-rule `a` does not hold for `s.default.mesh.internal`",
            )],
        ),
        (
            "a rule for the whole mesh, and a policy for one host",
            file(backend_tls("p") + &rule("a", "*", ROOT) + NAMESPACES),
            vec![("a.toml", 3, 43, Superseded, "takes its place as a whole")],
        ),
        (
            "a rule beside the waypoint, and a policy",
            elsewhere(&rule("a", "*", "namespace = \"infra\"")),
            vec![(
                "a.toml",
                3,
                43,
                Unsupported,
                "not used at waypoint `infra/wp`, and endpoints",
            )],
        ),
        (
            "a rule beside the waypoint that speaks of TLS, and a policy",
            elsewhere(&rule(
                "a",
                "*",
                &format!("namespace = \"infra\"\n{DISABLED}"),
            )),
            vec![(
                "a.toml",
                3,
                43,
                Superseded,
                "not used at waypoint `infra/wp`: destination-rule `a`",
            )],
        ),
        (
            "a subset of nothing",
            file(rule("a", "s", &subset("{ version = \"v1\" }"))),
            vec![("a.toml", 4, 36, SelectorMatchesNothing, "subset `v1`")],
        ),
        (
            "a subset of what the service does not select",
            file(
                rule("a", "s", &subset("{ app = \"b\" }"))
                    + "[[workload]]\nname = \"b\"\naddresses = [\"10.1.0.2\"]\nlabels = { app = \"b\" }\n",
            ),
            vec![("a.toml", 4, 36, SelectorMatchesNothing, "answered 503")],
        ),
    ]
}
