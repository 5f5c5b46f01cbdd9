//! Rows about what becomes of virtual services in a mesh.

use super::{CART, Code, Row, TO, row, service};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = hosts();
    rows.extend(backends());
    rows.extend(delegates());
    rows.extend(shadowed());
    rows
}

fn rule(matches: &str) -> String {
    format!("{{ match = [{matches}], {TO} }}")
}

/// A rule for paths that begin so.
fn prefix(text: &str) -> String {
    rule(&format!("{{ uri = {{ prefix = \"{text}\" }} }}"))
}

fn hosts() -> Vec<Row> {
    use Code::*;
    let of = |name, hosts: &str, want| row(name, service("r", hosts, &format!("{{ {TO} }}")), want);
    let elsewhere = |name, namespace: &str, want| {
        let to = "{ route = [{ destination = { host = \"v1.shop.mesh.internal\" } }] }";
        let text = service("r", "\"cart.shop.mesh.internal\"", to);
        row(
            name,
            text.replacen("\"shop\"", &format!("\"{namespace}\""), 1),
            want,
        )
    };
    let route = "[[http-route]]\nname = \"h\"\nnamespace = \"shop\"\nparent-refs = [{ name = \"cart\", port = 80 }]\nrules = [{ backend-refs = [{ name = \"v1\", port = 80 }] }]\n";
    vec![
        of(
            "short, in full and all below",
            "\"cart\", \"v1.shop.mesh.internal\", \"*.shop.mesh.internal\"",
            vec![],
        ),
        of("everybody", "\"*\"", vec![]),
        of(
            "a typo",
            "\"crt\"",
            vec![("b.toml", 4, 10, NoMatchingParent, "did you mean `cart`?")],
        ),
        of(
            "a typo in full",
            "\"cart.shpo.mesh.internal\"",
            vec![(
                "b.toml",
                4,
                10,
                NoMatchingParent,
                "did you mean `cart.shop.mesh.internal`?",
            )],
        ),
        of(
            "nobody below",
            "\"*.example.com\"",
            vec![(
                "b.toml",
                4,
                10,
                NoMatchingParent,
                "no effect on host `*.example.com`",
            )],
        ),
        of(
            "no waypoint",
            "\"bare\"",
            vec![("b.toml", 4, 10, NoEffect, "is behind no waypoint")],
        ),
        elsewhere(
            "of the waypoint's namespace",
            "infra",
            vec![("b.toml", 4, 10, NoEffect, "it is a consumer's route")],
        ),
        elsewhere(
            "a consumer's",
            "other",
            vec![(
                "b.toml",
                4,
                10,
                NoEffect,
                "write it in the namespace of the service",
            )],
        ),
        row(
            "an unknown namespace",
            service("r", CART, &format!("{{ {TO} }}")).replacen("\"shop\"", "\"shpo\"", 1),
            vec![
                ("b.toml", 3, 13, UnknownNamespace, "virtual-service `r`"),
                ("b.toml", 4, 10, NoMatchingParent, "nothing of that name"),
                (
                    "b.toml",
                    5,
                    36,
                    BackendNotFound,
                    "has host `v1` as a destination",
                ),
            ],
        ),
        row(
            "twice",
            service("r", CART, &prefix("/a")) + &service("r", "\"v1\"", &prefix("/a")),
            vec![("b.toml", 7, 8, DuplicateName, "virtual-service `shop/r`")],
        ),
        row(
            "beside a route",
            service("r", CART, &format!("{{ {TO} }}")) + route,
            vec![(
                "b.toml",
                4,
                10,
                Superseded,
                "is tried only after http-route shop/h",
            )],
        ),
    ]
}

fn backends() -> Vec<Row> {
    use Code::*;
    let to = |name, destination: &str, want| {
        let rule = format!("{{ route = [{{ destination = {{ {destination} }} }}] }}");
        row(name, service("r", CART, &rule), want)
    };
    vec![
        to("short", "host = \"v2\", port = { number = 80 }", vec![]),
        to("a subset", "host = \"v1\", subset = \"one\"", vec![]),
        to("of any port", "host = \"cart\"", vec![]),
        to(
            "unknown",
            "host = \"v3\"",
            vec![("b.toml", 5, 36, BackendNotFound, "did you mean `v1`?")],
        ),
        to(
            "unknown in full",
            "host = \"v1.shpo.mesh.internal\"",
            vec![(
                "b.toml",
                5,
                36,
                BackendNotFound,
                "its share is answered 500",
            )],
        ),
        to(
            "no such port",
            "host = \"v1\", port = { number = 81 }",
            vec![("b.toml", 5, 36, BackendNotFound, "declares no port 81")],
        ),
        to(
            "no such subset",
            "host = \"v1\", subset = \"on\"",
            vec![("b.toml", 5, 36, BadValue, "did you mean `one`?")],
        ),
        to(
            "nobody's subset",
            "host = \"v2\", subset = \"one\"",
            vec![(
                "b.toml",
                5,
                36,
                BadValue,
                "shop/v2.shop.mesh.internal has no subset one",
            )],
        ),
        row(
            "a mirror",
            service(
                "r",
                CART,
                &format!("{{ mirror = {{ host = \"v9\" }}, {TO} }}"),
            ),
            vec![("b.toml", 5, 20, BackendNotFound, "nothing is copied there")],
        ),
    ]
}

