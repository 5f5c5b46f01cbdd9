//! Rows about rate limits and what they are for.

use super::super::{Code, Row};
use super::{NODES, service, workload};

fn limit(kind: &str, name: &str) -> String {
    format!(
        "[[rate-limit]]\nname = \"l\"\nrules = [{{ requests = 1, per = \"1s\" }}]\n\
         target-refs = [{{ kind = \"{kind}\", name = \"{name}\" }}]\n"
    )
}

pub(super) fn rows() -> Vec<Row> {
    use Code::*;
    let waypoint = "[[gateway]]\nname = \"wp\"\nclass = \"waypoint\"\nnode = \"edge-1\"\n";
    let bound = |port: &str| {
        workload("w", "10.1.0.1", "")
            + &service("cart", "use-waypoint = \"wp\"").replace("port = 80", port)
            + waypoint
            + NODES
    };
    let of = |port: &str, kind: &str, name: &str| {
        vec![("a.toml", bound(port)), ("b.toml", limit(kind, name))]
    };
    let http = "port = 80, app-protocol = \"http\"";
    vec![
        ("a limit of requests", of(http, "Service", "cart"), vec![]),
        (
            "of what may be some",
            of("port = 80", "Service", "cart"),
            vec![],
        ),
        ("of a waypoint", of(http, "Gateway", "wp"), vec![]),
        (
            "of connections",
            of("port = 80, app-protocol = \"tcp\"", "Service", "cart"),
            vec![("b.toml", 4, 16, NoEffect, "only requests")],
        ),
        (
            "of nobody",
            of(http, "Service", "crat"),
            vec![("b.toml", 4, 16, TargetNotFound, "did you mean `cart`?")],
        ),
        (
            "of what is behind no waypoint",
            vec![
                (
                    "a.toml",
                    workload("w", "10.1.0.1", "") + &service("cart", ""),
                ),
                ("b.toml", limit("Service", "cart")),
            ],
            vec![(
                "b.toml",
                4,
                16,
                AncestorNotBound,
                "rate-limit `l` is in force nowhere",
            )],
        ),
        (
            "a limit twice",
            vec![
                ("a.toml", bound(http)),
                (
                    "b.toml",
                    limit("Service", "cart") + &limit("Service", "cart"),
                ),
            ],
            vec![("b.toml", 6, 8, DuplicateName, "rate-limit `default/l`")],
        ),
    ]
}
