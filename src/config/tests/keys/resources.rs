//! Rows about workloads and services.

use super::super::Code;
use super::{Rows, SELECTED, SERVICE};

pub(super) fn add(rows: &mut Rows) {
    workloads(rows);
    capture(rows);
    health(rows);
    labels(rows);
    waypoints(rows);
    services(rows);
}

fn workloads(rows: &mut Rows) {
    use Code::*;
    rows.workload(
        "camel case",
        "serviceAccount = \"a\"",
        (1, UnknownKey, "did you mean `service-account`?"),
    );
    rows.workload(
        "no such key",
        "replicas = 3",
        (1, UnknownKey, "the keys here are"),
    );
    rows.workload(
        "capacity",
        "capacity = 70000",
        (12, BadValue, "from 0 to 65535"),
    );
    rows.workload(
        "capacity in words",
        "capacity = \"one\"",
        (12, WrongType, "write a whole number"),
    );
    rows.workload(
        "capacity in parts",
        "capacity = 1.5",
        (12, WrongType, "is a decimal number"),
    );
    rows.workload(
        "account",
        "service-account = \"a/b\"",
        (19, BadName, "a character that names do not have"),
    );
    rows.workload("namespace", "namespace = \"\"", (13, BadName, "is empty"));
    rows.workload(
        "network",
        "network = \"\"",
        (11, BadName, "cannot be a name"),
    );
    rows.file(
        "no addresses",
        "[[workload]]\nname = \"w\"\n",
        &[(1, 1, MissingKey, "has no `addresses`")],
    );
    rows.file(
        "misspelt addresses, said once",
        "[[workload]]\nname = \"w\"\naddress = [\"10.1.0.11\"]\n",
        &[(3, 1, UnknownKey, "did you mean `addresses`?")],
    );
    rows.file(
        "an empty list",
        "[[workload]]\nname = \"w\"\naddresses = []\n",
        &[(3, 13, BadValue, "is empty")],
    );
    rows.file(
        "all at once",
        "[[workload]]\nname = \"W\"\naddresses = [\"x\", \"10.1.0.1\", \"y\"]\ncolour = 1\n",
        &[
            (2, 8, BadName, ""),
            (3, 14, BadValue, ""),
            (3, 31, BadValue, ""),
            (4, 1, UnknownKey, ""),
        ],
    );
}

/// A workload on a node, enrolled, whose fifth line says how it is captured.
fn captured(line: &str) -> String {
    format!(
        "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.11\"]\nnode = \"n\"\n{line}\ndataplane-mode = \"ambient\"\n[[node]]\nname = \"n\"\n"
    )
}

fn capture(rows: &mut Rows) {
    use Code::*;
    let mut row = |name, line: &str, want: (u32, Code, &'static str)| {
        rows.add(name, captured(line), &[(5, want.0, want.1, want.2)]);
    };
    row(
        "no way",
        "capture = {}",
        (11, MissingKey, "names no way of capture"),
    );
    row(
        "two ways",
        "capture = { netns = \"w\", user = \"w\" }",
        (33, ConflictingKeys, "second way"),
    );
    row(
        "an unknown way",
        "capture = { netn = \"w\" }",
        (13, UnknownKey, "did you mean `netns`?"),
    );
    row(
        "no table",
        "capture = \"w\"",
        (11, WrongType, "expected a table"),
    );
    row(
        "a path that is relative",
        "capture = { netns = \"run/w\" }",
        (21, BadValue, "under /run/netns"),
    );
    row(
        "no name",
        "capture = { netns = \"\" }",
        (21, BadValue, "is empty"),
    );
    captured_by_name(rows);
}

/// What names nothing that can be captured; the value begins behind `capture = { WAY = `.
fn captured_by_name(rows: &mut Rows) {
    use Code::*;
    for (name, way, value, want) in [
        ("a unit without kind", "unit", "\"w\"", "`w.service`"),
        ("a unit of no programs", "unit", "\"w.timer\"", ".scope"),
        ("a template", "unit", "\"w@.service\"", "`w@1.service`"),
        ("a kind alone", "unit", "\".service\"", "before the dot"),
        ("a unit's path", "unit", "\"a/w.service\"", "`systemctl`"),
        ("the root", "cgroup", "\"/\"", "system.slice/"),
        ("out of it", "cgroup", "\"a/../b\"", "system.slice/"),
        ("a quote", "cgroup", "'a\"b'", "system.slice/"),
        ("whole", "cgroup", "\"/sys/fs/cgroup/a\"", "`a`"),
        ("root", "user", "\"root\"", "a user of its own"),
        ("root's number", "user", "0", "a user of its own"),
        ("a number quoted", "user", "\"1000\"", "`1000`"),
        ("no user", "user", "\"a b\"", "/etc/passwd"),
        ("loopback", "interface", "\"lo\"", "behind `lo`"),
        (
            "too long",
            "interface",
            "\"a123456789012345\"",
            "at most 15",
        ),
        ("a pattern", "interface", "\"tap*\"", "ip link"),
    ] {
        let text = captured(&format!("capture = {{ {way} = {value} }}"));
        let column = u32::try_from("capture = { ".len() + way.len() + 4).unwrap();
        rows.add(name, text, &[(5, column, BadValue, want)]);
    }
}

