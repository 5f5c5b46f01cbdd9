//! The vectors of `spec/waypoint-l7.md` §11 that are about which rule a request gets.

mod virtual_service;

use super::*;
use crate::model::route::testing::{
    Request, exact, is, like, outcome, pattern, port, prefix, route, rule, table,
};

/// A request's line, its fields, and where it goes.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// An `http-route` for the port, held against requests.
fn http(vector: &str, rules: Vec<Rule<Target>>, rows: &[Row<'_>]) {
    check(vector, Kind::Http, rules, rows);
}

fn check(vector: &str, kind: Kind, rules: Vec<Rule<Target>>, rows: &[Row<'_>]) {
    let table = table(vec![route(kind, "r", rules)], vec![]);
    for (line, fields, want) in rows {
        let request = Request::new(line, fields);
        let got = outcome(&table, &request.asked());
        assert_eq!(got, *want, "{vector}: {line} {fields:?}");
    }
}

#[test]
fn paths_decide() {
    http(
        "5",
        vec![
            rule(vec![prefix("/v1")], "v1"),
            rule(vec![prefix("/v2")], "v2"),
        ],
        &[
            ("/v1", &[], "v1"),
            ("/v2/x", &[], "v2"),
            ("/", &[], "404"),
            ("/v1x", &[], "404"),
            ("/v1/", &[], "v1"),
            ("/V1", &[], "404"),
        ],
    );
    http(
        "11",
        vec![
            rule(vec![exact("/match")], "v1"),
            rule(vec![exact("/match/exact")], "v2"),
            rule(vec![exact("/match/exact/one")], "v3"),
            rule(vec![prefix("/match/")], "v3"),
            rule(vec![prefix("/match/prefix/")], "v1"),
            rule(vec![prefix("/match/prefix/one")], "v2"),
        ],
        &[
            ("/match/exact/one", &[], "v3"),
            ("/match/exact", &[], "v2"),
            ("/match", &[], "v1"),
            ("/match/prefix/one/any", &[], "v2"),
            ("/match/prefix/any", &[], "v1"),
            ("/match/any", &[], "v3"),
            ("/match/", &[], "v3"),
            ("/matches", &[], "404"),
        ],
    );
    http(
        "16",
        vec![
            rule(vec![pattern("/a.*c")], "v1"),
            rule(vec![prefix("/a")], "v2"),
        ],
        &[
            ("/a/bc", &[], "v2"),
            ("/abc", &[], "v1"),
            ("/abcd", &[], "404"),
            ("x/abc", &[], "404"),
        ],
    );
    http(
        "a shorter exact path is before a longer prefix, and that before a longer pattern",
        vec![
            rule(vec![pattern("/a/[b]/[c]/[d]/.*")], "v3"),
            rule(vec![prefix("/a/b/c/d")], "v2"),
            rule(vec![exact("/a/b/c/d/e")], "v1"),
        ],
        &[("/a/b/c/d/e", &[], "v1"), ("/a/b/c/d/f", &[], "v2")],
    );
}

#[test]
fn headers_decide() {
    let version = |value| prefix("/").header("version", is(value));
    http(
        "10",
        vec![
            rule(vec![prefix("/"), version("one")], "v1"),
            rule(vec![prefix("/v2"), version("two")], "v2"),
        ],
        &[
            ("/", &[], "v1"),
            ("/v2/", &[], "v2"),
            ("/v2example", &[], "v1"),
            ("/foo/v2/example", &[], "v1"),
            ("/", &[("Version", "two")], "v2"),
        ],
    );
    let color = |value| prefix("/").header("color", is(value));
    http(
        "12",
        vec![
            rule(vec![version("two")], "v2"),
            rule(vec![version("two").header("color", is("orange"))], "v1"),
            rule(vec![color("blue"), color("green")], "v1"),
        ],
        &[
            ("/", &[("version", "two")], "v2"),
            ("/", &[("version", "two"), ("color", "orange")], "v1"),
            ("/", &[("color", "green")], "v1"),
            ("/", &[("version", "two"), ("color", "blue")], "v2"),
            ("/", &[("color", "purple")], "404"),
            ("/", &[("color", "Blue")], "404"),
        ],
    );
}

#[test]
fn fields_of_a_name_are_one_value_and_the_first_condition_of_a_name_counts() {
    http(
        "repeated fields",
        vec![rule(vec![prefix("/").header("color", is("a,b"))], "v1")],
        &[
            ("/", &[("color", "a"), ("color", "b")], "v1"),
            ("/", &[("color", "a,b")], "v1"),
            ("/", &[("color", "a")], "404"),
            ("/", &[("color", "b"), ("color", "a")], "404"),
        ],
    );
    http(
        "a name twice",
        vec![
            rule(
                vec![
                    prefix("/")
                        .header("color", is("a"))
                        .header("color", is("b")),
                ],
                "v1",
            ),
            rule(
                vec![prefix("/").query("x", is("1")).query("x", is("2"))],
                "v2",
            ),
        ],
        &[
            ("/", &[("color", "a")], "v1"),
            ("/", &[("color", "b")], "404"),
            ("/?x=1", &[], "v2"),
            ("/?x=2", &[], "404"),
        ],
    );
    http(
        "a name twice is one condition",
        vec![
            rule(
                vec![prefix("/").header("a", is("1")).header("a", is("1"))],
                "v1",
            ),
            rule(
                vec![prefix("/").header("a", is("1")).header("b", is("1"))],
                "v2",
            ),
        ],
        &[("/", &[("a", "1"), ("b", "1")], "v2")],
    );
    http(
        "whole values",
        vec![
            rule(vec![prefix("/").header("color", like("bl.e|gr.*n"))], "v1"),
            rule(
                vec![prefix("/").header("host", is("echo")).header("x", is("1"))],
                "v2",
            ),
        ],
        &[
            ("/", &[("color", "blue")], "v1"),
            ("/", &[("color", "bluer")], "404"),
            ("/", &[("x", "1")], "v2"),
        ],
    );
}

#[test]
fn parameters_decide() {
    let animal = |value| prefix("/").query("animal", is(value));
    http(
        "13",
        vec![
            rule(vec![animal("whale")], "v1"),
            rule(vec![animal("dolphin")], "v2"),
            rule(
                vec![
                    animal("dolphin").query("color", is("blue")),
                    prefix("/").query("ANIMAL", is("Whale")),
                ],
                "v3",
            ),
        ],
        &[
            ("/?animal=whale&x=1", &[], "v1"),
            ("/?animal=dolphin&color=blue", &[], "v3"),
            ("/?ANIMAL=Whale", &[], "v3"),
            ("/?animal=whaledolphin", &[], "404"),
            ("/?Animal=whale", &[], "404"),
            ("/?color=blue", &[], "404"),
            ("/?animal=dolphin", &[], "v2"),
        ],
    );
    http(
        "first, decoded once, whole",
        vec![
            rule(vec![animal("a whale")], "v1"),
            rule(vec![prefix("/").query("empty", is(""))], "v2"),
            rule(vec![prefix("/").query("n", like("[0-9]+"))], "v3"),
        ],
        &[
            ("/?animal=a%20whale", &[], "v1"),
            ("/?%61nimal=a%20whale", &[], "v1"),
            ("/?animal=a%2520whale", &[], "404"),
            ("/?animal=a+whale", &[], "404"),
            ("/?animal=x&animal=a%20whale", &[], "404"),
            ("/?animal=a%20whale&animal=x", &[], "v1"),
            ("/?empty", &[], "v2"),
            ("/?empty=", &[], "v2"),
            ("/?n=12", &[], "v3"),
            ("/?n=12x", &[], "404"),
            ("/?", &[], "404"),
        ],
    );
}

#[test]
fn criteria_have_an_order() {
    let four = || prefix("/").header("version", is("four"));
    http(
        "14",
        vec![
            rule(vec![prefix("/path5")], "v1"),
            rule(vec![prefix("/").query("animal", is("hydra"))], "v2"),
            rule(vec![four()], "v3"),
        ],
        &[
            ("/path5?animal=hydra", &[], "v1"),
            ("/?animal=hydra", &[("version", "four")], "v3"),
        ],
    );
    http(
        "15",
        vec![
            rule(vec![prefix("/").method("POST")], "v1"),
            rule(vec![prefix("/").method("GET")], "v2"),
            rule(vec![prefix("/path1").method("GET")], "v1"),
            rule(vec![prefix("/path5")], "v1"),
            rule(vec![prefix("/").method("PATCH")], "v2"),
            rule(vec![four()], "v3"),
        ],
        &[
            ("POST /", &[], "v1"),
            ("/path1", &[], "v1"),
            ("PATCH /path5", &[], "v1"),
            ("PATCH /", &[("version", "four")], "v2"),
            ("PUT /", &[], "404"),
        ],
    );
}

#[test]
fn the_older_route_is_first_among_equals() {
    // ORDER is the order of the port's list.
    let routes = || {
        vec![
            route(Kind::Http, "older", vec![rule(vec![prefix("/")], "v1")]),
            route(Kind::Http, "a-younger", vec![rule(vec![prefix("/")], "v2")]),
        ]
    };
    let request = Request::new("/", &[]);
    assert_eq!(
        outcome(&table(routes(), vec![]), &request.asked()),
        "v1",
        "17"
    );
    let younger_asks_for_more = vec![
        route(Kind::Http, "older", vec![rule(vec![prefix("/")], "v1")]),
        route(
            Kind::Http,
            "younger",
            vec![rule(vec![prefix("/").method("GET")], "v2")],
        ),
    ];
    assert_eq!(
        outcome(&table(younger_asks_for_more, vec![]), &request.asked()),
        "v2"
    );
}

#[test]
fn the_ports_own_routes_are_tried_first() {
    let a = |path| route(Kind::Http, "a", vec![rule(vec![prefix(path)], "v1")]);
    let b = || {
        route(
            Kind::Http,
            "b",
            vec![rule(vec![exact("/x").method("GET")], "v2")],
        )
    };
    let match_all = || route(Kind::Http, "b", vec![rule(vec![prefix("/")], "v2")]);
    for (name, own, general, line, want) in [
        ("8 port 80", vec![a("/")], vec![match_all()], "/", "v1"),
        ("8 port 9000", vec![], vec![match_all()], "/", "v2"),
        (
            "lists are not interleaved",
            vec![a("/")],
            vec![b()],
            "/x",
            "v1",
        ),
        (
            "the other list is next",
            vec![a("/a")],
            vec![b()],
            "/x",
            "v2",
        ),
        ("neither takes it", vec![a("/a")], vec![b()], "/y", "404"),
        ("6, 7 no rule at all", vec![], vec![], "/", "default"),
    ] {
        let request = Request::new(line, &[]);
        assert_eq!(
            outcome(&table(own, general), &request.asked()),
            want,
            "{name}"
        );
    }
}

#[test]
fn grpc_methods_are_paths() {
    check(
        "33",
        Kind::Grpc,
        vec![
            rule(vec![exact("/S/M")], "v1"),
            rule(vec![prefix("/S/")], "v2"),
        ],
        &[
            ("POST /S/M", &[], "v1"),
            ("POST /S/N", &[], "v2"),
            ("POST /T/M", &[], "404"),
            ("POST /S/M/", &[], "v2"),
        ],
    );
}

#[test]
fn a_choice_is_final_and_has_a_name() {
    let mut named = rule(vec![exact("/named")], "v1");
    named.name = Arc::from("mine");
    let empty = Rule {
        backends: Vec::new(),
        ..rule(vec![exact("/empty")], "v1")
    };
    let rules = vec![named, empty, rule(vec![prefix("/")], "v2")];
    let table = table(vec![route(Kind::Http, "r", rules)], vec![]);
    for (line, want, backends) in [
        ("/named", "mine", 1),
        ("/empty", "shop.r.1", 0),
        ("/", "shop.r.2", 1),
    ] {
        let request = Request::new(line, &[]);
        let asked = request.asked();
        let Selection::Rule(chosen) = table.select(&asked) else {
            panic!("{line} is taken by a rule");
        };
        assert_eq!(
            (chosen.name, chosen.rule.backends.len()),
            (want, backends),
            "19 {line}"
        );
        assert_eq!(chosen.route.key.name.as_ref(), "r");
        assert!(chosen.rule.matches.contains(chosen.matched), "{line}");
    }
}

#[test]
fn a_route_that_is_not_there_is_named() {
    let (mut resources, port) = port(vec![], vec![route(Kind::Http, "gone", vec![])]);
    assert!(Table::new(&resources, &port).is_ok());
    resources.routes.clear();
    let error = Table::new(&resources, &port).unwrap_err();
    assert_eq!(error.to_string(), "http-route shop/gone is not there");
}
