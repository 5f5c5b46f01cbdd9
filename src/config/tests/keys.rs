//! What one file can get wrong by itself.

mod destinations;
mod limits;
mod policies;
mod providers;
mod resources;
mod rules;
mod service_entries;
mod telemetry;
mod tokens;

use super::{Code, Row, judge};

#[test]
fn each_mistake_is_found_where_it_is() {
    judge(rows());
}

/// The lines that make a workload of a fragment valid; it begins at line 4.
const WORKLOAD: &str = "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.11\"]\n";
/// The same for a service, which selects that workload; it begins at line 5.
const SERVICE: &str =
    "[[service]]\nname = \"s\"\nselector = { app = \"a\" }\nports = [{ port = 80 }]\n";
/// What [`SERVICE`] selects, at the end.
const SELECTED: &str =
    "\n[[workload]]\nname = \"a\"\naddresses = [\"10.1.0.99\"]\nlabels = { app = \"a\" }\n";

struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, name: &'static str, text: String, want: &[(u32, u32, Code, &'static str)]) {
        let want = want
            .iter()
            .map(|(l, c, code, text)| ("m.toml", *l, *c, *code, *text));
        self.0.push((name, vec![("m.toml", text)], want.collect()));
    }

    /// A file as it is.
    fn file(&mut self, name: &'static str, text: &str, want: &[(u32, u32, Code, &'static str)]) {
        self.add(name, text.to_owned(), want);
    }

    /// One more line, the second, in `[mesh]`.
    fn mesh(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        self.add(
            name,
            format!("[mesh]\n{line}\n{WORKLOAD}"),
            &[(2, want.0, want.1, want.2)],
        );
    }

    /// One more line, the fourth, in a workload.
    fn workload(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        self.add(
            name,
            format!("{WORKLOAD}{line}\n"),
            &[(4, want.0, want.1, want.2)],
        );
    }

    /// One more line, the fifth, in a service.
    fn service(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        self.add(
            name,
            format!("{SERVICE}{line}\n{SELECTED}"),
            &[(5, want.0, want.1, want.2)],
        );
    }

    /// The third line of a node.
    fn node(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        self.add(
            name,
            format!("[[node]]\nname = \"n\"\n{line}\n"),
            &[(3, want.0, want.1, want.2)],
        );
    }

    /// The third line of a namespace.
    fn namespace(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        let text = format!("[[namespace]]\nname = \"n\"\n{line}\n");
        self.add(name, text, &[(3, want.0, want.1, want.2)]);
    }
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Rows(Vec::new());
    syntax(&mut rows);
    kinds(&mut rows);
    settings(&mut rows);
    nodes(&mut rows);
    namespaces(&mut rows);
    resources::add(&mut rows);
    policies::add(&mut rows);
    tokens::add(&mut rows);
    limits::add(&mut rows);
    rules::add(&mut rows);
    providers::add(&mut rows);
    telemetry::add(&mut rows);
    destinations::add(&mut rows);
    service_entries::add(&mut rows);
    rows.0
}

fn syntax(rows: &mut Rows) {
    use Code::*;
    let deep = format!("x = {}{}\n", "[".repeat(40), "]".repeat(40));
    rows.file("no value", "default-namespace =\n", &[(1, 20, Syntax, "")]);
    rows.file(
        "no quotes",
        "[[node]]\nname = edge-1\n",
        &[(2, 8, Syntax, "write `\\\"edge-1\\\"`")],
    );
    rows.file(
        "addresses without quotes",
        "[[node]]\nname = \"n\"\naddresses = [10.0.0.1, 10.0.0.0/8]\n",
        &[(3, 14, Syntax, "write `\\\"10.0.0.1\\\"`")],
    );
    rows.file(
        "a key twice",
        "[[node]]\nname = \"n\"\nname = \"m\"\n",
        &[(3, 1, Syntax, "`name` is written twice")],
    );
    rows.file(
        "two lines wrong",
        "[[node]]\nname = n\n[[node]]\nname = m\n",
        &[(2, 8, Syntax, ""), (4, 8, Syntax, "")],
    );
    rows.file(
        "what else is wrong beside a fault of syntax",
        "[[node]]\nname = \"N\"\n[[node]]\nnam = \"x\"\nlocality = eu\n",
        &[
            (2, 8, BadName, ""),
            (4, 1, UnknownKey, ""),
            (5, 12, Syntax, ""),
        ],
    );
    rows.file(
        "nested too deep",
        &deep,
        &[(1, 36, TooLarge, "deeper than 32")],
    );
}

