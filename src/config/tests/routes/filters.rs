//! Rows about filters.

use super::{CART, Code, Row, TO, route, row, ruled};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = types();
    rows.extend(headers());
    rows.extend(redirects());
    rows.extend(mirrors());
    rows.extend(origins());
    rows
}

/// A filter of a rule, which begins at line 5; the column counts from what is inside its braces.
fn one(name: &'static str, filter: &str, at: u32, code: Code, text: &'static str) -> Row {
    let routes = ruled(&format!("filters = [{{ {filter} }}]"));
    row(name, routes, vec![("b.toml", 5, 25 + at, code, text)])
}

fn types() -> Vec<Row> {
    use Code::*;
    let set = "type = \"RequestHeaderModifier\", request-header-modifier = { remove = [\"a\"] }";
    vec![
        row(
            "no type",
            ruled("filters = [{ cors = {} }]"),
            vec![("b.toml", 5, 23, MissingKey, "has no `type`")],
        ),
        one(
            "an unknown type",
            "type = \"RateLimit\"",
            7,
            BadValue,
            "write one of `RequestHeaderModifier`",
        ),
        one(
            "a type without what it says",
            "type = \"CORS\", core = {}",
            15,
            UnknownKey,
            "did you mean `cors`?",
        ),
        row(
            "nothing said",
            ruled("filters = [{ type = \"CORS\" }]"),
            vec![("b.toml", 5, 23, MissingKey, "has no `cors`")],
        ),
        one(
            "what another type says",
            &format!("{set}, cors = {{}}"),
            78,
            UnknownKey,
            "the keys here are `type` and `request-header-modifier`",
        ),
        row(
            "a type twice",
            ruled(&format!("filters = [{{ {set} }}, {{ {set} }}]")),
            vec![("b.toml", 5, 114, ConflictingKeys, "this list has already")],
        ),
        one(
            "who else to ask",
            "type = \"ExternalAuth\", external-auth = { protocol = \"GRPC\" }",
            7,
            Unsupported,
            "`action = \\\"CUSTOM\\\"`",
        ),
        row(
            "a rewrite of calls",
            route(
                "grpc-route",
                "r",
                CART,
                &format!("{{ filters = [{{ type = \"URLRewrite\", url-rewrite = {{}} }}], {TO} }}"),
            ),
            vec![(
                "b.toml",
                5,
                32,
                BadValue,
                "a rule of this grpc-route can have",
            )],
        ),
        one(
            "a plugin",
            "type = \"ExtensionRef\", extension-ref = { group = \"extensions.istio.io\", kind = \"WasmPlugin\", name = \"p\" }",
            39,
            NotInForce,
            "does not run yet: the rule answers 500",
        ),
        one(
            "another extension",
            "type = \"ExtensionRef\", extension-ref = { group = \"example.com\", kind = \"Foo\", name = \"p\" }",
            39,
            NotInForce,
            "is none here",
        ),
    ]
}