fn health(rows: &mut Rows) {
    use Code::*;
    rows.workload(
        "a check that nobody makes",
        "health = { tcp = 80 }",
        (10, NoEffect, "is on no node"),
    );
    rows.workload(
        "no probe",
        "health = { interval = \"2s\" }",
        (10, MissingKey, "does not say what to ask"),
    );
    rows.workload(
        "two probes",
        "health = { tcp = 80, exec = [\"x\"] }",
        (29, ConflictingKeys, "second probe"),
    );
    rows.workload(
        "http without port",
        "health = { http = \"/\" }",
        (10, MissingKey, "`port = 8080`"),
    );
    rows.workload(
        "http without path",
        "health = { http = \"healthz\", port = 80 }",
        (19, BadValue, "begin it with `/`"),
    );
    rows.workload(
        "port of a tcp probe",
        "health = { tcp = 80, port = 80 }",
        (29, ConflictingKeys, "as the value of `tcp`"),
    );
    rows.workload(
        "port 0",
        "health = { tcp = 0 }",
        (18, BadValue, "from 1 to 65535"),
    );
    rows.workload(
        "port in quotes",
        "health = { http = \"/\", port = \"80\" }",
        (31, WrongType, "write it unquoted: `80`"),
    );
    rows.workload(
        "a bare number",
        "health = { tcp = 80, interval = 2 }",
        (33, WrongType, "give its unit: `\\\"2s\\\"`"),
    );
    rows.workload(
        "too often",
        "health = { tcp = 80, interval = \"1ms\" }",
        (33, BadValue, "between 100ms and 1h"),
    );
    rows.workload(
        "never risen",
        "health = { tcp = 80, rise = 0 }",
        (29, BadValue, "from 1 to 100"),
    );
    rows.workload(
        "no command",
        "health = { exec = [] }",
        (19, BadValue, "is not a command"),
    );
    rows.workload(
        "unknown key",
        "health = { tcp = 80, timout = \"1s\" }",
        (22, UnknownKey, "did you mean `timeout`?"),
    );
}

fn labels(rows: &mut Rows) {
    use Code::*;
    rows.workload(
        "a number",
        "labels = { version = 1 }",
        (22, WrongType, "write it in quotes: `\\\"1\\\"`"),
    );
    rows.workload(
        "a space",
        "labels = { app = \"a b\" }",
        (18, BadValue, "cannot be the value of a label"),
    );
    rows.workload(
        "a key with a space",
        "labels = { \"a b\" = \"c\" }",
        (12, BadName, "cannot be the name of a label"),
    );
    rows.workload(
        "a misspelt label of Istio",
        "labels = { \"istio.io/dataplanemode\" = \"ambient\" }",
        (12, UnknownKey, "did you mean `istio.io/dataplane-mode`?"),
    );
    rows.workload(
        "a canary",
        "labels = { \"istio.io/use-waypoint-canary\" = \"w\" }",
        (12, NoEffect, "means nothing on workload `w`"),
    );
    rows.workload(
        "a native tunnel",
        "labels = { \"networking.istio.io/tunnel\" = \"http\" }",
        (43, Unsupported, "only for workloads it captures"),
    );
    rows.workload(
        "network as a label",
        "labels = { \"topology.istio.io/network\" = \"a\" }",
        (42, Unsupported, "write the key `network`"),
    );
    rows.workload(
        "mode as a label",
        "labels = { \"istio.io/dataplane-mode\" = \"on\" }",
        (40, BadValue, "expected one of `ambient` and `none`"),
    );
    rows.node(
        "a mode for a node",
        "labels = { \"istio.io/dataplane-mode\" = \"none\" }",
        (12, NoEffect, "means nothing on node `n`"),
    );
    rows.file(
        "label and key disagree",
        "[[namespace]]\nname = \"n\"\ndataplane-mode = \"ambient\"\nlabels = { \"istio.io/dataplane-mode\" = \"none\" }\n",
        &[(4, 40, ConflictingKeys, "keep `dataplane-mode` and drop the label")],
    );
}

fn waypoints(rows: &mut Rows) {
    use Code::*;
    rows.namespace(
        "a waypoint",
        "use-waypoint = \"wp\"",
        (16, WaypointIsNotReady, "not declared: `n/wp`"),
    );
    rows.namespace(
        "the label",
        "labels = { \"istio.io/use-waypoint\" = \"infra/wp\" }",
        (38, WaypointIsNotReady, "`infra/wp`"),
    );
    rows.namespace(
        "empty",
        "use-waypoint = \"\"",
        (16, BadValue, "is not a waypoint's name"),
    );
    rows.namespace(
        "a namespace alone",
        "use-waypoint-namespace = \"infra\"",
        (26, NoEffect, "but no waypoint"),
    );
    rows.file(
        "two namespaces",
        "[[namespace]]\nname = \"n\"\nuse-waypoint = \"a/wp\"\nuse-waypoint-namespace = \"b\"\n",
        &[
            (3, 16, WaypointIsNotReady, "`a/wp`"),
            (4, 26, ConflictingKeys, "two namespaces"),
        ],
    );
    rows.file(
        "of another namespace",
        "[[namespace]]\nname = \"n\"\nuse-waypoint = \"wp\"\nuse-waypoint-namespace = \"b\"\n",
        &[(3, 16, WaypointIsNotReady, "`b/wp`")],
    );
    rows.service(
        "of a service",
        "use-waypoint = \"wp\"",
        (16, WaypointIsNotReady, "`default/wp`"),
    );
}

