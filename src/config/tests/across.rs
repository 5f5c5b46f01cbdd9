//! What several resources can get wrong together.

mod destinations;
mod limits;
mod policies;
mod providers;
mod rules;
mod service_entries;
mod sharing;
mod telemetry;

use super::{Code, Row, judge};

#[test]
fn each_contradiction_is_found_where_it_is() {
    judge(rows());
}

const NODES: &str = "[[node]]\nname = \"edge-1\"\naddresses = [\"192.0.2.1\"]\n[[node]]\nname = \"edge-2\"\naddresses = [\"192.0.2.2\"]\n";

fn workload(name: &str, address: &str, more: &str) -> String {
    format!(
        "[[workload]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nlabels = {{ app = \"a\" }}\n{more}\n"
    )
}

fn service(name: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nselector = {{ app = \"a\" }}\nports = [{{ port = 80 }}]\n{more}\n"
    )
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = names();
    rows.extend(references());
    rows.extend(addresses());
    rows.extend(sharing::rows());
    rows.extend(ranges());
    rows.extend(enrolment());
    rows.extend(incomplete());
    rows.extend(policies::rows());
    rows.extend(providers::rows());
    rows.extend(limits::rows());
    rows.extend(rules::rows());
    rows.extend(destinations::rows());
    rows.extend(service_entries::rows());
    rows.extend(telemetry::rows());
    rows
}

fn names() -> Vec<Row> {
    use Code::*;
    let long = "l".repeat(63);
    let domain = format!("[mesh]\ndomain = \"{long}.{long}.{long}\"\n");
    vec![
        (
            "a node in two files",
            vec![
                ("a.toml", NODES.to_owned()),
                ("b/c.toml", "[[node]]\nname = \"edge-1\"\n".to_owned()),
            ],
            vec![(
                "b/c.toml",
                2,
                8,
                DuplicateName,
                "node `edge-1` is declared twice",
            )],
        ),
        (
            "a namespace twice",
            vec![(
                "a.toml",
                "[[namespace]]\nname = \"x\"\n[[namespace]]\nname = \"x\"\n".to_owned(),
            )],
            vec![("a.toml", 4, 8, DuplicateName, "first here")],
        ),
        (
            "a workload twice",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "") + &workload("w", "10.1.0.2", ""),
            )],
            vec![("a.toml", 7, 8, DuplicateName, "workload `default/w`")],
        ),
        (
            "the same name in another namespace, or of another kind",
            vec![(
                "a.toml",
                "[[namespace]]\nname = \"x\"\n".to_owned()
                    + &workload("w", "10.1.0.1", "")
                    + &workload("w", "10.1.0.2", "namespace = \"x\"")
                    + &service("w", ""),
            )],
            vec![],
        ),
        (
            "a service twice",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "") + &service("s", "") + &service("s", ""),
            )],
            vec![("a.toml", 12, 8, DuplicateName, "service `default/s`")],
        ),
        (
            "settings twice",
            vec![
                ("a.toml", "[mesh]\n".to_owned()),
                ("b.toml", "\n[mesh]\nserial = 1\n".to_owned()),
            ],
            vec![("b.toml", 2, 1, DuplicateSettings, "first here")],
        ),
        (
            "a host name too long",
            vec![
                ("a.toml", domain),
                (
                    "b.toml",
                    workload("w", "10.1.0.1", "") + &service(&long, ""),
                ),
            ],
            vec![("b.toml", 7, 8, BadName, "DNS allows 253")],
        ),
    ]
}

