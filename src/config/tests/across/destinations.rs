//! Rows about destination rules and the rest of the mesh.

use super::super::{Code, Row};
use super::{service, workload};

/// A rule for `host`, which is on line 3; its fourth line is `more`.
fn rule(name: &str, host: &str, more: &str) -> String {
    format!("[[destination-rule]]\nname = \"{name}\"\nhost = \"{host}\"\n{more}\n")
}

fn backend_tls(name: &str) -> String {
    format!(
        "[[backend-tls-policy]]\nname = \"{name}\"\ntarget-refs = [{{ kind = \"Service\", name = \"s\" }}]\nvalidation = {{ hostname = \"a\", well-known-ca-certificates = \"System\" }}\n"
    )
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
            "a rule comes before a policy, wherever it stands",
            file(backend_tls("p") + &rule("a", "s", "")),
            vec![(
                "a.toml",
                3,
                43,
                Superseded,
                "destination-rule `a` of the same",
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
