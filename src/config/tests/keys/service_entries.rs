//! Rows about service-entries.

use super::super::Code;
use super::Rows;

pub(super) fn add(rows: &mut Rows) {
    keys(rows);
    ports(rows);
    endpoints(rows);
    shapes(rows);
}

type Fault = (u32, Code, &'static str);

/// The first lines of an entry, whose resolution is the fifth.
const ENTRY: &str = "[[service-entry]]\nname = \"e\"\nhosts = [\"api.example\"]\nports = [{ number = 443, name = \"tls\" }]\n";

impl Rows {
    /// One more line, the sixth, in an entry whose names are looked up.
    fn entry(&mut self, name: &'static str, line: &str, want: Fault) {
        self.found_by(name, "DNS", line, want);
    }

    fn found_by(&mut self, name: &'static str, resolution: &str, line: &str, want: Fault) {
        let text = format!("{ENTRY}resolution = \"{resolution}\"\n{line}\n");
        self.add(name, text, &[(6, want.0, want.1, want.2)]);
    }
}

fn keys(rows: &mut Rows) {
    use Code::*;
    rows.file(
        "an entry without anything",
        "[[service-entry]]\nname = \"e\"\n",
        &[
            (1, 1, MissingKey, "has no `hosts`"),
            (1, 1, MissingKey, "has no `ports`"),
        ],
    );
    for (name, hosts, want) in [
        ("no hosts", "[]", (9, BadValue, "no host")),
        (
            "a host that is an address",
            "[\"192.0.2.1\"]",
            (10, BadName, "is an address"),
        ),
        (
            "a host with a space",
            "[\"a b.example\"]",
            (10, BadName, "a host name in full"),
        ),
        (
            "a star in the middle",
            "[\"a.*.example\"]",
            (10, BadName, "names do not have"),
        ),
        (
            "a host twice",
            "[\"a.example\", \"a.example\"]",
            (23, DuplicateName, "listed twice"),
        ),
    ] {
        let text = format!(
            "[[service-entry]]\nname = \"e\"\nhosts = {hosts}\nports = [{{ number = 443 }}]\nresolution = \"DNS\"\n"
        );
        rows.add(name, text, &[(3, want.0, want.1, want.2)]);
    }
    rows.entry(
        "an entry, camel case",
        "subjectAltNames = [\"a\"]",
        (1, UnknownKey, "did you mean `subject-alt-names`?"),
    );
    rows.entry(
        "an entry's location",
        "location = \"EXTERNAL\"",
        (12, BadValue, "MESH_EXTERNAL"),
    );
    rows.entry(
        "an entry for some",
        "export-to = [\"other\"]",
        (14, Unsupported, "for its own namespace"),
    );
    rows.entry(
        "an entry's loopback address",
        "addresses = [\"127.0.0.1\"]",
        (14, BadValue, "loopback"),
    );
    rows.entry(
        "an entry's range with bits beyond it",
        "addresses = [\"192.0.2.1/24\"]",
        (14, BadValue, "write `\\\"192.0.2.0/24\\\"`"),
    );
    rows.entry(
        "an entry for everything",
        "addresses = [\"0.0.0.0/0\"]",
        (14, BadValue, "every address"),
    );
    rows.entry(
        "an entry's nameless certificate",
        "subject-alt-names = [\"\"]",
        (22, BadValue, "is empty"),
    );
}

fn ports(rows: &mut Rows) {
    use Code::*;
    for (name, ports, want) in [
        ("an entry without ports", "[]", (9, BadValue, "no port")),
        (
            "a port without a number",
            "[{ name = \"a\" }]",
            (10, MissingKey, "`number = 443`"),
        ),
        (
            "a service's key",
            "[{ number = 443, port = 80 }]",
            (26, UnknownKey, "unknown key `port`"),
        ),
        (
            "a port that is UDP",
            "[{ number = 53, protocol = \"UDP\" }]",
            (36, BadValue, "says UDP"),
        ),
        (
            "a port that is HTTP/3",
            "[{ number = 443, protocol = \"h3\" }]",
            (37, BadValue, "over TCP only"),
        ),
        (
            "a port that is DNS",
            "[{ number = 53, protocol = \"dns\" }]",
            (36, BadValue, "expected one of"),
        ),
        (
            "an unknown protocol",
            "[{ number = 80, protocol = \"SPDY\" }]",
            (36, BadValue, "`http`"),
        ),
        (
            "a number twice",
            "[{ number = 80 }, { number = 80 }]",
            (27, DuplicateName, "port 80 is declared twice"),
        ),
    ] {
        let text = format!(
            "[[service-entry]]\nname = \"e\"\nhosts = [\"a.example\"]\nports = {ports}\nresolution = \"DNS\"\n"
        );
        rows.add(name, text, &[(4, want.0, want.1, want.2)]);
    }
}

fn endpoints(rows: &mut Rows) {
    use Code::*;
    for (name, endpoint, want) in [
        (
            "an endpoint nowhere",
            "{}",
            (14, MissingKey, "has no `address`"),
        ),
        (
            "an endpoint's name",
            "{ address = \"a b\" }",
            (26, BadName, "neither an address nor a name"),
        ),
        (
            "a socket",
            "{ address = \"unix:///a\" }",
            (26, BadName, "neither"),
        ),
        (
            "a port of nobody",
            "{ address = \"192.0.2.1\", ports = { http = 80 } }",
            (56, BadValue, "does not name"),
        ),
        (
            "a weight of nothing",
            "{ address = \"192.0.2.1\", weight = 0 }",
            (48, BadValue, "from 1 to 1000000"),
        ),
        (
            "an endpoint's network",
            "{ address = \"192.0.2.1\", network = \"n\" }",
            (49, Unsupported, "workload-selector"),
        ),
        (
            "an endpoint twice",
            "{ address = \"192.0.2.1\" }, { address = \"192.0.2.1\" }",
            (41, DuplicateName, "endpoint `192.0.2.1` is declared twice"),
        ),
    ] {
        rows.entry(name, &format!("endpoints = [{endpoint}]"), want);
    }
    rows.found_by(
        "a name that is not looked up",
        "STATIC",
        "endpoints = [{ address = \"a.example\" }]",
        (26, BadValue, "`resolution = \\\"DNS\\\"`"),
    );
}

/// What does not go together.
fn shapes(rows: &mut Rows) {
    use Code::*;
    let one = "endpoints = [{ address = \"192.0.2.1\" }]";
    let selector = "workload-selector = { labels = { app = \"a\" } }";
    rows.file(
        "nobody to be asked",
        ENTRY,
        &[(1, 1, MissingKey, "has resolution NONE and no `addresses`")],
    );
    rows.found_by(
        "endpoints of who is asked",
        "NONE",
        &format!("{one}\naddresses = [\"192.0.2.7\"]"),
        (
            13,
            ConflictingKeys,
            "`endpoints` do not go with resolution NONE",
        ),
    );
    rows.file(
        "nobody listed",
        &format!("{ENTRY}resolution = \"STATIC\"\n"),
        &[(1, 1, MissingKey, "has resolution STATIC and no endpoints")],
    );
    rows.file(
        "selected by name",
        &format!("{ENTRY}resolution = \"DNS\"\n{selector}\n"),
        &[
            (6, 21, ConflictingKeys, "does not go with resolution DNS"),
            (6, 21, SelectorMatchesNothing, "selects no workload"),
        ],
    );
    rows.file(
        "an empty selector",
        &format!("{ENTRY}resolution = \"STATIC\"\nworkload-selector = {{ labels = {{}} }}\n"),
        &[(6, 21, BadValue, "is empty")],
    );
    rows.add(
        "listed and selected",
        format!("{ENTRY}resolution = \"STATIC\"\n{one}\n{selector}\n[[workload]]\nname = \"a\"\naddresses = [\"10.1.0.99\"]\nlabels = {{ app = \"a\" }}\n"),
        &[(7, 21, ConflictingKeys, "stands beside `endpoints`")],
    );
    rows.found_by(
        "in turn among several",
        "DNS_ROUND_ROBIN",
        "endpoints = [{ address = \"a.example\" }, { address = \"b.example\" }]",
        (13, BadValue, "more than one endpoint"),
    );
    rows.file(
        "a wildcard by name",
        "[[service-entry]]\nname = \"e\"\nhosts = [\"*.example\"]\nports = [{ number = 443 }]\nresolution = \"DNS\"\n",
        &[(3, 10, BadValue, "write `resolution = \\\"DYNAMIC_DNS\\\"`")],
    );
    rows.file(
        "a name as a wildcard",
        "[[service-entry]]\nname = \"e\"\nhosts = [\"a.example\"]\nports = [{ number = 443 }]\nresolution = \"DYNAMIC_DNS\"\n",
        &[
            (2, 8, NoWaypointForWildcardService, "is behind no waypoint"),
            (3, 10, BadValue, "write a wildcard"),
        ],
    );
    rows.file(
        "a wildcard inside the mesh",
        "[[service-entry]]\nname = \"e\"\nhosts = [\"*.example\"]\nports = [{ number = 443 }]\nresolution = \"DYNAMIC_DNS\"\nlocation = \"MESH_INTERNAL\"\n",
        &[
            (2, 8, NoWaypointForWildcardService, "is behind no waypoint"),
            (5, 14, BadValue, "is MESH_INTERNAL"),
        ],
    );
    rows.file(
        "addresses of several hosts",
        "[[service-entry]]\nname = \"e\"\nhosts = [\"a.example\", \"b.example\"]\nports = [{ number = 443 }]\nresolution = \"DNS\"\naddresses = [\"192.0.2.7\"]\n",
        &[(3, 23, ConflictingKeys, "a service-entry for each host")],
    );
}