fn references() -> Vec<Row> {
    use Code::*;
    let accounts = "[[namespace]]\nname = \"shop\"\nservice-accounts = [\"cart\", \"web\"]\n";
    let in_shop = |more: &str| workload("w", "10.1.0.1", &format!("namespace = \"shop\"\n{more}"));
    vec![
        (
            "a misspelt node",
            vec![("a.toml", NODES.to_owned()), ("b.toml", workload("w", "10.1.0.1", "node = \"egde-1\""))],
            vec![("b.toml", 5, 8, UnknownNode, "did you mean `edge-1`?")],
        ),
        (
            "no such node",
            vec![("b.toml", workload("w", "10.1.0.1", "node = \"edge-1\""))],
            vec![("b.toml", 5, 8, UnknownNode, "no such node")],
        ),
        (
            "a misspelt namespace",
            vec![("a.toml", accounts.to_owned()), ("b.toml", workload("w", "10.1.0.1", "namespace = \"shpo\""))],
            vec![("b.toml", 5, 13, UnknownNamespace, "did you mean `shop`?")],
        ),
        (
            "an unknown default namespace, said once",
            vec![(
                "b.toml",
                "default-namespace = \"shop\"\n".to_owned()
                    + &workload("w", "10.1.0.1", "")
                    + &workload("v", "10.1.0.2", "")
                    + &service("s", ""),
            )],
            vec![("b.toml", 1, 21, UnknownNamespace, "declare it")],
        ),
        (
            "a misspelt service account",
            vec![("a.toml", accounts.to_owned()), ("b.toml", in_shop("service-account = \"carts\""))],
            vec![("b.toml", 6, 19, UnknownServiceAccount, "did you mean `cart`?")],
        ),
        (
            "no service account where there is a list",
            vec![("a.toml", accounts.to_owned()), ("b.toml", in_shop(""))],
            vec![("b.toml", 1, 1, UnknownServiceAccount, "namespace `shop` does not: `default`")],
        ),
        (
            "a known service account",
            vec![("a.toml", accounts.to_owned()), ("b.toml", in_shop("service-account = \"web\""))],
            vec![],
        ),
        (
            "a selector without workloads",
            vec![("b.toml", service("s", ""))],
            vec![("b.toml", 3, 12, SelectorMatchesNothing, "selects no workload")],
        ),
        (
            "a selector whose workloads are in another namespace",
            vec![("a.toml", accounts.to_owned()), ("b.toml", in_shop("service-account = \"web\"") + &service("s", ""))],
            vec![("b.toml", 9, 12, SelectorMatchesNothing, "namespace `default`")],
        ),
        (
            "a selector of two labels on two workloads",
            vec![(
                "b.toml",
                "[[service]]\nname = \"s\"\nselector = { app = \"a\", version = \"v1\" }\nports = [{ port = 80 }]\n".to_owned()
                    + &workload("w", "10.1.0.1", "labels.version = \"v2\"").replace("labels = { app = \"a\" }\n", "labels.app = \"a\"\n")
                    + &workload("v", "10.1.0.2", "").replace("app = \"a\"", "version = \"v1\""),
            )],
            vec![("b.toml", 3, 12, SelectorMatchesNothing, "all of these `labels`")],
        ),
    ]
}

fn addresses() -> Vec<Row> {
    use Code::*;
    let on = |node: &str, capture: &str| {
        format!("node = \"{node}\"\ndataplane-mode = \"ambient\"\ncapture = {capture}")
    };
    let vip = "addresses = [\"240.240.0.9\"]";
    vec![
        (
            "two workloads",
            vec![
                ("a.toml", workload("w", "10.1.0.1", "")),
                ("b.toml", workload("v", "10.1.0.1", "")),
            ],
            vec![(
                "b.toml",
                3,
                14,
                DuplicateAddress,
                "workload `default/v` has the address of workload `default/w`",
            )],
        ),
        (
            "one workload",
            vec![("a.toml", workload("w", "10.1.0.1\", \"10.1.0.1", ""))],
            vec![("a.toml", 3, 26, DuplicateAddress, "twice")],
        ),
        (
            "two workloads on two networks",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "network = \"x\"") + &workload("v", "10.1.0.1", ""),
            )],
            vec![],
        ),
        (
            "a workload and a node",
            vec![
                ("a.toml", NODES.to_owned()),
                ("b.toml", workload("w", "192.0.2.1", "")),
            ],
            vec![(
                "b.toml",
                3,
                14,
                DuplicateAddress,
                "has the address of node `edge-1`",
            )],
        ),
        (
            "a workload in a namespace of its own, and its node",
            vec![
                ("a.toml", NODES.to_owned()),
                (
                    "b.toml",
                    workload("w", "192.0.2.1", &on("edge-1", "{ netns = \"w\" }")),
                ),
            ],
            vec![("b.toml", 3, 14, DuplicateAddress, "node `edge-1`")],
        ),
        (
            "a unit and its node",
            vec![
                ("a.toml", NODES.to_owned()),
                (
                    "b.toml",
                    workload("w", "192.0.2.1", &on("edge-1", "{ unit = \"w.service\" }")),
                ),
            ],
            vec![],
        ),
        (
            "a unit and another node",
            vec![
                ("a.toml", NODES.to_owned()),
                (
                    "b.toml",
                    workload("w", "192.0.2.2", &on("edge-1", "{ unit = \"w.service\" }")),
                ),
            ],
            vec![(
                "b.toml",
                3,
                14,
                NotOfNode,
                "node `edge-1`, which has no address 192.0.2.2",
            )],
        ),
        (
            "two services of two namespaces",
            vec![(
                "a.toml",
                "[[namespace]]\nname = \"x\"\n".to_owned()
                    + &workload("w", "10.1.0.1", "")
                    + &workload("v", "10.1.0.2", "namespace = \"x\"")
                    + &service("s", vip)
                    + &service("s", &format!("{vip}\nnamespace = \"x\"")),
            )],
            vec![(
                "a.toml",
                22,
                14,
                DuplicateAddress,
                "service `x/s` has the address of service `default/s`",
            )],
        ),
        (
            "a service and a workload",
            vec![(
                "a.toml",
                workload("w", "10.1.0.1", "") + &service("s", "addresses = [\"10.1.0.1\"]"),
            )],
            vec![(
                "a.toml",
                10,
                14,
                DuplicateAddress,
                "has the address of workload `default/w`",
            )],
        ),
    ]
}

