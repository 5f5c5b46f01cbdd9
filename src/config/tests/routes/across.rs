//! Rows about what becomes of routes in a mesh.

use super::{CART, Code, Row, TO, route, row};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = attached();
    rows.extend(families());
    rows.extend(twins());
    rows.extend(backends());
    rows
}

/// A rule for paths that begin so.
fn rule(prefix: &str) -> String {
    format!("{{ matches = [{{ path = {{ value = \"{prefix}\" }} }}], {TO} }}")
}

fn attached() -> Vec<Row> {
    use Code::*;
    let to = |name, kind, parent: &str, code, text| {
        let routes = route(kind, "r", parent, &format!("{{ {TO} }}"));
        row(name, routes, vec![("b.toml", 4, 16, code, text)])
    };
    let fine = |name, kind, parent: &str| {
        let routes = route(kind, "r", parent, &format!("{{ {TO} }}"));
        row(name, routes, vec![])
    };
    let elsewhere = |name, namespace: &str, parent: &str, want| {
        let rules = "{ backend-refs = [{ name = \"v1\", namespace = \"shop\", port = 80 }] }";
        let routes = route("http-route", "r", parent, rules);
        let routes = routes.replacen("\"shop\"", &format!("\"{namespace}\""), 1);
        row(name, routes, want)
    };
    vec![
        to(
            "a typo",
            "http-route",
            "{ name = \"crt\" }",
            NoMatchingParent,
            "did you mean `cart`?",
        ),
        to(
            "another namespace's",
            "http-route",
            "{ name = \"cart\", namespace = \"other\" }",
            NoMatchingParent,
            "unknown parent: service `other/cart`",
        ),
        to(
            "no such service-entry",
            "http-route",
            "{ kind = \"ServiceEntry\", group = \"networking.istio.io\", name = \"cart\" }",
            NoMatchingParent,
            "unknown parent: service-entry `shop/cart`",
        ),
        to(
            "no such port",
            "http-route",
            "{ name = \"cart\", port = 81 }",
            NoMatchingParent,
            "it has ports 80, 90, 443 and 9000",
        ),
        to(
            "no waypoint",
            "http-route",
            "{ name = \"bare\" }",
            NoEffect,
            "service `shop/bare`, which is behind no waypoint",
        ),
        to(
            "another protocol",
            "http-route",
            "{ name = \"cart\", port = 90 }",
            NoEffect,
            "port 90 of service `shop/cart`, which is not HTTP",
        ),
        to(
            "connections of HTTP",
            "tcp-route",
            "{ name = \"v1\" }",
            NoEffect,
            "port 80 of service `shop/v1`, which is HTTP",
        ),
        to(
            "server names of what has none",
            "tls-route",
            "{ name = \"cart\", port = 90 }",
            NoEffect,
            "port 90 of service `shop/cart`, which does not speak TLS",
        ),
        fine("calls", "grpc-route", CART),
        fine("connections", "tcp-route", CART),
        fine(
            "connections of TLS",
            "tls-route",
            "{ name = \"cart\", port = 443 }",
        ),
        fine(
            "whatever is spoken",
            "http-route",
            "{ name = \"cart\", port = 9000 }",
        ),
        elsewhere(
            "9 a consumer's",
            "other",
            "{ name = \"cart\", namespace = \"shop\" }",
            vec![(
                "b.toml",
                4,
                16,
                NoEffect,
                "neither the parent's namespace nor its waypoint's",
            )],
        ),
        elsewhere(
            "the waypoint's own",
            "infra",
            "{ name = \"v2\", namespace = \"shop\" }",
            vec![],
        ),
        elsewhere(
            "another waypoint's",
            "infra",
            "{ name = \"cart\", namespace = \"shop\" }",
            vec![(
                "b.toml",
                4,
                16,
                NoEffect,
                "is not accepted for service `shop/cart`",
            )],
        ),
    ]
}

