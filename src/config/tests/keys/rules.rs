//! Rows about the rules of policies.

use super::super::Code;
use super::Rows;
use super::policies::{Fault, POLICY};

pub(super) fn add(rows: &mut Rows) {
    sources(rows);
    accounts(rows);
    operations(rows);
    conditions(rows);
    custom(rows);
}

impl Rows {
    /// A source with these fields.
    fn source(&mut self, name: &'static str, fields: &str, want: Fault) {
        let around = ("rules = [{ from = [{ source = { ", " } }] }]");
        self.inside(name, around, fields, &[want]);
    }

    /// An operation with these fields.
    fn operation(&mut self, name: &'static str, fields: &str, want: Fault) {
        let around = ("rules = [{ to = [{ operation = { ", " } }] }]");
        self.inside(name, around, fields, &[want]);
    }

    /// A condition with these fields.
    fn when(&mut self, name: &'static str, fields: &str, want: Fault) {
        let around = ("rules = [{ when = [{ ", " }] }]");
        self.inside(name, around, fields, &[want]);
    }
}

fn sources(rows: &mut Rows) {
    use Code::*;
    rows.source(
        "nothing asked",
        "",
        (-1, BadValue, "a rule `{}` matches everything"),
    );
    rows.source(
        "singular",
        "principal = [\"*\"]",
        (1, UnknownKey, "did you mean `principals`?"),
    );
    rows.source(
        "one value",
        "namespaces = \"shop\"",
        (14, WrongType, "write a list"),
    );
    rows.source(
        "no value",
        "namespaces = []",
        (14, BadValue, "leave the key out"),
    );
    rows.source(
        "an empty value",
        "not-namespaces = [\"\"]",
        (19, BadValue, "is empty"),
    );
    rows.source(
        "a star in the middle",
        "principals = [\"td/*/sa/web\"]",
        (15, BadValue, "write one `*`, first or last"),
    );
    rows.source(
        "two stars",
        "request-principals = [\"*/*\"]",
        (23, BadValue, "not a pattern"),
    );
    rows.source(
        "a whole SPIFFE ID",
        "principals = [\"spiffe://cluster.local/ns/shop/sa/web\"]",
        (15, BadValue, "write `\\\"cluster.local/ns/shop/sa/web\\\"`"),
    );
    rows.source(
        "a scheme after a star",
        "not-principals = [\"*spiffe://td/ns/a\"]",
        (19, BadValue, "write `\\\"*td/ns/a\\\"`"),
    );
    rows.source(
        "a principal of four parts",
        "principals = [\"cluster.local/ns/shop/web\"]",
        (15, NeverMatches, "is no workload's identity"),
    );
    rows.source(
        "a principal with an empty part",
        "principals = [\"cluster.local/ns//sa/web\"]",
        (15, NeverMatches, "matches nobody"),
    );
    rows.source(
        "a trust domain with more",
        "trust-domains = [\"spiffe://td/ns\"]",
        (18, BadValue, "write `\\\"td\\\"`"),
    );
    rows.source(
        "bits beyond the length",
        "ip-blocks = [\"10.1.2.3/16\"]",
        (14, BadValue, "write `\\\"10.1.0.0/16\\\"`"),
    );
    rows.source(
        "a name for an address",
        "not-ip-blocks = [\"web\"]",
        (18, BadValue, "is no address and no range"),
    );
    rows.source(
        "a length too long",
        "remote-ip-blocks = [\"10.1.2.3/33\"]",
        (21, BadValue, "is no address and no range"),
    );
    rows.source(
        "IPv4 in IPv6",
        "ip-blocks = [\"::ffff:10.1.0.0/112\"]",
        (14, BadValue, "write `\\\"10.1.0.0/16\\\"`"),
    );
}

fn accounts(rows: &mut Rows) {
    use Code::*;
    let long = format!("service-accounts = [\"{}\"]", "a".repeat(321));
    let many = format!("service-accounts = [{}]", "\"web\",".repeat(17));
    rows.source(
        "a star in an account",
        "service-accounts = [\"we*\"]",
        (21, BadValue, "compared as they are"),
    );
    rows.source(
        "an account of three parts",
        "service-accounts = [\"td/shop/web\"]",
        (21, BadValue, "a character that names do not have"),
    );
    rows.source(
        "an account of no namespace",
        "service-accounts = [\"/web\"]",
        (21, BadValue, "write `\\\"ACCOUNT\\\"`"),
    );
    rows.source(
        "an account too long",
        &long,
        (21, BadValue, "longer than 320 characters"),
    );
    rows.source(
        "too many accounts",
        &many,
        (20, TooLarge, "has 17 service accounts, at most 16"),
    );
    rows.source(
        "accounts and principals",
        "service-accounts = [\"web\"], not-principals = [\"*\"]",
        (
            46,
            ConflictingKeys,
            "cannot stand beside `service-accounts`",
        ),
    );
    rows.source(
        "namespaces and accounts",
        "namespaces = [\"default\"], not-service-accounts = [\"web\"]",
        (14, ConflictingKeys, "beside `not-service-accounts`"),
    );
}