fn headers() -> Vec<Row> {
    use Code::*;
    let request = |name, fragment: &str, at: u32, code, text| {
        let before = "type = \"RequestHeaderModifier\", request-header-modifier = { ";
        let filter = format!("{before}{fragment} }}");
        one(name, &filter, at + 60, code, text)
    };
    let many: String = (0..17).map(|n| format!("\"x{n}\",")).collect();
    vec![
        request(
            "a table",
            "set = { x = \"1\" }",
            6,
            WrongType,
            "expected a list",
        ),
        request(
            "a name",
            "remove = [\"a b\"]",
            10,
            BadName,
            "is not the name of a header",
        ),
        request(
            "a hop",
            "remove = [\"Connection\"]",
            10,
            BadName,
            "is about one connection",
        ),
        request(
            "a length",
            "set = [{ name = \"content-length\", value = \"3\" }]",
            16,
            BadName,
            "is how long the body is",
        ),
        request(
            "a pseudo-header",
            "set = [{ name = \":scheme\", value = \"https\" }]",
            16,
            BadName,
            "is not the name of a header",
        ),
        request(
            "a second host",
            "add = [{ name = \":authority\", value = \"a\" }]",
            6,
            BadValue,
            "of which a request has exactly one",
        ),
        request(
            "no host",
            "remove = [\"Host\"]",
            9,
            BadValue,
            "write it under `set`",
        ),
        request(
            "a value with a line break",
            "add = [{ name = \"x\", value = \"a\\r\\nb: c\" }]",
            29,
            BadValue,
            "has a control character",
        ),
        request(
            "a name twice",
            "remove = [\"x\", \"X\"]",
            15,
            NoEffect,
            "has `x` twice",
        ),
        request(
            "too many",
            &format!("remove = [{many}]"),
            9,
            TooLarge,
            "has 17 headers",
        ),
        one(
            "no change",
            "type = \"ResponseHeaderModifier\", response-header-modifier = {}",
            60,
            NoEffect,
            "changes nothing",
        ),
    ]
}

fn redirects() -> Vec<Row> {
    use Code::*;
    let redirect = |fragment: &str| {
        format!(
            "{{ filters = [{{ type = \"RequestRedirect\", request-redirect = {{ {fragment} }} }}] }}"
        )
    };
    let of = |name, fragment: &str, at: u32, code, text| {
        let routes = route("http-route", "r", CART, &redirect(fragment));
        row(name, routes, vec![("b.toml", 5, 72 + at, code, text)])
    };
    let rewrite = |path: &str| {
        format!("filters = [{{ type = \"URLRewrite\", url-rewrite = {{ path = {{ {path} }} }} }}]")
    };
    let prefix = rewrite("type = \"ReplacePrefixMatch\", replace-prefix-match = \"/x\"");
    let changed = |name, path: &str, at: u32, text| {
        row(
            name,
            ruled(&rewrite(path)),
            vec![("b.toml", 5, 71 + at, BadValue, text)],
        )
    };
    vec![
        of(
            "a scheme",
            "scheme = \"ftp\"",
            9,
            BadValue,
            "write one of `http` and `https`",
        ),
        of(
            "a host with its port",
            "hostname = \"a:80\"",
            11,
            BadName,
            "without port and path",
        ),
        of(
            "a status",
            "status-code = 304",
            14,
            BadValue,
            "is not the status of a redirect: 304",
        ),
        of("a path", "path = \"/x\"", 7, WrongType, "expected a table"),
        row(
            "a redirect that goes on",
            ruled("filters = [{ type = \"RequestRedirect\", request-redirect = { port = 8080 } }]"),
            vec![(
                "b.toml",
                5,
                105,
                ConflictingKeys,
                "redirects, and has backends",
            )],
        ),
        row(
            "a redirect that is rewritten",
            route(
                "http-route",
                "r",
                CART,
                "{ filters = [{ type = \"URLRewrite\", url-rewrite = { hostname = \"a\" } }, { type = \"RequestRedirect\", request-redirect = {} }] }",
            ),
            vec![(
                "b.toml",
                5,
                23,
                ConflictingKeys,
                "redirects, and has a rewrite",
            )],
        ),
        changed(
            "no way of changing",
            "type = \"ReplacePath\"",
            7,
            "`ReplaceFullPath`",
        ),
        changed(
            "no path",
            "type = \"ReplaceFullPath\", replace-full-path = \"x\"",
            46,
            "does not begin with `/`",
        ),
        changed(
            "a path with a query",
            "type = \"ReplaceFullPath\", replace-full-path = \"/x?y\"",
            46,
            "has a query",
        ),
        row(
            "a prefix without one",
            ruled(&format!(
                "matches = [{{ path = {{ type = \"Exact\", value = \"/a\" }} }}], {prefix}"
            )),
            vec![(
                "b.toml",
                5,
                126,
                ConflictingKeys,
                "does not match exactly one prefix",
            )],
        ),
        row(
            "a prefix of two",
            ruled(&format!(
                "matches = [{{ path = {{ value = \"/a\" }} }}, {{ method = \"PUT\" }}], {prefix}"
            )),
            vec![(
                "b.toml",
                5,
                130,
                ConflictingKeys,
                "does not match exactly one prefix",
            )],
        ),
        row("the prefix of everything", ruled(&prefix), vec![]),
        row(
            "a prefix on one backend's way",
            route(
                "http-route",
                "r",
                CART,
                &format!(
                    "{{ matches = [{{ path = {{ type = \"Exact\", value = \"/a\" }} }}], backend-refs = [{{ name = \"v1\", port = 80, {prefix} }}] }}"
                ),
            ),
            vec![(
                "b.toml",
                5,
                168,
                ConflictingKeys,
                "does not match exactly one prefix",
            )],
        ),
        one(
            "no rewrite",
            "type = \"URLRewrite\", url-rewrite = {}",
            35,
            NoEffect,
            "rewrites nothing",
        ),
    ]
}