fn families() -> Vec<Row> {
    use Code::*;
    let of = |kind: &str, parent: &str| route(kind, "r", parent, &format!("{{ {TO} }}"));
    vec![
        row(
            "calls and requests",
            of("http-route", CART) + &of("grpc-route", "{ name = \"cart\", port = 80 }"),
            vec![(
                "b.toml",
                4,
                16,
                Superseded,
                "http-route `shop/r` is not accepted for port 80 of service `shop/cart`: grpc-route `shop/r` is there",
            )],
        ),
        row(
            "TLS and other connections, which share a port",
            of("tcp-route", CART) + &of("tls-route", CART),
            vec![],
        ),
        row(
            "requests and connections",
            of("tcp-route", CART) + &of("http-route", CART),
            vec![(
                "b.toml",
                4,
                16,
                Superseded,
                "is not accepted for port 9000 of service `shop/cart`: http-route `shop/r`",
            )],
        ),
        row(
            "ports of their own",
            of("tcp-route", "{ name = \"cart\", port = 90 }")
                + &of("tls-route", "{ name = \"cart\", port = 443 }")
                + &of("http-route", "{ name = \"cart\", port = 80 }")
                + &of("grpc-route", "{ name = \"cart\", port = 9000 }"),
            vec![],
        ),
    ]
}

fn twins() -> Vec<Row> {
    use Code::*;
    let http = |name: &str, parent: &str, rules: &str| route("http-route", name, parent, rules);
    let same = "has the same match";
    vec![
        row(
            "17 two routes with one match",
            http("a", CART, &rule("/x")) + &http("b", CART, &rule("/x/")),
            vec![(
                "b.toml",
                10,
                23,
                Superseded,
                "http-route `shop/b` comes too late: http-route `shop/a` has the same match",
            )],
        ),
        row(
            "headers in another order",
            http(
                "a",
                CART,
                &format!(
                    "{{ matches = [{{ headers = [{{ name = \"a\", value = \"1\" }}, {{ name = \"b\", value = \"2\" }}] }}], {TO} }}"
                ),
            ) + &http(
                "b",
                CART,
                &format!(
                    "{{ matches = [{{ headers = [{{ name = \"B\", value = \"2\" }}, {{ name = \"A\", value = \"1\" }}] }}], {TO} }}"
                ),
            ),
            vec![("b.toml", 10, 23, Superseded, same)],
        ),
        row(
            "lists of their own",
            http("a", CART, &rule("/x"))
                + &http("b", "{ name = \"cart\", port = 80 }", &rule("/x")),
            vec![],
        ),
        row(
            "services of their own",
            http("a", CART, &rule("/x")) + &http("b", "{ name = \"v1\" }", &rule("/x")),
            vec![],
        ),
        row(
            "two parents, told once",
            http("a", "{ name = \"cart\" }, { name = \"v1\" }", &rule("/"))
                + &http(
                    "b",
                    "{ name = \"v1\" }, { name = \"cart\" }",
                    &format!("{{ {TO} }}"),
                ),
            vec![("b.toml", 10, 10, Superseded, same)],
        ),
        row(
            "in one route",
            http("a", CART, &format!("{}, {}", rule("/x"), rule("/x"))),
            vec![(
                "b.toml",
                5,
                113,
                Superseded,
                "a match of http-route `shop/a` is there twice",
            )],
        ),
        row(
            "two that take every connection",
            route(
                "tcp-route",
                "a",
                "{ name = \"cart\", port = 90 }",
                &format!("{{ {TO} }}"),
            ) + &route(
                "tcp-route",
                "b",
                "{ name = \"cart\", port = 90 }",
                &format!("{{ {TO} }}"),
            ),
            vec![(
                "b.toml",
                9,
                16,
                Superseded,
                "tcp-route `shop/a` takes every connection",
            )],
        ),
        row(
            "one server name",
            route(
                "tls-route",
                "a",
                "{ name = \"cart\", port = 443 }",
                &format!("{{ {TO} }}"),
            ) + "hostnames = [\"a.example\", \"b.example\"]\n"
                + &route(
                    "tls-route",
                    "b",
                    "{ name = \"cart\", port = 443 }",
                    &format!("{{ {TO} }}"),
                )
                + "hostnames = [\"c.example\", \"b.example\"]\n"
                + &route(
                    "tls-route",
                    "c",
                    "{ name = \"cart\", port = 443 }",
                    &format!("{{ {TO} }}"),
                ),
            vec![(
                "b.toml",
                10,
                16,
                Superseded,
                "tls-route `shop/a` takes these server names",
            )],
        ),
    ]
}

