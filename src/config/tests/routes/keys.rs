//! Rows about the keys of routes, their parents and backends, and how many there may be of each.

use super::{CART, Code, Found, Row, TO, route, row, ruled};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = resources();
    rows.extend(parents());
    rows.extend(limits());
    rows.extend(backends());
    rows
}

/// One finding in line 5, whose rule begins at column 12; the column counts from there.
pub(super) fn in_rule(
    name: &'static str,
    fragment: &str,
    at: u32,
    code: Code,
    text: &'static str,
) -> Row {
    row(name, ruled(fragment), vec![found(at, code, text)])
}

pub(super) fn found(at: u32, code: Code, text: &'static str) -> Found {
    ("b.toml", 5, 12 + at, code, text)
}

fn resources() -> Vec<Row> {
    use Code::*;
    let head = "[[http-route]]\nname = \"r\"\nnamespace = \"shop\"\n";
    vec![
        row(
            "nothing said",
            head.to_owned(),
            vec![
                ("b.toml", 1, 1, MissingKey, "has no `parent-refs`"),
                ("b.toml", 1, 1, MissingKey, "has no `rules`"),
            ],
        ),
        row(
            "camel case",
            format!("{head}parentRefs = []\nrules = []\n"),
            vec![
                ("b.toml", 4, 1, UnknownKey, "did you mean `parent-refs`?"),
                ("b.toml", 5, 9, NoEffect, "the route says nothing"),
            ],
        ),
        row(
            "no name",
            format!(
                "[[tcp-route]]\nnamespace = \"shop\"\nparent-refs = [{{ name = \"cart\", port = 90 }}]\nrules = [{{ {TO} }}]\n"
            ),
            vec![(
                "b.toml",
                1,
                1,
                MissingKey,
                "as in `name = \\\"tcp-route-1\\\"`",
            )],
        ),
        row(
            "no matches on connections",
            route(
                "tcp-route",
                "r",
                "{ name = \"cart\", port = 90 }",
                &format!("{{ matches = [], {TO} }}"),
            ),
            vec![(
                "b.toml",
                5,
                12,
                UnknownKey,
                "the keys here are `name` and `backend-refs`",
            )],
        ),
        row(
            "further rules on connections",
            route(
                "tcp-route",
                "r",
                "{ name = \"cart\", port = 90 }",
                &format!("{{ {TO} }}, {{ {TO} }}"),
            ),
            vec![(
                "b.toml",
                5,
                59,
                NoEffect,
                "the first takes every connection",
            )],
        ),
        row(
            "host names where there are none",
            route("http-route", "r", CART, &format!("{{ {TO} }}"))
                + "hostnames = [\"cart.example\"]\n",
            vec![("b.toml", 6, 13, NoEffect, "routed whatever `Host` says")],
        ),
        row(
            "host names that are none",
            route(
                "tls-route",
                "r",
                "{ name = \"cart\", port = 443 }",
                &format!("{{ {TO} }}"),
            ) + "hostnames = [\"*.a.example\", \"A.example\", \"*\", \"a.*.example\", \"10.0.0.1\"]\n",
            vec![
                ("b.toml", 6, 29, BadName, "write `\\\"a.example\\\"`"),
                (
                    "b.toml",
                    6,
                    42,
                    BadName,
                    "a character that names do not have",
                ),
                (
                    "b.toml",
                    6,
                    47,
                    BadName,
                    "a character that names do not have",
                ),
                ("b.toml", 6, 62, BadName, "is an address"),
            ],
        ),
        row(
            "two rules of a name",
            route(
                "http-route",
                "r",
                CART,
                &format!(
                    "{{ name = \"a\", {TO}, matches = [{{ method = \"GET\" }}] }}, {{ name = \"a\", {TO} }}"
                ),
            ),
            vec![(
                "b.toml",
                5,
                103,
                DuplicateName,
                "two rules of a route are called `a`",
            )],
        ),
        row(
            "a route twice, and another kind of its name",
            route("http-route", "r", CART, &format!("{{ {TO} }}"))
                + &route(
                    "tcp-route",
                    "r",
                    "{ name = \"cart\", port = 90 }",
                    &format!("{{ {TO} }}"),
                )
                + &route(
                    "tcp-route",
                    "r",
                    "{ name = \"cart\", port = 443 }",
                    &format!("{{ {TO} }}"),
                ),
            vec![(
                "b.toml",
                12,
                8,
                DuplicateName,
                "tcp-route `shop/r` is declared twice",
            )],
        ),
        row(
            "an unknown namespace",
            route(
                "http-route",
                "r",
                "{ name = \"cart\", namespace = \"shop\" }",
                &format!("{{ {TO} }}"),
            )
            .replacen("\"shop\"", "\"shpo\"", 1),
            vec![
                ("b.toml", 3, 13, UnknownNamespace, "http-route `r`"),
                (
                    "b.toml",
                    4,
                    16,
                    NoEffect,
                    "is not accepted for service `shop/cart`",
                ),
                ("b.toml", 5, 28, BackendNotFound, "service `shpo/v1`"),
            ],
        ),
    ]
}

