//! What telemetry gets wrong about the rest of the mesh.

use super::Row;
use super::workload;
use crate::config::Code;

fn row(name: &'static str, text: &str, line: u32, column: u32, want: (Code, &'static str)) -> Row {
    let text = format!("{text}\n{}", workload("w", "10.1.0.1", ""));
    (
        name,
        vec![("a.toml", text)],
        vec![("a.toml", line, column, want.0, want.1)],
    )
}

pub(super) fn rows() -> Vec<Row> {
    use Code::*;
    const PROVIDERS: &str = "[mesh]\nextension-providers = [{ name = \"otlp\", opentelemetry = { service = \"a/b\", port = 1 } }, { name = \"file\", envoy-file-access-log = {} }]\n";
    const TELEMETRY: &str = "[[telemetry]]\nname = \"t\"\n";
    const COLLECTOR: &str = "[[namespace]]\nname = \"a\"\n\
        [[workload]]\nname = \"b\"\nnamespace = \"a\"\naddresses = [\"10.9.0.1\"]\nlabels.app = \"b\"\n\
        [[service]]\nname = \"b\"\nnamespace = \"a\"\nselector.app = \"b\"\nports = [{ port = 1 }]\n";
    let telemetry = |says: &str| format!("{PROVIDERS}{TELEMETRY}{says}\n{COLLECTOR}");
    vec![
        row(
            "a provider that is not there",
            &telemetry("tracing = [{ providers = [{ name = \"otpl\" }] }]"),
            5,
            27,
            (BadValue, "names provider `otpl`, which is not declared"),
        ),
        row(
            "a provider of another kind",
            &telemetry("tracing = [{ providers = [{ name = \"file\" }] }]"),
            5,
            27,
            (BadValue, "for what `envoy-file-access-log` does not do"),
        ),
        row(
            "spans for a log over OTLP",
            &("[mesh]\nextension-providers = [{ name = \"a\", envoy-otel-als = { service = \"a/b\", port = 1 } }]\ndefault-providers = { tracing = [\"a\"], access-logging = [\"a\"] }\n".to_owned() + COLLECTOR),
            3,
            34,
            (BadValue, "for what `envoy-otel-als` does not do"),
        ),
        row(
            "a provider that is built in for something else",
            &telemetry("tracing = [{ providers = [{ name = \"envoy\" }] }]"),
            5,
            27,
            (BadValue, "there are `otlp`"),
        ),
        row(
            "a provider of the mesh's",
            "[mesh]\ndefault-providers = { metrics = [\"promtheus\"] }",
            2,
            34,
            (BadValue, "did you mean `prometheus`?"),
        ),
        row(
            "two providers of spans",
            &telemetry("tracing = [{ providers = [{ name = \"otlp\" }, { name = \"otlp\" }] }]"),
            5,
            46,
            (NoEffect, "spans are told to the first provider alone"),
        ),
        row(
            "workloads",
            &telemetry("selector = { match-labels = { app = \"a\" } }"),
            5,
            12,
            (NotInForce, "telemetry `t` is not in force"),
        ),
        row(
            "no such service",
            &telemetry("target-refs = [{ kind = \"Service\", name = \"x\" }]"),
            5,
            16,
            (TargetNotFound, "telemetry `t` has an unknown target"),
        ),
        row(
            "two for one namespace",
            &telemetry("[[telemetry]]\nname = \"u\""),
            6,
            8,
            (Superseded, "`t` stands before it"),
        ),
        row(
            "a name twice",
            &telemetry(
                "namespace = \"istio-system\"\n[[telemetry]]\nname = \"t\"\nnamespace = \"istio-system\"\ntarget-refs = [{ kind = \"GatewayClass\", name = \"waypoint\" }]",
            ),
            7,
            8,
            (
                DuplicateName,
                "telemetry `istio-system/t` is declared twice",
            ),
        ),
    ]
}
