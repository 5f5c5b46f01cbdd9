//! Rows about the keys of a virtual service.

use super::{CART, Code, Found, Row, TO, row, service};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = resources();
    rows.extend(outcomes());
    rows.extend(matches());
    rows.extend(destinations());
    rows.extend(changes());
    rows.extend(failures());
    rows
}

/// Findings in the first rule, which begins so; columns count from there.
fn rule(name: &'static str, rule: &str, want: Vec<(u32, Code, &'static str)>) -> Row {
    let found = |(at, code, text)| -> Found { ("b.toml", 5, 11 + at, code, text) };
    let text = service("r", CART, &format!("{{ {rule} }}"));
    row(name, text, want.into_iter().map(found).collect())
}

/// The same of a rule that goes where most do.
fn to(name: &'static str, fragment: &str, want: Vec<(u32, Code, &'static str)>) -> Row {
    rule(name, &format!("{fragment}, {TO}"), want)
}

fn resources() -> Vec<Row> {
    use Code::*;
    let head = "[[virtual-service]]\nname = \"r\"\nnamespace = \"shop\"\n";
    let with = |name, more: &str, want| {
        row(
            name,
            service("r", CART, &format!("{{ {TO} }}")) + more,
            want,
        )
    };
    vec![
        row(
            "nothing said",
            head.to_owned(),
            vec![
                ("b.toml", 1, 1, MissingKey, "has no `http`"),
                ("b.toml", 1, 1, NoEffect, "nobody delegates to it"),
            ],
        ),
        row(
            "camel case",
            service("r", CART, &format!("{{ {TO} }}")) + "exportTo = [\"*\"]\n",
            vec![("b.toml", 6, 1, UnknownKey, "did you mean `export-to`?")],
        ),
        row(
            "no rules",
            service("r", CART, ""),
            vec![("b.toml", 5, 8, NoEffect, "the virtual service says nothing")],
        ),
        row(
            "no hosts",
            service("r", "", &format!("{{ {TO} }}")),
            vec![
                ("b.toml", 1, 1, NoEffect, "nobody delegates to it"),
                ("b.toml", 4, 9, BadValue, "name the service whose requests"),
            ],
        ),
        row(
            "hosts that are none",
            service(
                "r",
                "\"cart\", \"Cart\", \"*cart\", \"10.0.0.1\", \"cart\"",
                &format!("{{ {TO} }}"),
            ),
            vec![
                ("b.toml", 4, 18, BadName, "has an upper-case letter"),
                (
                    "b.toml",
                    4,
                    26,
                    BadName,
                    "a character that names do not have",
                ),
                ("b.toml", 4, 35, BadName, "is an address"),
                ("b.toml", 4, 47, NoEffect, "has `cart` twice"),
            ],
        ),
        with(
            "gateways",
            "gateways = [\"mesh\", \"istio-system/ingress\"]\n",
            vec![(
                "b.toml",
                6,
                21,
                Unsupported,
                "there are no ingress gateways",
            )],
        ),
        with(
            "shown to some",
            "export-to = [\".\", \"other\"]\n",
            vec![(
                "b.toml",
                6,
                19,
                Unsupported,
                "services of its own namespace",
            )],
        ),
        with(
            "connections",
            "tcp = []\ntls = []\n",
            vec![
                ("b.toml", 6, 7, Unsupported, "write a `[[tcp-route]]`"),
                ("b.toml", 7, 7, Unsupported, "write a `[[tls-route]]`"),
            ],
        ),
        row(
            "another kind's key",
            service("r", CART, &format!("{{ {TO} }}")) + "parent-refs = []\n",
            vec![("b.toml", 6, 1, UnknownKey, "the keys here are")],
        ),
    ]
}

fn outcomes() -> Vec<Row> {
    use Code::*;
    vec![
        row(
            "no outcome",
            service("r", CART, "{ name = \"a\" }"),
            vec![("b.toml", 5, 9, MissingKey, "add `route`")],
        ),
        rule(
            "a misspelt one",
            "redirct = {}",
            vec![(0, UnknownKey, "did you mean `redirect`?")],
        ),
        to(
            "two",
            "redirect = {}",
            vec![(11, ConflictingKeys, "has `redirect` beside `route`")],
        ),
        rule(
            "a rewrite of what is redirected",
            "rewrite = { uri = \"/a\" }, redirect = {}",
            vec![(10, ConflictingKeys, "has `rewrite` beside `redirect`")],
        ),
        rule(
            "answered and redirected",
            "redirect = {}, direct-response = { status = 200 }",
            vec![(
                33,
                ConflictingKeys,
                "has `direct-response` beside `redirect`",
            )],
        ),
        rule(
            "no status",
            "direct-response = {}",
            vec![(18, MissingKey, "as in `status = 503`")],
        ),
        rule(
            "no such status",
            "direct-response = { status = 100 }",
            vec![(29, BadValue, "from 200 to 599")],
        ),
        rule(
            "bytes",
            "direct-response = { status = 200, body = { bytes = \"\" } }",
            vec![(51, Unsupported, "write it as `string`")],
        ),
    ]
}