fn kinds(rows: &mut Rows) {
    use Code::*;
    rows.file(
        "a kind in the plural",
        "[[nodes]]\nname = \"n\"\n",
        &[(1, 3, UnknownKey, "did you mean `node`?")],
    );
    rows.file(
        "an unknown kind",
        "[[zebra]]\n",
        &[(
            1,
            3,
            UnknownKey,
            "the keys here are `default-namespace`, `mesh`",
        )],
    );
    rows.file(
        "one bracket",
        "[node]\nname = \"n\"\n",
        &[(1, 1, WrongType, "`[[node]]`")],
    );
    rows.file(
        "a kind that is a value",
        "node = \"n\"\n",
        &[(1, 8, WrongType, "`[[node]]`")],
    );
    rows.file(
        "two brackets",
        "[[mesh]]\n",
        &[(1, 1, WrongType, "is a list, expected a table")],
    );
    rows.file(
        "later kinds, each one",
        "[[wasm-plugin]]\n[[wasm-plugin]]\n",
        &[
            (1, 1, Unsupported, "does not enforce `wasm-plugin`"),
            (2, 1, Unsupported, "does not enforce `wasm-plugin`"),
        ],
    );
    rows.file(
        "a table of lateen.toml",
        "[control]\nlisten = \"x\"\n",
        &[(1, 1, UnknownKey, "belongs in lateen.toml")],
    );
    rows.file(
        "a bad default namespace",
        "default-namespace = \"Shop\"\n",
        &[(1, 21, BadName, "write `\\\"shop\\\"`")],
    );
    rows.file(
        "no name",
        "[[node]]\naddresses = []\n",
        &[(1, 1, MissingKey, "add it, as in `name = \\\"node-1\\\"`")],
    );
}

fn settings(rows: &mut Rows) {
    use Code::*;
    rows.mesh(
        "unknown setting",
        "trust_domain = \"td\"",
        (1, UnknownKey, "did you mean `trust-domain`?"),
    );
    rows.mesh(
        "trust domain",
        "trust-domain = \"spiffe://td\"",
        (16, BadValue, "without `spiffe://`"),
    );
    rows.mesh(
        "domain of numbers",
        "domain = \"mesh.1\"",
        (10, BadName, "as an address does"),
    );
    rows.mesh(
        "domain with a dot at its end",
        "domain = \"mesh.internal.\"",
        (10, BadName, "empty part"),
    );
    rows.mesh(
        "root namespace",
        "root-namespace = \"a.b\"",
        (18, BadName, "has a dot in it"),
    );
    rows.mesh(
        "range is a string",
        "service-range = \"10.0.0.0/8\"",
        (17, WrongType, "write a list: `[\\\"10.0.0.0/8\\\"]`"),
    );
    rows.mesh(
        "range without length",
        "service-range = [\"10.9.0.0\"]",
        (18, BadValue, "`\\\"10.9.0.0/16\\\"`"),
    );
    rows.mesh(
        "range with host bits",
        "service-range = [\"10.9.0.1/16\"]",
        (18, BadValue, "write `\\\"10.9.0.0/16\\\"`"),
    );
    rows.mesh(
        "range of everything",
        "service-range = [\"0.0.0.0/0\"]",
        (18, BadValue, "every address"),
    );
    rows.mesh(
        "range of nothing",
        "service-range = []",
        (17, BadValue, "at least one range"),
    );
    rows.mesh(
        "no range",
        "service-range = [\"ten\"]",
        (18, BadValue, "is not a range"),
    );
    rows.mesh(
        "a number of days",
        "certificate-ttl = 8",
        (19, WrongType, "give its unit: `\\\"8s\\\"`"),
    );
    rows.mesh(
        "no unit",
        "certificate-ttl = \"8\"",
        (19, BadValue, "give its unit: `\\\"8s\\\"`"),
    );
    rows.mesh(
        "a life too short",
        "certificate-ttl = \"1m\"",
        (19, BadValue, "between 10m and 90d"),
    );
    rows.mesh(
        "not a duration",
        "certificate-ttl = \"a week\"",
        (19, BadValue, "units d, h, m, s or ms"),
    );
    rows.mesh(
        "cluster id",
        "cluster-id = \"a/b\"",
        (14, BadName, "cannot be a name"),
    );
    rows.mesh(
        "serial below zero",
        "serial = -1",
        (10, BadValue, "not a number from 0"),
    );
    rows.mesh(
        "serial in quotes",
        "serial = \"7\"",
        (10, WrongType, "write it unquoted: `7`"),
    );
    rows.mesh(
        "more grace than there is",
        "expired-grace = \"31d\"",
        (17, BadValue, "30d"),
    );
    rows.mesh(
        "a misspelt reason to ask again",
        "default-http-retry-policy = { attempts = 2, retry-on = \"5xx,conect-failure\" }",
        (56, BadValue, "write `connect-failure`"),
    );
    rows.mesh(
        "a status that is none",
        "default-http-retry-policy = { attempts = 2, retry-on = \"600\" }",
        (56, BadValue, "write statuses such as"),
    );
    rows.mesh(
        "a retry of another kind",
        "default-http-retry-policy = { attempts = 2, codes = [503] }",
        (45, UnknownKey, "codes"),
    );
    rows.mesh(
        "shares beside failover",
        "locality-lb-setting = { distribute = [], failover = [] }",
        (53, ConflictingKeys, "with shares nothing fails over"),
    );
    rows.mesh(
        "neither true nor false",
        "auto-allow-waypoint = \"yes\"",
        (23, WrongType, "write it unquoted"),
    );
}