fn operations(rows: &mut Rows) {
    use Code::*;
    rows.operation("nothing asked", "", (-1, BadValue, "asks for nothing"));
    rows.operation(
        "a port too high",
        "ports = [\"65536\"]",
        (10, BadValue, "from 0 to 65535"),
    );
    rows.operation(
        "a port too high, without quotes",
        "ports = [65536]",
        (10, BadValue, "from 0 to 65535"),
    );
    rows.operation(
        "a range of ports",
        "not-ports = [\"80-90\"]",
        (14, BadValue, "is not a port"),
    );
    rows.operation(
        "a port with a sign",
        "ports = [\"+80\"]",
        (10, BadValue, "is not a port"),
    );
    rows.operation(
        "a port with a star",
        "ports = [\"8*\"]",
        (10, BadValue, "compared as they are"),
    );
    rows.operation(
        "a star in a host",
        "hosts = [\"a.*.com\"]",
        (10, BadValue, "write one `*`"),
    );
    rows.operation(
        "an empty method",
        "methods = [\"\"]",
        (12, BadValue, "is empty"),
    );
    rows.operation(
        "a star in a path",
        "paths = [\"/a/*/b\"]",
        (10, BadValue, "write one `*`"),
    );
    rows.operation(
        "a template that is none",
        "not-paths = [\"/foo/{*}.txt\"]",
        (14, BadValue, "`{*}` for one"),
    );
    rows.operation(
        "an operator after the last",
        "paths = [\"/{**}/foo/{*}\"]",
        (10, BadValue, "has an operator after `{**}`"),
    );
}

fn conditions(rows: &mut Rows) {
    use Code::*;
    rows.when(
        "no key",
        "values = [\"a\"]",
        (-1, MissingKey, "has no `key`"),
    );
    rows.when(
        "nothing to compare with",
        "key = \"source.ip\"",
        (-1, MissingKey, "compares its key with nothing"),
    );
    rows.when(
        "misspelt values, said once",
        "key = \"source.ip\", value = [\"10.1.0.1\"]",
        (20, UnknownKey, "did you mean `values`?"),
    );
    rows.when(
        "an unknown key",
        "key = \"source.port\", values = [\"80\"]",
        (7, BadValue, "did you mean `source."),
    );
    rows.when(
        "an unlike key",
        "key = \"weather\", values = [\"80\"]",
        (7, BadValue, "write one of `source.ip`"),
    );
    rows.when(
        "a filter of Envoy",
        "key = \"experimental.envoy.filters.a[b]\", values = [\"80\"]",
        (7, Unsupported, "there is no Envoy"),
    );
    for (name, key) in [
        ("no header", "request.headers"),
        ("an empty header", "request.headers[]"),
        ("a header left open", "request.headers[a"),
        ("two headers", "request.headers[a][b]"),
        ("a header with a space", "request.headers[a b]"),
    ] {
        let fields = format!("key = \"{key}\", values = [\"a\"]");
        rows.when(
            name,
            &fields,
            (7, BadValue, "as in `request.headers[x-token]`"),
        );
    }
    for (name, key) in [
        ("no claim", "request.auth.claims"),
        ("an empty claim", "request.auth.claims[]"),
        ("an empty claim inside", "request.auth.claims[a][]"),
        ("a claim with more behind", "request.auth.claims[a].b"),
    ] {
        let fields = format!("key = \"{key}\", values = [\"a\"]");
        rows.when(
            name,
            &fields,
            (7, BadValue, "`request.auth.claims[groups]`"),
        );
    }
    rows.when(
        "an address",
        "key = \"destination.ip\", values = [\"10.1.0.1/16\"]",
        (35, BadValue, "write `\\\"10.1.0.0/16\\\"`"),
    );
    rows.when(
        "a client's address",
        "key = \"remote.ip\", not-values = [\"a\"]",
        (34, BadValue, "is no address"),
    );
    rows.when(
        "a port",
        "key = \"destination.port\", values = [\"http\"]",
        (37, BadValue, "is not a port"),
    );
    rows.when(
        "a principal",
        "key = \"source.principal\", values = [\"spiffe://td/ns/a/sa/b\"]",
        (37, BadValue, "write `\\\"td/ns/a/sa/b\\\"`"),
    );
    rows.when(
        "an account",
        "key = \"source.serviceAccount\", values = [\"*\"]",
        (42, BadValue, "compared as they are"),
    );
    rows.when(
        "a trust domain",
        "key = \"source.trustDomain\", values = [\"a/b\"]",
        (39, BadValue, "more than a trust domain"),
    );
    rows.when(
        "a pattern",
        "key = \"connection.sni\", values = [\"a*b\"]",
        (35, BadValue, "write one `*`"),
    );
}

fn custom(rows: &mut Rows) {
    use Code::*;
    let head = "action = \"CUSTOM\"\nprovider = { name = \"opa\" }\n";
    let mut row = |name, rule: &str, column| {
        let text = format!("{POLICY}{head}rules = [{{ {rule} }}]\n");
        rows.add(
            name,
            text,
            &[(5, column, ConflictingKeys, "not with `CUSTOM`")],
        );
    };
    row(
        "asking by principal",
        "from = [{ source = { principals = [\"*\"] } }]",
        46,
    );
    row(
        "asking by no namespace",
        "from = [{ source = { not-namespaces = [\"default\"] } }]",
        50,
    );
    row(
        "asking by token",
        "from = [{ source = { request-principals = [\"*\"] } }]",
        54,
    );
    row(
        "asking by account",
        "when = [{ key = \"source.serviceAccount\", values = [\"a\"] }]",
        28,
    );
    row(
        "asking by claim",
        "when = [{ key = \"request.auth.claims[a]\", values = [\"a\"] }]",
        28,
    );
}