fn parents() -> Vec<Row> {
    use Code::*;
    let parent = |parent: &str| route("http-route", "r", parent, &format!("{{ {TO} }}"));
    let at = |column, code, text| vec![("b.toml", 4, column, code, text)];
    vec![
        row(
            "no parents",
            parent(""),
            at(15, BadValue, "attached to nothing"),
        ),
        row(
            "an ingress",
            parent("{ kind = \"Gateway\", name = \"wp\" }"),
            at(25, Unsupported, "name the services behind the waypoint"),
        ),
        row(
            "an unknown kind",
            parent("{ kind = \"service\", name = \"cart\" }"),
            at(25, BadValue, "write `\\\"Service\\\"`"),
        ),
        row(
            "another group",
            parent("{ group = \"apps\", name = \"cart\" }"),
            at(26, BadValue, "is not the group of Service"),
        ),
        row(
            "no name",
            parent("{ }"),
            at(16, MissingKey, "has no `name`"),
        ),
        row(
            "port zero",
            parent("{ name = \"cart\", port = 0 }"),
            at(40, BadValue, "from 1 to 65535"),
        ),
        row(
            "a section",
            parent("{ name = \"cart\", section-name = \"http\" }"),
            at(48, Unsupported, "with `port`"),
        ),
        row(
            "a parent twice",
            parent(
                "{ name = \"cart\" }, { name = \"cart\", group = \"core\", namespace = \"shop\" }",
            ),
            at(35, NoEffect, "names a parent twice"),
        ),
        row(
            "too many",
            parent(&"{ name = \"cart\" },".repeat(33)),
            (0..32)
                .map(|n| ("b.toml", 4, 34 + n * 18, NoEffect, "twice"))
                .chain([("b.toml", 4, 15, TooLarge, "has 33 parents, at most 32")])
                .collect::<Vec<_>>()
                .sorted(),
        ),
    ]
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<Found> {
    fn sorted(mut self) -> Self {
        self.sort_by_key(|found| (found.1, found.2));
        self
    }
}

fn limits() -> Vec<Row> {
    use Code::*;
    let many = |n: usize, one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<String>();
    let path = |n: usize| format!("{{ path = {{ value = \"/{n}\" }} }},");
    let named = |n: usize| format!("{{ name = \"x{n}\", value = \"1\" }},");
    let rule = |n: usize| format!("{{ matches = [{}], {TO} }},", path(n));
    let backend = |_| "{ name = \"v1\", port = 80 },".to_owned();
    let of_rule = |from: usize| {
        let matches = many(50, &|n| path(from + n));
        format!("{{ matches = [{matches}], {TO} }},")
    };
    vec![
        row(
            "17 rules",
            route("http-route", "r", CART, &many(17, &rule)),
            vec![("b.toml", 5, 9, TooLarge, "has 17 rules, at most 16")],
        ),
        row(
            "16 rules",
            route("http-route", "r", CART, &many(16, &rule)),
            vec![],
        ),
        row(
            "150 matches",
            route("http-route", "r", CART, &many(3, &|n| of_rule(n * 50))),
            vec![(
                "b.toml",
                5,
                9,
                TooLarge,
                "has 150 matches in all, at most 128",
            )],
        ),
        in_rule(
            "65 matches",
            &format!("matches = [{}]", many(65, &path)),
            10,
            TooLarge,
            "has 65 matches, at most 64",
        ),
        in_rule(
            "17 headers",
            &format!("matches = [{{ headers = [{}] }}]", many(17, &named)),
            23,
            TooLarge,
            "has 17 headers, at most 16",
        ),
        in_rule(
            "17 parameters",
            &format!("matches = [{{ query-params = [{}] }}]", many(17, &named)),
            28,
            TooLarge,
            "has 17 query parameters, at most 16",
        ),
        row(
            "17 backends",
            route(
                "http-route",
                "r",
                CART,
                &format!("{{ backend-refs = [{}] }}", many(17, &backend)),
            ),
            vec![("b.toml", 5, 27, TooLarge, "has 17 backends, at most 16")],
        ),
    ]
}

fn backends() -> Vec<Row> {
    use Code::*;
    let to = |name, kind: &str, fragment: &str, at: u32, code, text| {
        let parent = match kind {
            "http-route" => CART,
            _ => "{ name = \"cart\", port = 90 }",
        };
        let rules = format!("{{ backend-refs = [{{ {fragment} }}] }}");
        row(
            name,
            route(kind, "r", parent, &rules),
            vec![("b.toml", 5, 28 + at, code, text)],
        )
    };
    let http = |name, fragment: &str, at: u32, code, text| {
        to(name, "http-route", fragment, at + 2, code, text)
    };
    vec![
        to(
            "no port",
            "http-route",
            "name = \"v1\"",
            0,
            MissingKey,
            "has no `port`",
        ),
        to(
            "no name",
            "http-route",
            "port = 80",
            0,
            MissingKey,
            "has no `name`",
        ),
        http(
            "too heavy",
            "name = \"v1\", port = 80, weight = 1000001",
            33,
            BadValue,
            "from 0 to 1000000",
        ),
        http(
            "a host with a namespace",
            "kind = \"Hostname\", name = \"v1.shop.mesh.internal\", port = 80, group = \"networking.istio.io\", namespace = \"shop\"",
            105,
            ConflictingKeys,
            "one of the whole mesh",
        ),
        http(
            "a redirect of one backend",
            "name = \"v1\", port = 80, filters = [{ type = \"RequestRedirect\", request-redirect = {} }]",
            44,
            BadValue,
            "a backend of this http-route can have `RequestHeaderModifier`, `ResponseHeaderModifier` and `URLRewrite`",
        ),
        to(
            "filters of connections",
            "tcp-route",
            "name = \"v1\", port = 80, filters = []",
            26,
            UnknownKey,
            "the keys here are",
        ),
        row(
            "nowhere to go",
            route("http-route", "r", CART, "{ }"),
            vec![(
                "b.toml",
                5,
                10,
                BackendNotFound,
                "what it matches is answered 500",
            )],
        ),
        row(
            "no share of anything",
            route(
                "tcp-route",
                "r",
                "{ name = \"cart\", port = 90 }",
                "{ backend-refs = [{ name = \"v1\", port = 80, weight = 0 }] }",
            ),
            vec![(
                "b.toml",
                5,
                10,
                BackendNotFound,
                "with a weight above 0: its connections are closed",
            )],
        ),
    ]
}