fn ranges() -> Vec<Row> {
    use Code::*;
    let w = || workload("w", "10.1.0.1", "");
    vec![
        (
            "a service outside the default ranges",
            vec![(
                "a.toml",
                w() + &service("s", "addresses = [\"10.96.0.10\"]"),
            )],
            vec![(
                "a.toml",
                10,
                14,
                OutsideServiceRange,
                "service-range = [\\\"240.240.0.0/16\\\", \\\"2001:2::/48\\\", \\\"10.96.0.0/16\\\"]",
            )],
        ),
        (
            "the range to add leaves out the workloads",
            vec![("a.toml", w() + &service("s", "addresses = [\"10.1.7.10\"]"))],
            vec![("a.toml", 10, 14, OutsideServiceRange, "\\\"10.1.7.0/24\\\"")],
        ),
        (
            "IPv6",
            vec![(
                "a.toml",
                w() + &service("s", "addresses = [\"2001:db8::7\"]"),
            )],
            vec![("a.toml", 10, 14, OutsideServiceRange, "2001:db8::/48")],
        ),
        (
            "a service in a range of its own",
            vec![
                (
                    "a.toml",
                    "[mesh]\nservice-range = [\"10.96.0.0/12\"]\n".to_owned(),
                ),
                (
                    "b.toml",
                    w() + &service("s", "addresses = [\"10.96.0.10\"]"),
                ),
            ],
            vec![],
        ),
        (
            "a workload and a node in the service range",
            vec![(
                "a.toml",
                "[[node]]\nname = \"n\"\naddresses = [\"2001:2::1\"]\n".to_owned()
                    + &workload("w", "240.240.3.4", ""),
            )],
            vec![
                (
                    "a.toml",
                    3,
                    14,
                    InsideServiceRange,
                    "node `n` has an address of the service range 2001:2::/48",
                ),
                ("a.toml", 6, 14, InsideServiceRange, "for services only"),
            ],
        ),
    ]
}