fn services(rows: &mut Rows) {
    use Code::*;
    rows.file(
        "nothing but a name",
        "[[service]]\nname = \"s\"\n",
        &[
            (1, 1, MissingKey, "has no `ports`"),
            (1, 1, MissingKey, "has no `selector`"),
        ],
    );
    rows.service(
        "headless in quotes",
        "headless = \"yes\"",
        (12, WrongType, "write it unquoted"),
    );
    rows.service(
        "headless as a key",
        "clusterIP = \"None\"",
        (1, UnknownKey, "no such key"),
    );
    rows.file(
        "headless with an address",
        &format!("{SERVICE}headless = true\naddresses = [\"240.240.0.1\"]\n{SELECTED}"),
        &[(6, 13, ConflictingKeys, "drop `headless`")],
    );
    let ports = |ports: &str| {
        format!(
            "[[service]]\nname = \"s\"\nselector = {{ app = \"a\" }}\nports = {ports}\n{SELECTED}"
        )
    };
    let mut port = |name, text: &str, want: (u32, Code, &'static str)| {
        rows.add(name, ports(text), &[(4, want.0, want.1, want.2)]);
    };
    port("no ports", "[]", (9, BadValue, "name at least one"));
    port("a bare port", "[80]", (10, WrongType, "expected a table"));
    port(
        "a port too high",
        "[{ port = 65536 }]",
        (19, BadValue, "from 1 to 65535"),
    );
    port(
        "no port",
        "[{ target-port = 80 }]",
        (10, MissingKey, "`ports` of service `s` has no `port`"),
    );
    port(
        "camel case",
        "[{ port = 80, targetPort = 8080 }]",
        (23, UnknownKey, "did you mean `target-port`?"),
    );
    port(
        "protocol",
        "[{ port = 80, app-protocol = \"htp\" }]",
        (38, BadValue, "write `\\\"http\\\"`"),
    );
    port(
        "neither TCP nor UDP",
        "[{ port = 80, protocol = \"sctp\" }]",
        (34, BadValue, "expected one of `tcp` and `udp`"),
    );
    port(
        "HTTP/3 over TCP",
        "[{ port = 443, protocol = \"TCP\", app-protocol = \"h3\" }]",
        (
            57,
            ConflictingKeys,
            "`protocol = \\\"tcp\\\"` and `app-protocol = \\\"h3\\\"` contradict each other",
        ),
    );
    port(
        "UDP over TCP",
        "[{ port = 80, protocol = \"tcp\", app-protocol = \"UDP\" }]",
        (56, ConflictingKeys, "leave `protocol` out"),
    );
    port(
        "HTTP over UDP",
        "[{ port = 80, protocol = \"udp\", app-protocol = \"http\" }]",
        (56, ConflictingKeys, "HTTP/3 is `h3`"),
    );
    port(
        "TCP with a name of UDP",
        "[{ port = 53, name = \"udp-dns\", protocol = \"tcp\" }]",
        (30, ConflictingKeys, "another name"),
    );
    port(
        "gRPC with a name of UDP",
        "[{ port = 53, name = \"udp\", app-protocol = \"grpc\" }]",
        (30, ConflictingKeys, "the name `udp`"),
    );
    port(
        "DNS over what",
        "[{ port = 53, app-protocol = \"dns\" }]",
        (10, MissingKey, "add `protocol = \\\"udp\\\"`"),
    );
    port(
        "a UDP port twice",
        "[{ port = 53, protocol = \"udp\" }, { port = 53 }, { port = 53, name = \"udp\" }]",
        (58, DuplicateName, "UDP port 53 is declared twice"),
    );
    port(
        "a name twice, of TCP and UDP",
        "[{ port = 53, name = \"a\" }, { port = 53, name = \"a\", protocol = \"udp\" }]",
        (37, DuplicateName, "port name `a`"),
    );
    port(
        "a port twice",
        "[{ port = 80 }, { port = 80 }]",
        (25, DuplicateName, "port 80 is declared twice"),
    );
    port(
        "a name twice",
        "[{ port = 80, name = \"a\" }, { port = 81, name = \"a\" }]",
        (37, DuplicateName, "port name `a`"),
    );
    rows.file(
        "an empty selector",
        "[[service]]\nname = \"s\"\nselector = {}\nports = [{ port = 80 }]\n",
        &[(3, 12, BadValue, "is empty")],
    );
}