fn matches() -> Vec<Row> {
    use Code::*;
    let is = |name, fragment: &str, want: (u32, Code, &'static str)| {
        let (at, code, text) = want;
        to(
            name,
            &format!("match = [{{ {fragment} }}]"),
            vec![(at + 11, code, text)],
        )
    };
    vec![
        is(
            "two ways",
            "uri = { exact = \"/a\", prefix = \"/a\" }",
            (6, ConflictingKeys, "keep one of"),
        ),
        is("no way", "uri = {}", (6, BadValue, "leave the key out")),
        is(
            "a text alone",
            "uri = \"/a\"",
            (6, WrongType, "expected a table"),
        ),
        is(
            "no path",
            "uri = { prefix = \"a\" }",
            (17, BadValue, "does not begin with `/`"),
        ),
        is(
            "a query",
            "uri = { exact = \"/a?b\" }",
            (16, BadValue, "has a query"),
        ),
        is(
            "no pattern",
            "uri = { regex = \"(\" }",
            (16, BadValue, "no regular expression"),
        ),
        is(
            "a method's case",
            "method = { exact = \"get\" }",
            (19, BadValue, "write `\\\"GET\\\"`"),
        ),
        is(
            "any method",
            "method = { prefix = \"\" }",
            (9, BadValue, "leave the key out"),
        ),
        is(
            "a claim",
            "headers = { \"@request.auth.claims.sub\" = { exact = \"a\" } }",
            (12, Unsupported, "claims of tokens"),
        ),
        is(
            "a header that is none",
            "headers = { uri = { exact = \"/\" } }",
            (12, BadName, "match the `uri` instead"),
        ),
        is(
            "no header",
            "headers = { \"a b\" = {} }",
            (12, BadName, "letters, digits and hyphens"),
        ),
        is(
            "a header twice",
            "headers = { X = {}, x = {} }",
            (24, NoEffect, "has `x` twice"),
        ),
        is(
            "labels",
            "source-labels = { app = \"web\" }",
            (16, NoEffect, "tell clients apart by `source-namespace`"),
        ),
        is(
            "of a gateway",
            "gateways = [\"g\"]",
            (12, Unsupported, "there are no ingress gateways"),
        ),
        is(
            "of statistics",
            "stat-prefix = \"a\"",
            (14, Unsupported, "counted by service"),
        ),
        is("no port", "port = 0", (7, BadValue, "from 1 to 65535")),
    ]
}

fn destinations() -> Vec<Row> {
    use Code::*;
    vec![
        rule(
            "nowhere",
            "route = []",
            vec![(8, BadValue, "name where requests go")],
        ),
        rule(
            "no host",
            "route = [{ destination = {} }]",
            vec![(25, MissingKey, "as in `host = \\\"cart-v2\\\"`")],
        ),
        rule(
            "a port alone",
            "route = [{ destination = { host = \"v1\", port = 80 } }]",
            vec![(47, WrongType, "write `{ number = 80 }`")],
        ),
        rule(
            "a wildcard",
            "route = [{ destination = { host = \"*.v1\" } }]",
            vec![(34, BadName, "a character that names do not have")],
        ),
        rule(
            "no weights",
            "route = [{ destination = { host = \"v1\" } }, { destination = { host = \"v2\" } }]",
            vec![(8, BadValue, "gives nobody a share")],
        ),
        rule(
            "one without a weight",
            "route = [{ destination = { host = \"v1\" }, weight = 1 }, { destination = { host = \"v2\" } }]",
            vec![(56, NoEffect, "has no `weight` beside others")],
        ),
        to(
            "mirrors in two ways",
            "mirror = { host = \"v1\" }, mirrors = []",
            vec![(36, ConflictingKeys, "write all of them under `mirrors`")],
        ),
        to(
            "a share of no mirror",
            "mirror-percentage = { value = 1 }",
            vec![(20, NoEffect, "add `mirror`")],
        ),
        to(
            "whole percent",
            "mirror-percent = 5",
            vec![(17, Unsupported, "mirror-percentage = { value = 50 }")],
        ),
        to(
            "a share beyond all",
            "mirror = { host = \"v1\" }, mirror-percentage = { value = 100.1 }",
            vec![(56, BadValue, "from 0 to 100")],
        ),
        to(
            "too small a share",
            "mirror = { host = \"v1\" }, mirror-percentage = { value = 0.00001 }",
            vec![(56, BadValue, "smallest share")],
        ),
    ]
}