fn nodes(rows: &mut Rows) {
    use Code::*;
    rows.file(
        "upper case",
        "[[node]]\nname = \"Edge_1\"\n",
        &[(2, 8, BadName, "write `\\\"edge-1\\\"`")],
    );
    rows.file(
        "an address for a name",
        "[[node]]\nname = \"10.0.0.1\"\n",
        &[(2, 8, BadName, "is an address, not a name")],
    );
    rows.file(
        "a number for a name",
        "[[node]]\nname = 7\n",
        &[(2, 8, WrongType, "write it in quotes: `\\\"7\\\"`")],
    );
    rows.node(
        "misspelt key",
        "adresses = [\"192.0.2.1\"]",
        (1, UnknownKey, "did you mean `addresses`?"),
    );
    rows.node(
        "one address",
        "addresses = \"192.0.2.1\"",
        (13, WrongType, "write a list: `[\\\"192.0.2.1\\\"]`"),
    );
    rows.node(
        "a name for an address",
        "addresses = [\"edge\"]",
        (14, BadValue, "names are not looked up"),
    );
    rows.node(
        "an address with a length",
        "addresses = [\"192.0.2.1/24\"]",
        (14, BadValue, "`\\\"192.0.2.1\\\"`"),
    );
    rows.node(
        "an address with a port",
        "addresses = [\"192.0.2.1:80\"]",
        (14, BadValue, "`\\\"192.0.2.1\\\"`"),
    );
    rows.node(
        "loopback",
        "addresses = [\"127.0.0.1\"]",
        (14, BadValue, "loopback"),
    );
    rows.node(
        "unspecified",
        "addresses = [\"::\"]",
        (14, BadValue, "unspecified"),
    );
    rows.node(
        "multicast",
        "addresses = [\"ff02::1\"]",
        (14, BadValue, "multicast"),
    );
    rows.node(
        "broadcast",
        "addresses = [\"255.255.255.255\"]",
        (14, BadValue, "broadcast"),
    );
    rows.node(
        "link-local",
        "addresses = [\"fe80::1\"]",
        (14, BadValue, "link-local"),
    );
    rows.node(
        "IPv4 in IPv6",
        "addresses = [\"::ffff:192.0.2.1\"]",
        (14, BadValue, "write `\\\"192.0.2.1\\\"`"),
    );
    rows.node(
        "locality",
        "locality = \"a/b/c/d\"",
        (12, BadValue, "region/zone/subzone"),
    );
    rows.node(
        "locality with a gap",
        "locality = \"a//c\"",
        (12, BadValue, "region/zone/subzone"),
    );
    rows.node(
        "transport",
        "transport = \"quick\"",
        (13, BadValue, "write `\\\"quic\\\"`"),
    );
    rows.node(
        "a later key",
        "proxy-version = \"1.29\"",
        (17, Unsupported, "nothing depends on it"),
    );
    rows.file(
        "locality twice",
        "[[node]]\nname = \"n\"\nlocality = \"eu/a\"\nlabels = { \"topology.kubernetes.io/zone\" = \"b\" }\n",
        &[(4, 44, ConflictingKeys, "the key says this")],
    );
}

fn namespaces(rows: &mut Rows) {
    use Code::*;
    rows.namespace(
        "mode",
        "dataplane-mode = \"ambent\"",
        (18, BadValue, "write `\\\"ambient\\\"`"),
    );
    rows.namespace(
        "another mode",
        "dataplane-mode = \"sidecar\"",
        (18, BadValue, "write one of `ambient` and `none`"),
    );
    rows.namespace(
        "accounts",
        "service-accounts = \"cart\"",
        (20, WrongType, "write a list"),
    );
    rows.namespace(
        "an account",
        "service-accounts = [\"Cart\"]",
        (21, BadName, "write `\\\"cart\\\"`"),
    );
    rows.file(
        "a dot",
        "[[namespace]]\nname = \"a.b\"\n",
        &[(2, 8, BadName, "has a dot in it")],
    );
}
