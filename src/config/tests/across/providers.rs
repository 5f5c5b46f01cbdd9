//! Rows about whom policies ask.

use super::super::{Code, Row};
use super::{service, workload};

/// A CUSTOM policy of all waypoints that asks this provider; its action is in line 5.
fn asking(provider: &str) -> String {
    format!(
        "[[authorization-policy]]\nname = \"p\"\nnamespace = \"istio-system\"\ntarget-refs = [{{ kind = \"GatewayClass\", name = \"istio-waypoint\" }}]\naction = \"CUSTOM\"\nprovider.name = \"{provider}\"\nrules = [{{}}]\n"
    )
}

/// A provider in line 3.
fn provider(kind: &str) -> String {
    format!("[[mesh.extension-providers]]\n{kind}\nname = \"check\"\n")
}

pub(super) fn rows() -> Vec<Row> {
    use Code::*;
    let there = || service("s", "") + &workload("w", "10.1.0.1", "");
    let grpc = |of: &str| provider(&format!("envoy-ext-authz-grpc = {{ {of} }}"));
    let row = |name, provider: String, asked: &str, want| {
        let files = vec![
            ("a.toml", there()),
            ("b.toml", provider),
            ("c.toml", asking(asked)),
        ];
        (name, files, want)
    };
    vec![
        row(
            "a provider that is there",
            grpc("service = \"default/s\", port = 80"),
            "check",
            vec![],
        ),
        row(
            "one by its host name",
            grpc("service = \"s.default.mesh.internal\", port = 80"),
            "check",
            vec![],
        ),
        row(
            "an unknown provider",
            grpc("service = \"default/s\", port = 80"),
            "chek",
            vec![("c.toml", 5, 10, ProviderNotFound, "did you mean `check`?")],
        ),
        row(
            "a provider that decides nothing",
            provider("prometheus = {}"),
            "check",
            vec![(
                "c.toml",
                5,
                10,
                ProviderNotFound,
                "is `prometheus` and decides nothing",
            )],
        ),
        row(
            "a provider that is no service",
            grpc("service = \"default/t\", port = 80"),
            "check",
            vec![(
                "b.toml",
                3,
                8,
                ProviderNotFound,
                "default/t, which is no service",
            )],
        ),
        row(
            "a provider without that port",
            grpc("service = \"default/s\", port = 81"),
            "check",
            vec![("b.toml", 3, 8, ProviderNotFound, "it has `80`")],
        ),
        row(
            "a provider that could not be read",
            provider("envoy-ext-authz-grpc = { port = 81 }"),
            "chek",
            vec![("b.toml", 2, 24, MissingKey, "`service`")],
        ),
    ]
}
