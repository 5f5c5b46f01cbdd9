//! Rows about `extension-providers`.

use super::super::Code;
use super::{Rows, WORKLOAD};

pub(super) fn add(rows: &mut Rows) {
    kinds(rows);
    ext_authz(rows);
    telemetry(rows);
}

impl Rows {
    /// A provider, in the second line of a file.
    fn provider(&mut self, name: &'static str, says: &str, want: (u32, Code, &'static str)) {
        let line = format!("extension-providers = [{{ {says} }}]");
        let text = format!("[mesh]\n{line}\n{WORKLOAD}");
        self.add(name, text, &[(2, want.0, want.1, want.2)]);
    }

    /// One more key of a provider that is asked over HTTP.
    fn ext_authz(&mut self, name: &'static str, says: &str, want: (u32, Code, &'static str)) {
        let known = "name = \"p\", envoy-ext-authz-http = { service = \"shop/a\", port = 80, ";
        self.provider(name, &format!("{known}{says} }}"), want);
    }
}

fn kinds(rows: &mut Rows) {
    use Code::*;
    rows.provider(
        "no kind",
        "name = \"p\"",
        (24, MissingKey, "add its kind, as in"),
    );
    rows.provider(
        "no such kind",
        "name = \"p\", envoy-ext-auth-http = {}",
        (38, UnknownKey, "did you mean `envoy-ext-authz-http`?"),
    );
    rows.provider(
        "no name",
        "prometheus = {}",
        (24, MissingKey, "add it, as in `name = \\\"provider-1\\\"`"),
    );
    rows.provider(
        "a name with a dot",
        "name = \"a.b\", prometheus = {}",
        (33, BadName, "has a dot in it"),
    );
    rows.provider(
        "two kinds",
        "name = \"p\", prometheus = {}, envoy-file-access-log = {}",
        (79, ConflictingKeys, "make two of it"),
    );
    for (kind, instead) in [
        ("envoy-http-als", "use `envoy-otel-als`"),
        ("envoy-tcp-als", "use `envoy-otel-als`"),
        ("datadog", "Datadog's agent takes OTLP"),
        ("skywalking", "SkyWalking takes both"),
    ] {
        let column = 41 + u32::try_from(kind.len()).unwrap();
        let says = format!("name = \"p\", {kind} = {{}}");
        rows.provider(kind, &says, (column, Unsupported, instead));
    }
    rows.add(
        "one name for two",
        format!(
            "[[mesh.extension-providers]]\nname = \"p\"\nprometheus = {{}}\n[[mesh.extension-providers]]\nname = \"p\"\nprometheus = {{}}\n{WORKLOAD}"
        ),
        &[(5, 8, DuplicateName, "`p` is declared twice")],
    );
}

fn ext_authz(rows: &mut Rows) {
    use Code::*;
    rows.provider(
        "nobody to ask",
        "name = \"p\", envoy-ext-authz-grpc = { port = 80 }",
        (61, MissingKey, "service = \\\"shop/authz\\\""),
    );
    rows.provider(
        "a service of no namespace",
        "name = \"p\", zipkin = { service = \"authz\", port = 80 }",
        (59, BadName, "is of no namespace"),
    );
    for (name, says, want) in [
        (
            "a status that lets pass",
            "status-on-error = \"200\"",
            (BadValue, "from 400 to 599"),
        ),
        (
            "a status out of range",
            "status-on-error = 200",
            (BadValue, "from 400 to 599"),
        ),
        (
            "no time at all",
            "timeout = \"0s\"",
            (BadValue, "between 1ms and 10m"),
        ),
        (
            "a body of no length",
            "include-request-body-in-check = { }",
            (MissingKey, "max-request-bytes = 8192"),
        ),
        (
            "a prefix that is no path",
            "path-prefix = \"check\"",
            (BadValue, "begin it with `/`"),
        ),
        (
            "every header",
            "include-request-headers-in-check = [\"*\"]",
            (BadName, "not a name"),
        ),
        (
            "a star in the middle",
            "include-request-headers-in-check = [\"x*y\"]",
            (BadName, "not a name"),
        ),
        (
            "a header that no answer sets",
            "headers-to-upstream-on-allow = [\"Transfer-Encoding\"]",
            (BadName, "about one connection"),
        ),
        (
            "another host",
            "headers-to-upstream-on-allow = [\"host\"]",
            (BadName, "whom the request is for"),
        ),
        (
            "a field that no check has",
            "include-additional-headers-in-check = { \"content-length\" = \"1\" }",
            (BadName, "how long the body is"),
        ),
        (
            "the name it had",
            "include-headers-in-check = [\"x\"]",
            (Unsupported, "write `include-request-headers-in-check`"),
        ),
    ] {
        // The value begins after the key and its sign, or inside the brackets or braces.
        let (key, value) = says.split_once(" = ").unwrap();
        let inside = match (value.as_bytes()[0], want.0) {
            (b'[', BadName) => 1,
            (b'{', BadName) => "{ \"content-length\" = ".len(),
            _ => 0,
        };
        let column = 26
            + "name = \"p\", envoy-ext-authz-http = { service = \"shop/a\", port = 80, ".len()
            + key.len()
            + " = ".len()
            + inside;
        rows.ext_authz(name, says, (u32::try_from(column).unwrap(), want.0, want.1));
    }
}

fn telemetry(rows: &mut Rows) {
    use Code::*;
    rows.provider(
        "a log nowhere",
        "name = \"p\", envoy-file-access-log = { path = \"access.log\" }",
        (71, BadValue, "begin it with `/`"),
    );
    rows.provider(
        "two formats",
        "name = \"p\", envoy-file-access-log = { log-format = { text = \"a\", labels = { a = \"b\" } } }",
        (100, ConflictingKeys, "keep `text` for lines"),
    );
    rows.provider(
        "no format",
        "name = \"p\", envoy-file-access-log = { log-format = {} }",
        (77, MissingKey, "for Istio's own text"),
    );
    rows.provider(
        "no such context",
        "name = \"p\", zipkin = { service = \"o/z\", port = 1, trace-context-option = \"B3\" }",
        (99, BadValue, "write one of `USE_B3`"),
    );
    rows.provider(
        "HTTP without a path",
        "name = \"p\", opentelemetry = { service = \"o/c\", port = 1, http = { } }",
        (90, MissingKey, "path = \\\"/v1/traces\\\""),
    );
}