/// A virtual service that delegates what begins with `/a` to `d`, five lines.
fn root(delegate: &str) -> String {
    let rule =
        format!("{{ match = [{{ uri = {{ prefix = \"/a\" }} }}], delegate = {{ {delegate} }} }}");
    service("r", CART, &rule)
}

/// A virtual service `d` without hosts, from line 6 on.
fn delegate(http: &str) -> String {
    format!("[[virtual-service]]\nname = \"d\"\nnamespace = \"shop\"\nhttp = [{http}]\n")
}

fn delegates() -> Vec<Row> {
    use Code::*;
    let both = |name, http: &str, want| row(name, root("name = \"d\"") + &delegate(http), want);
    let within = |matches: &str| rule(&format!("{{ {matches} }}"));
    vec![
        both("within", &prefix("/a/b"), vec![]),
        both("all of it", &format!("{{ {TO} }}"), vec![]),
        both(
            "nothing of it",
            &prefix("/b"),
            vec![(
                "b.toml",
                9,
                20,
                NoEffect,
                "takes nothing of what is delegated to it",
            )],
        ),
        both(
            "a pattern",
            &within("uri = { regex = \"/a.*\" }"),
            vec![(
                "b.toml",
                9,
                20,
                ConflictingKeys,
                "a pattern of `uri` cannot be joined",
            )],
        ),
        row(
            "nobody",
            root("name = \"d\""),
            vec![(
                "b.toml",
                5,
                61,
                BackendNotFound,
                "is not declared: what the rule takes is answered 500",
            )],
        ),
        row(
            "one with hosts",
            root("name = \"e\"") + &service("e", "\"v1\"", &format!("{{ {TO} }}")),
            vec![("b.toml", 5, 61, BackendNotFound, "take its `hosts` out")],
        ),
        row(
            "itself",
            root("name = \"r\"").replacen("hosts = [\"cart\"]\n", "\n", 1),
            vec![("b.toml", 5, 61, ConflictingKeys, "delegates itself")],
        ),
        row(
            "two levels",
            root("name = \"d\"")
                + &delegate("{ delegate = { name = \"e\" } }")
                + &delegate(&format!("{{ {TO} }}")).replacen("\"d\"", "\"e\"", 1),
            vec![(
                "b.toml",
                5,
                61,
                ConflictingKeys,
                "one level is all there is",
            )],
        ),
        row(
            "shown to others only",
            root("name = \"d\", namespace = \"other\"")
                + &delegate("{ direct-response = { status = 200 } }").replacen(
                    "\"shop\"",
                    "\"other\"",
                    1,
                )
                + "export-to = [\".\"]\n",
            vec![(
                "b.toml",
                5,
                61,
                ConflictingKeys,
                "shown to its own namespace alone",
            )],
        ),
        row(
            "to nobody",
            delegate(&format!("{{ {TO} }}")),
            vec![("b.toml", 1, 1, NoEffect, "nobody delegates to it")],
        ),
        both(
            "whose backend is not there",
            "{ route = [{ destination = { host = \"v9\" } }] }",
            vec![(
                "b.toml",
                9,
                36,
                BackendNotFound,
                "virtual-service `shop/d` has host `v9`",
            )],
        ),
    ]
}

fn shadowed() -> Vec<Row> {
    use Code::*;
    let rules = |name, all: &[String], want| row(name, service("r", CART, &all.join(", ")), want);
    let late = |column| ("b.toml", 5, column, Superseded, "one before takes it all");
    let exact = rule("{ uri = { exact = \"/a\" } }");
    let header = |value: &str| {
        rule(&format!(
            "{{ headers = {{ x = {{ exact = \"{value}\" }} }} }}"
        ))
    };
    vec![
        rules(
            "in order",
            &[prefix("/a/b"), prefix("/a"), format!("{{ {TO} }}")],
            vec![],
        ),
        rules(
            "wider first",
            &[prefix("/a"), prefix("/ab")],
            vec![late(108)],
        ),
        rules(
            "all first",
            &[format!("{{ {TO} }}"), header("1")],
            vec![late(69)],
        ),
        rules("the same", &[exact.clone(), exact], vec![late(107)]),
        rules("others", &[header("1"), header("2")], vec![]),
        rules(
            "in any case",
            &[
                prefix("/a"),
                rule("{ uri = { exact = \"/A\" }, ignore-uri-case = true }"),
            ],
            vec![],
        ),
        row(
            "in another one",
            service("r", CART, &prefix("/a")) + &service("s", CART, &prefix("/a")),
            vec![(
                "b.toml",
                10,
                20,
                Superseded,
                "virtual-service `shop/r` is tried first",
            )],
        ),
        row(
            "for another host",
            service("r", CART, &prefix("/a")) + &service("s", "\"v1\"", &prefix("/a")),
            vec![],
        ),
        row(
            "what is delegated may go on",
            root("name = \"d\"").replacen("}]\n", &format!("}}, {}]\n", prefix("/a/b")), 1)
                + &delegate(&prefix("/a/b/c")),
            vec![],
        ),
    ]
}