fn mirrors() -> Vec<Row> {
    use Code::*;
    let of = |name, fragment: &str, at: u32, code, text| {
        let before = "type = \"RequestMirror\", request-mirror = { backend-ref = { name = \"v2\", port = 80 }, ";
        one(name, &format!("{before}{fragment} }}"), at + 85, code, text)
    };
    vec![
        one(
            "a mirror of nobody",
            "type = \"RequestMirror\", request-mirror = {}",
            41,
            MissingKey,
            "has no `backend-ref`",
        ),
        of(
            "more than all",
            "percent = 101",
            10,
            BadValue,
            "from 0 to 100",
        ),
        of(
            "more than all, as a fraction",
            "fraction = { numerator = 101 }",
            11,
            BadValue,
            "is more than all: 101 of 100",
        ),
        of(
            "of none",
            "fraction = { numerator = 0, denominator = 0 }",
            42,
            BadValue,
            "from 1",
        ),
        of(
            "both",
            "percent = 1, fraction = { numerator = 1 }",
            24,
            ConflictingKeys,
            "stands beside `percent`",
        ),
        row(
            "a mirror that is not there",
            ruled(
                "filters = [{ type = \"RequestMirror\", request-mirror = { backend-ref = { name = \"v3\", port = 80 } } }]",
            ),
            vec![("b.toml", 5, 82, BackendNotFound, "nothing is copied there")],
        ),
    ]
}

fn origins() -> Vec<Row> {
    use Code::*;
    let of = |name, fragment: &str, at: u32, code, text| {
        one(
            name,
            &format!("type = \"CORS\", cors = {{ {fragment} }}"),
            at + 24,
            code,
            text,
        )
    };
    vec![
        of(
            "a host",
            "allow-origins = [\"shop.example\"]",
            17,
            BadValue,
            "is not an origin",
        ),
        of(
            "everybody and others",
            "allow-origins = [\"*\", \"https://a\"]",
            16,
            BadValue,
            "has `*` beside others",
        ),
        of(
            "every method and others",
            "allow-origins = [\"*\"], allow-methods = [\"*\", \"GET\"]",
            39,
            BadValue,
            "has `*` beside others",
        ),
        of(
            "a header that is none",
            "allow-origins = [\"*\"], allow-headers = [\"a b\"]",
            40,
            BadValue,
            "is not one",
        ),
        of(
            "no time at all",
            "allow-origins = [\"*\"], max-age = 0",
            33,
            BadValue,
            "from 1",
        ),
        of(
            "a number in quotes",
            "allow-origins = [\"*\"], allow-credentials = \"yes\"",
            43,
            WrongType,
            "expected `true` or `false`",
        ),
        one(
            "nobody",
            "type = \"CORS\", cors = {}",
            22,
            NoEffect,
            "allows no origin",
        ),
    ]
}
