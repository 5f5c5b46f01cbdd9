//! Rows about policies.

use super::super::Code;
use super::{Rows, WORKLOAD};

pub(super) fn add(rows: &mut Rows) {
    policies(rows);
    attachments(rows);
    targets(rows);
    sources(rows);
    accounts(rows);
    operations(rows);
    conditions(rows);
    custom(rows);
    authentications(rows);
}

/// The lines of a policy that a fragment is added to; it begins at line 3.
const POLICY: &str = "[[authorization-policy]]\nname = \"p\"\n";
const AUTHENTICATION: &str = "[[peer-authentication]]\nname = \"p\"\n";

/// What is wrong with a fragment: the column in it, below 1 for what is around it; the code, a text.
type Fault = (i32, Code, &'static str);

impl Rows {
    /// One more line, the third, in a policy.
    fn policy(&mut self, name: &'static str, line: &str, want: Fault) {
        self.add(
            name,
            format!("{POLICY}{line}\n"),
            &[(3, u32::try_from(want.0).unwrap(), want.1, want.2)],
        );
    }

    /// A fragment inside the third line of a policy; the columns count from where it begins.
    fn inside(&mut self, name: &'static str, around: (&str, &str), fragment: &str, want: &[Fault]) {
        let (before, after) = around;
        let offset = i32::try_from(before.len()).unwrap();
        let column = |at: i32| u32::try_from(at + offset).unwrap();
        let want: Vec<_> = want.iter().map(|w| (3, column(w.0), w.1, w.2)).collect();
        self.add(name, format!("{POLICY}{before}{fragment}{after}\n"), &want);
    }

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

    /// The third line of a peer-authentication.
    fn authentication(&mut self, name: &'static str, line: &str, want: Fault) {
        let text = format!("{AUTHENTICATION}{line}\n");
        self.add(
            name,
            text,
            &[(3, u32::try_from(want.0).unwrap(), want.1, want.2)],
        );
    }
}

fn policies(rows: &mut Rows) {
    use Code::*;
    rows.policy(
        "camel case",
        "targetRefs = []\nrules = []",
        (1, UnknownKey, "did you mean `target-refs`?"),
    );
    rows.policy(
        "lower case",
        "action = \"deny\"\nrules = [{}]",
        (10, BadValue, "write `\\\"DENY\\\"`"),
    );
    rows.policy(
        "an unknown action",
        "action = \"LOG\"\nrules = [{}]",
        (10, BadValue, "write one of `ALLOW`"),
    );
    rows.policy(
        "nothing to deny",
        "action = \"DENY\"",
        (10, MissingKey, "is `DENY` without rules"),
    );
    rows.policy(
        "nothing to deny, in so many words",
        "rules = []\naction = \"DENY\"",
        (9, MissingKey, "`rules = [{}]` matches everything"),
    );
    rows.policy(
        "misspelt rules, said once",
        "rule = [{}]\naction = \"DENY\"",
        (1, UnknownKey, "did you mean `rules`?"),
    );
    rows.policy(
        "nothing to ask about",
        "action = \"CUSTOM\"\nprovider = { name = \"opa\" }",
        (10, MissingKey, "is `CUSTOM` without rules"),
    );
    rows.policy(
        "nobody to ask",
        "action = \"CUSTOM\"\nrules = [{}]",
        (10, MissingKey, "`provider = { name = \\\"opa\\\" }`"),
    );
    rows.policy(
        "a provider without a name",
        "provider = {}\naction = \"CUSTOM\"\nrules = [{}]",
        (12, MissingKey, "has no `name`"),
    );
    rows.policy(
        "a provider of nothing",
        "provider = { name = \"opa\" }\nrules = [{}]",
        (12, ConflictingKeys, "only `CUSTOM` asks one"),
    );
    rows.policy(
        "too many rules",
        &format!("rules = [{}]", "{},".repeat(513)),
        (9, TooLarge, "has 513 rules, at most 512"),
    );
    rows.policy("one rule", "rules = {}", (9, WrongType, "expected a list"));
    rows.policy(
        "no source",
        "rules = [{ from = [] }]",
        (19, BadValue, "is empty"),
    );
    rows.policy(
        "no operation",
        "rules = [{ to = [] }]",
        (17, BadValue, "is empty"),
    );
    rows.add(
        "a source without its key",
        format!("{POLICY}rules = [{{ from = [{{ principals = [\"*\"] }}] }}]\n"),
        &[
            (3, 20, MissingKey, "as in `source = { principals"),
            (3, 22, UnknownKey, "the keys here are `source`"),
        ],
    );
    rows.policy(
        "a rule's key",
        "rules = [{ form = [] }]",
        (12, UnknownKey, "did you mean `from`?"),
    );
    rows.policy(
        "dry run in quotes",
        "dry-run = \"true\"\nrules = []",
        (11, WrongType, "write it unquoted"),
    );
    rows.policy(
        "dry run in other words",
        "annotations = { \"istio.io/dry-run\" = \"yes\" }\nrules = []",
        (38, BadValue, "write `\\\"true\\\"`"),
    );
    rows.policy(
        "an annotation without quotes",
        "annotations = { \"istio.io/dry-run\" = true }\nrules = []",
        (38, WrongType, "write it in quotes"),
    );
    rows.policy(
        "another annotation",
        "annotations = { \"istio.io/dryrun\" = \"true\" }\nrules = []",
        (17, UnknownKey, "write `istio.io/dry-run` instead"),
    );
    rows.add(
        "dry run twice",
        format!("{POLICY}rules = []\ndry-run = false\nannotations = {{ \"istio.io/dry-run\" = \"T\" }}\n"),
        &[(5, 38, ConflictingKeys, "the key says this")],
    );
    rows.file(
        "no name",
        "[[authorization-policy]]\nrules = []\n",
        &[(1, 1, MissingKey, "`name = \\\"authorization-policy-1\\\"`")],
    );
    rows.mesh(
        "an alias",
        "trust-domain-aliases = [\"old\", \"a/b\"]",
        (32, BadValue, "is not a trust domain"),
    );
}

fn attachments(rows: &mut Rows) {
    use Code::*;
    rows.policy(
        "an empty selector",
        "selector = {}\nrules = []",
        (12, BadValue, "selects nothing in particular"),
    );
    rows.policy(
        "no labels",
        "selector = { match-labels = {} }\nrules = []",
        (12, BadValue, "leave it out for every workload"),
    );
    rows.policy(
        "labels without their key",
        "selector = { app = \"cart\" }\nrules = []",
        (14, UnknownKey, "the keys here are `match-labels`"),
    );
    rows.policy(
        "a star in a label",
        "selector = { match-labels = { app = \"c*\" } }\nrules = []",
        (37, BadValue, "cannot be the value of a label"),
    );
    rows.policy(
        "a selector and targets",
        "selector = { match-labels = { app = \"a\" } }\ntarget-refs = [{ kind = \"Service\", name = \"s\" }]\nrules = []",
        (12, ConflictingKeys, "both take two policies"),
    );
}

fn targets(rows: &mut Rows) {
    use Code::*;
    let mut row = |name, target: &str, want: Fault| {
        let around = ("target-refs = [{ ", " }]\nrules = []");
        rows.inside(name, around, target, &[want]);
    };
    row(
        "an unknown kind",
        "kind = \"Pod\", name = \"s\"",
        (8, BadValue, "write one of `Service`"),
    );
    row(
        "a kind in lower case",
        "kind = \"service\", name = \"s\"",
        (8, BadValue, "write `\\\"Service\\\"`"),
    );
    row("no kind", "name = \"s\"", (-1, MissingKey, "has no `kind`"));
    row(
        "no name",
        "kind = \"Gateway\"",
        (-1, MissingKey, "has no `name`"),
    );
    row(
        "a name that is none",
        "kind = \"Service\", name = \"*\"",
        (26, BadName, "a character that names do not have"),
    );
    row(
        "another group",
        "kind = \"Service\", name = \"s\", group = \"apps\"",
        (39, BadValue, "is not the group of Service"),
    );
    row(
        "no group",
        "kind = \"Gateway\", name = \"s\", group = \"\"",
        (39, BadValue, "write `\\\"gateway.networking.k8s.io\\\"`"),
    );
    row(
        "another namespace",
        "kind = \"Gateway\", name = \"s\", namespace = \"x\"",
        (43, BadValue, "in the policy's own namespace"),
    );
    rows.policy(
        "too many targets",
        &format!(
            "target-refs = [{}]\nrules = []",
            "{ kind = \"Gateway\", name = \"s\" },".repeat(17)
        ),
        (15, TooLarge, "names 17 targets, at most 16"),
    );
    let gateway = "{ kind = \"Gateway\", name = \"s\" }";
    rows.add(
        "the older key beside the new one",
        format!("{POLICY}target-refs = [{gateway}]\ntarget-ref = {gateway}\nrules = []\n"),
        &[
            (3, 15, NotInForce, "serves no waypoints"),
            (4, 14, NoEffect, "keep `target-refs` alone"),
        ],
    );
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

fn authentications(rows: &mut Rows) {
    use Code::*;
    rows.authentication(
        "an unknown mode",
        "mtls = { mode = \"MUTUAL\" }",
        (17, BadValue, "write one of `UNSET`"),
    );
    rows.authentication(
        "a mode in lower case",
        "mtls = { mode = \"strict\" }",
        (17, BadValue, "write `\\\"STRICT\\\"`"),
    );
    rows.authentication(
        "a mode without its key",
        "mtls = \"STRICT\"",
        (8, WrongType, "expected a table"),
    );
    rows.authentication(
        "no such field",
        "target-refs = []",
        (1, UnknownKey, "the keys here are"),
    );
    rows.authentication(
        "ports of nobody",
        "port-level-mtls = { 8080 = { mode = \"STRICT\" } }",
        (19, ConflictingKeys, "ports of whom?"),
    );
    rows.authentication(
        "ports of everybody",
        "port-level-mtls = { 8080 = { mode = \"STRICT\" } }\nselector = { match-labels = {} }",
        (19, ConflictingKeys, "is given without a selector"),
    );
    let mut row = |name, entry: &str, want: Fault| {
        let selector = "selector = { match-labels = { app = \"a\" } }";
        let labelled = WORKLOAD.to_owned() + "labels = { app = \"a\" }\n";
        let text = format!(
            "{AUTHENTICATION}{selector}\n[peer-authentication.port-level-mtls]\n{entry}\n{labelled}"
        );
        rows.add(
            name,
            text,
            &[(5, u32::try_from(want.0).unwrap(), want.1, want.2)],
        );
    };
    row(
        "port zero",
        "0 = { mode = \"STRICT\" }",
        (1, BadValue, "from 1 to 65535"),
    );
    row(
        "a named port",
        "http = { mode = \"STRICT\" }",
        (1, BadValue, "not a port"),
    );
    row(
        "a port's mode without its key",
        "8080 = \"STRICT\"",
        (8, WrongType, "expected a table"),
    );
    row(
        "a port without a mode",
        "8080 = {}",
        (8, MissingKey, "`mode`"),
    );
    row(
        "a port's unknown mode",
        "8080 = { mode = \"ON\" }",
        (17, BadValue, "expected one of"),
    );
}
