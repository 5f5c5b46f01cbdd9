//! Rows about service-entries and the rest of the mesh.

use super::super::{Code, Row};
use super::{NODES, service, workload};

/// An entry for `host`, which is on line 3; its sixth line is `more`.
fn entry(name: &str, host: &str, more: &str) -> String {
    format!(
        "[[service-entry]]\nname = \"{name}\"\nhosts = [\"{host}\"]\nports = [{{ number = 443 }}]\nresolution = \"DNS\"\n{more}\n"
    )
}

fn gateway(name: &str) -> String {
    format!("[[gateway]]\nname = \"{name}\"\nclass = \"waypoint\"\nnode = \"edge-1\"\n")
}

fn namespace(waypoint: &str) -> String {
    format!("[[namespace]]\nname = \"default\"\nuse-waypoint = \"{waypoint}\"\n")
}

/// An entry with two ranges on its sixth line and one more line, the seventh.
fn ranges(more: &str) -> String {
    let ranges = "addresses = [\"198.51.100.0/24\", \"192.0.2.77\", \"2001:db8::/32\"]";
    entry("e", "e.example", &format!("{ranges}\n{more}"))
}

pub(super) fn rows() -> Vec<Row> {
    use Code::*;
    let file = |text: String| vec![("a.toml", text)];
    let served = || service("s", "") + &workload("w", "10.1.0.11", "");
    let dynamic = |waypoint: &str| {
        entry("e", "*.ext.example", waypoint).replace("\"DNS\"", "\"DYNAMIC_DNS\"")
    };
    vec![
        (
            "entries that are all right",
            file(
                entry("a", "a.example", "addresses = [\"192.0.2.77\"]")
                    + &entry("b", "b.example", "use-waypoint = \"wp\"")
                    + &dynamic("use-waypoint = \"wp\"")
                    + "[[namespace]]\nname = \"n\"\n"
                    + &entry("a", "a.example", "namespace = \"n\"")
                    + "[[destination-rule]]\nname = \"r\"\nhost = \"a.example\"\n"
                    + &gateway("wp")
                    + NODES,
            ),
            vec![],
        ),
        (
            "an entry twice",
            file(entry("a", "a.example", "") + &entry("a", "b.example", "")),
            vec![("a.toml", 8, 8, DuplicateName, "service-entry `default/a`")],
        ),
        (
            "a host of two entries",
            file(entry("a", "a.example", "") + &entry("b", "a.example", "")),
            vec![("a.toml", 9, 10, DuplicateName, "a host that is another's")],
        ),
        (
            "a service's host",
            file(
                "[[namespace]]\nname = \"n\"\n".to_owned()
                    + &entry("a", "s.default.mesh.internal", "namespace = \"n\"")
                    + &served(),
            ),
            vec![("a.toml", 5, 10, DuplicateName, "a host that is a service's")],
        ),
        (
            "a waypoint's host",
            file(entry("a", "wp.default.mesh.internal", "") + &gateway("wp") + NODES),
            vec![("a.toml", 3, 10, DuplicateName, "a host that is a gateway's")],
        ),
        (
            "an entry in an unknown namespace",
            file(entry("a", "a.example", "namespace = \"x\"")),
            vec![("a.toml", 6, 13, UnknownNamespace, "service-entry `a`")],
        ),
        (
            "an entry's address is a node's",
            file(entry("a", "a.example", "addresses = [\"192.0.2.1\"]") + NODES),
            vec![("a.toml", 6, 14, DuplicateAddress, "node `edge-1`")],
        ),
        (
            "an entry's address is a workload's",
            file(entry("a", "a.example", "addresses = [\"10.1.0.11\"]") + &served()),
            vec![("a.toml", 6, 14, DuplicateAddress, "workload `default/w`")],
        ),
        (
            "an entry's address is another's",
            file(
                entry("a", "a.example", "addresses = [\"192.0.2.77\"]")
                    + &entry("b", "b.example", "addresses = [\"192.0.2.77\"]"),
            ),
            vec![(
                "a.toml",
                12,
                14,
                DuplicateAddress,
                "service-entry `default/a`",
            )],
        ),
        (
            "a range of two",
            file(
                entry("a", "a.example", "addresses = [\"198.51.100.0/24\"]")
                    + &entry("b", "b.example", "addresses = [\"198.51.100.0/24\"]"),
            ),
            vec![
                ("a.toml", 6, 14, NoEffect, "node proxies do not know ranges"),
                ("a.toml", 12, 14, DuplicateAddress, "a range of another one"),
                (
                    "a.toml",
                    12,
                    14,
                    NoEffect,
                    "node proxies do not know ranges",
                ),
            ],
        ),
        (
            "ranges behind a waypoint",
            file(ranges("use-waypoint = \"wp\"") + &gateway("wp") + NODES),
            vec![
                (
                    "a.toml",
                    6,
                    14,
                    Unsupported,
                    "connections to 198.51.100.0/24",
                ),
                ("a.toml", 6, 47, Unsupported, "connections to 2001:db8::/32"),
            ],
        ),
        (
            "ranges behind the namespace's waypoint",
            file(ranges("") + &namespace("wp") + &gateway("wp") + NODES),
            vec![
                ("a.toml", 6, 14, Unsupported, "use-waypoint = \\\"none\\\""),
                ("a.toml", 6, 47, Unsupported, "behind a waypoint"),
            ],
        ),
        (
            "ranges behind no waypoint",
            file(ranges("use-waypoint = \"none\"") + &namespace("wp") + &gateway("wp") + NODES),
            vec![
                ("a.toml", 6, 14, NoEffect, "connections to 198.51.100.0/24"),
                ("a.toml", 6, 47, NoEffect, "connections to 2001:db8::/32"),
            ],
        ),
        (
            "ranges behind a waypoint that is not there",
            file(ranges("use-waypoint = \"wq\"")),
            vec![
                ("a.toml", 6, 14, Unsupported, "behind a waypoint"),
                ("a.toml", 6, 47, Unsupported, "behind a waypoint"),
                ("a.toml", 7, 16, WaypointIsNotReady, "service-entry `e`"),
            ],
        ),
        (
            "an entry that selects nothing",
            file(
                entry(
                    "a",
                    "a.example",
                    "workload-selector = { labels = { app = \"x\" } }",
                )
                .replace("\"DNS\"", "\"STATIC\""),
            ),
            vec![(
                "a.toml",
                6,
                21,
                SelectorMatchesNothing,
                "it has no endpoints",
            )],
        ),
        (
            "an entry behind nobody",
            file(entry("a", "a.example", "use-waypoint = \"wp\"")),
            vec![(
                "a.toml",
                6,
                16,
                WaypointIsNotReady,
                "service-entry `a` names",
            )],
        ),
        (
            "an entry of its own namespace behind another's waypoint",
            file(
                "[[namespace]]\nname = \"n\"\n".to_owned()
                    + &entry(
                        "a",
                        "a.example",
                        "namespace = \"n\"\nexport-to = [\".\"]\nuse-waypoint = \"default/wp\"",
                    )
                    + &gateway("wp")
                    + "listeners = [{ allowed-routes = { namespaces = { from = \"All\" } } }]\n"
                    + NODES,
            ),
            vec![(
                "a.toml",
                10,
                16,
                CrossNamespaceWaypointForbidden,
                "service-entry `a`",
            )],
        ),
        (
            "a wildcard behind no waypoint",
            file(dynamic("")),
            vec![(
                "a.toml",
                2,
                8,
                NoWaypointForWildcardService,
                "is not in force",
            )],
        ),
        (
            "ranges and a wildcard where the namespace's waypoint is for other traffic",
            file(
                ranges("")
                    + &dynamic("").replace("\"e\"", "\"d\"")
                    + &namespace("wp")
                    + &gateway("wp")
                    + "waypoint-for = \"workload\"\n"
                    + NODES,
            ),
            vec![
                ("a.toml", 6, 14, NoEffect, "go there as they are"),
                ("a.toml", 6, 47, NoEffect, "go there as they are"),
                (
                    "a.toml",
                    9,
                    8,
                    NoWaypointForWildcardService,
                    "is not in force",
                ),
                (
                    "a.toml",
                    16,
                    16,
                    UnsupportedTrafficTypeInherited,
                    "`e` and 1 more of namespace `default` go direct",
                ),
            ],
        ),
    ]
}