fn changes() -> Vec<Row> {
    use Code::*;
    let redirect = |name, fragment: &str, want: (u32, Code, &'static str)| {
        let (at, code, text) = want;
        let at = if at == 0 { 11 } else { at + 13 };
        rule(
            name,
            &format!("redirect = {{ {fragment} }}"),
            vec![(at, code, text)],
        )
    };
    vec![
        redirect(
            "two paths",
            "uri = \"/a\", uri-prefix = \"/b\"",
            (25, ConflictingKeys, "stands beside `uri`"),
        ),
        redirect(
            "two ports",
            "authority = \"a.b:80\", port = 81",
            (0, ConflictingKeys, "more than once which port"),
        ),
        redirect(
            "a port that is none",
            "authority = \"a.b:x\"",
            (12, BadValue, "a port that is none"),
        ),
        redirect(
            "no status of one",
            "redirect-code = 300",
            (16, BadValue, "not the status of a redirect"),
        ),
        redirect(
            "the request's port",
            "scheme = \"https\", derive-port = \"FROM_REQUEST_PORT\"",
            (32, Unsupported, "write the `port`"),
        ),
        to(
            "nothing rewritten",
            "rewrite = {}",
            vec![(10, NoEffect, "rewrites nothing")],
        ),
        to(
            "rewritten in two ways",
            "rewrite = { uri = \"/a\", uri-regex-rewrite = { match = \"a\", rewrite = \"b\" } }",
            vec![(44, ConflictingKeys, "stands beside `uri`")],
        ),
        to(
            "headers of the connection",
            "headers = { request = { set = { Connection = \"a\" } } }",
            vec![(32, BadName, "is about one connection")],
        ),
        to(
            "a second host",
            "headers = { request = { add = { host = \"a\" } } }",
            vec![(32, BadName, "write it under `set`")],
        ),
        to(
            "no host",
            "headers = { request = { remove = [\":authority\"] } }",
            vec![(34, BadName, "is there exactly once")],
        ),
        to(
            "no changes",
            "headers = { response = {} }",
            vec![(23, NoEffect, "changes nothing")],
        ),
        to(
            "no origins",
            "cors-policy = {}",
            vec![(14, NoEffect, "allows no origin")],
        ),
        to(
            "origins the old way",
            "cors-policy = { allow-origin = [\"*\"] }",
            vec![(31, Unsupported, "write `allow-origins")],
        ),
        to(
            "no origin",
            "cors-policy = { allow-origins = [{ exact = \"https://*.b\" }] }",
            vec![(43, BadValue, "`regex` takes several")],
        ),
    ]
}

fn failures() -> Vec<Row> {
    use Code::*;
    vec![
        to(
            "a fault of nobody",
            "fault = { abort = { http-status = 418 } }",
            vec![(18, NoEffect, "has no `percentage`, which is none")],
        ),
        to(
            "percent",
            "fault = { delay = { fixed-delay = \"1s\", percent = 5 } }",
            vec![(50, Unsupported, "write `percentage = { value = 50 }`")],
        ),
        to(
            "no answer",
            "fault = { abort = { percentage = { value = 1 } } }",
            vec![(18, MissingKey, "does not say what is answered")],
        ),
        to(
            "two answers",
            "fault = { abort = { http-status = 418, grpc-status = \"OK\", percentage = { value = 1 } } }",
            vec![(53, ConflictingKeys, "stands beside `http-status`")],
        ),
        to(
            "no status of gRPC",
            "fault = { abort = { grpc-status = \"UNAVAILBLE\", percentage = { value = 1 } } }",
            vec![(34, BadValue, "write `\\\"UNAVAILABLE\\\"`")],
        ),
        to(
            "no fault",
            "fault = {}",
            vec![(8, NoEffect, "does nothing wrong")],
        ),
        to(
            "no attempts",
            "retries = {}",
            vec![(10, MissingKey, "as in `attempts = 3`")],
        ),
        to(
            "no condition",
            "retries = { attempts = 1, retry-on = \"5xx,connect-failur\" }",
            vec![(37, BadValue, "write `connect-failure`")],
        ),
        to(
            "no time at all",
            "retries = { attempts = 1, per-try-timeout = \"0s\" }",
            vec![(44, BadValue, "is not between 1ms")],
        ),
        to(
            "no duration",
            "timeout = 5",
            vec![(10, WrongType, "give its unit")],
        ),
    ]
}