fn backends() -> Vec<Row> {
    use Code::*;
    let to = |name, kind, backend: &str, text| {
        let parent = match kind {
            "tcp-route" => "{ name = \"cart\", port = 90 }",
            _ => CART,
        };
        let rules = format!("{{ backend-refs = [{{ {backend} }}] }}");
        let routes = route(kind, "r", parent, &rules);
        row(name, routes, vec![("b.toml", 5, 28, BackendNotFound, text)])
    };
    let http = "http-route";
    vec![
        to(
            "a typo",
            http,
            "name = \"v\", port = 80",
            "service `shop/v` as a backend, which is not declared: its share is answered 500",
        ),
        to(
            "a typo with a guess",
            http,
            "name = \"crat\", port = 80",
            "did you mean `cart`?",
        ),
        to(
            "another namespace's",
            http,
            "name = \"v1\", namespace = \"other\", port = 80",
            "service `other/v1`",
        ),
        to(
            "no such port",
            http,
            "name = \"v1\", port = 8080",
            "it has port 80: those of the service",
        ),
        to(
            "no such host",
            http,
            "kind = \"Hostname\", name = \"crt.shop.mesh.internal\", port = 80",
            "did you mean `cart.shop.mesh.internal`?",
        ),
        to(
            "no such kind",
            http,
            "kind = \"Bucket\", group = \"example.com\", name = \"v1\", port = 80",
            "`example.com/Bucket`: its share is answered 500",
        ),
        to(
            "another group's",
            http,
            "kind = \"Service\", group = \"example.com\", name = \"v1\", port = 80",
            "`example.com/Service`",
        ),
        to(
            "of calls",
            "grpc-route",
            "name = \"v3\", port = 80",
            "its share is answered UNAVAILABLE",
        ),
        to(
            "of connections",
            "tcp-route",
            "name = \"v3\", port = 80",
            "its share is closed",
        ),
        row(
            "a host that is shown to another namespace alone",
            route(
                http,
                "r",
                CART,
                "{ backend-refs = [{ kind = \"Hostname\", name = \"own.example\", port = 80 }] }",
            ) + "[[service-entry]]\nname = \"own\"\nnamespace = \"other\"\nhosts = [\"own.example\"]\nports = [{ number = 80 }]\nresolution = \"DNS\"\nexport-to = [\".\"]\n",
            vec![(
                "b.toml",
                5,
                28,
                BackendNotFound,
                "which service-entry `other/own` shows to its own namespace alone",
            )],
        ),
        row(
            "hosts by shorter names",
            route(
                http,
                "r",
                CART,
                "{ backend-refs = [{ kind = \"Hostname\", name = \"v1\", port = 80 }, { kind = \"Hostname\", name = \"v2.shop\", port = 80 }] }",
            ),
            vec![],
        ),
        row(
            "whom there is",
            route(
                http,
                "r",
                CART,
                "{ backend-refs = [{ name = \"bare\", port = 80, group = \"core\" }, { kind = \"Hostname\", group = \"networking.istio.io\", name = \"v1.shop.mesh.internal\", port = 80 }, { kind = \"ServiceImport\", name = \"v2\", port = 80 }] }",
            ),
            vec![],
        ),
    ]
}