fn enrolment() -> Vec<Row> {
    use Code::*;
    let ambient = "[[namespace]]\nname = \"shop\"\ndataplane-mode = \"ambient\"\n";
    let in_shop = |more: &str| workload("w", "10.1.0.1", &format!("namespace = \"shop\"\n{more}"));
    vec![
        (
            "enrolled by its namespace, on a node, without capture",
            vec![
                ("a.toml", NODES.to_owned() + ambient),
                ("b.toml", in_shop("node = \"edge-1\"")),
            ],
            vec![(
                "b.toml",
                2,
                8,
                WithoutCapture,
                "capture = { netns = \\\"NAME\\\" }",
            )],
        ),
        (
            "enrolled on a node whose proxy is somebody else's",
            vec![
                (
                    "a.toml",
                    "[[node]]\nname = \"edge-9\"\nproxy = \"ztunnel\"\n".to_owned() + ambient,
                ),
                ("b.toml", in_shop("node = \"edge-9\"")),
            ],
            vec![],
        ),
        (
            "enrolled by itself, on a node, without capture",
            vec![
                ("a.toml", NODES.to_owned()),
                (
                    "b.toml",
                    workload(
                        "w",
                        "10.1.0.1",
                        "node = \"edge-1\"\ndataplane-mode = \"ambient\"",
                    ),
                ),
            ],
            vec![("b.toml", 2, 8, WithoutCapture, "enrolled here")],
        ),
        (
            "left out of an enrolled namespace",
            vec![
                ("a.toml", NODES.to_owned() + ambient),
                (
                    "b.toml",
                    in_shop("node = \"edge-1\"\ndataplane-mode = \"none\""),
                ),
            ],
            vec![],
        ),
        (
            "outside every node in an enrolled namespace",
            vec![("a.toml", ambient.to_owned()), ("b.toml", in_shop(""))],
            vec![],
        ),
        (
            "capture without node",
            vec![(
                "b.toml",
                workload("w", "10.1.0.1", "capture = { netns = \"w\" }"),
            )],
            vec![("b.toml", 5, 11, WithoutNode, "add `node = \\\"NAME\\\"`")],
        ),
        (
            "enrolled by itself without node",
            vec![(
                "b.toml",
                workload("w", "10.1.0.1", "dataplane-mode = \"ambient\""),
            )],
            vec![("b.toml", 5, 18, WithoutNode, "is on no node")],
        ),
        (
            "capture without enrolment",
            vec![
                ("a.toml", NODES.to_owned()),
                (
                    "b.toml",
                    workload(
                        "w",
                        "10.1.0.1",
                        "node = \"edge-1\"\ncapture = { netns = \"w\" }",
                    ),
                ),
            ],
            vec![("b.toml", 6, 11, NoEffect, "is not enrolled")],
        ),
        (
            "a health check beside a ztunnel",
            vec![
                (
                    "a.toml",
                    "[[node]]\nname = \"edge-9\"\nproxy = \"ztunnel\"\n".to_owned(),
                ),
                (
                    "b.toml",
                    workload("w", "10.1.0.1", "node = \"edge-9\"\nhealth = { tcp = 80 }"),
                ),
            ],
            vec![("b.toml", 6, 10, NoEffect, "node `edge-9` runs a ztunnel")],
        ),
        (
            "QUIC towards a ztunnel",
            vec![
                (
                    "a.toml",
                    "[[node]]\nname = \"edge-9\"\nproxy = \"ztunnel\"\ntransport = \"auto\"\n"
                        .to_owned(),
                ),
                (
                    "b.toml",
                    workload("w", "10.1.0.1", "node = \"edge-9\"\ntransport = \"quic\""),
                ),
                (
                    "c.toml",
                    workload("v", "10.1.0.2", "node = \"edge-9\"\ntransport = \"tcp\""),
                ),
            ],
            vec![
                ("a.toml", 4, 13, NoEffect, "it runs a ztunnel"),
                ("b.toml", 6, 13, NoEffect, "node `edge-9` runs a ztunnel"),
            ],
        ),
        (
            "QUIC on no node",
            vec![("b.toml", workload("w", "10.1.0.1", "transport = \"quic\""))],
            vec![("b.toml", 5, 13, NoEffect, "it is on no node")],
        ),
        (
            "capture switched off",
            vec![
                ("a.toml", NODES.to_owned()),
                (
                    "b.toml",
                    workload(
                        "w",
                        "10.1.0.1",
                        "node = \"edge-1\"\ncapture = { netns = \"w\" }\ndataplane-mode = \"none\"",
                    ),
                ),
            ],
            vec![],
        ),
    ]
}

/// What is missing may be in what could not be read.
fn incomplete() -> Vec<Row> {
    use Code::*;
    vec![
        (
            "a broken file of nodes",
            vec![
                ("a.toml", "[[node]\nname = \"edge-1\"\n".to_owned()),
                ("b.toml", workload("w", "10.1.0.1", "node = \"edge-1\"")),
            ],
            vec![("a.toml", 1, 8, Syntax, "expected `]`")],
        ),
        (
            "a node whose name cannot be read",
            vec![
                ("a.toml", "[[node]]\nname = \"Edge-1\"\n".to_owned()),
                ("b.toml", workload("w", "10.1.0.1", "node = \"edge-1\"")),
            ],
            vec![("a.toml", 2, 8, BadName, "")],
        ),
        (
            "a node that is wrong otherwise is still known",
            vec![
                (
                    "a.toml",
                    "[[node]]\nname = \"edge-1\"\nlocality = 1\n".to_owned(),
                ),
                ("b.toml", workload("w", "10.1.0.1", "node = \"edge-1\"")),
            ],
            vec![("a.toml", 3, 12, WrongType, "")],
        ),
    ]
}
