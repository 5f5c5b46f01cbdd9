//! Rules in the order they are written, and conditions that `virtual-service` alone has (§3.1).

use super::*;
use crate::model::route::TextMatch;
use crate::model::route::testing::text_prefix;

fn written(vector: &str, rules: Vec<Rule<Target>>, rows: &[Row<'_>]) {
    check(vector, Kind::VirtualService, rules, rows);
}

#[test]
fn the_first_that_is_written_wins() {
    let abc = || rule(vec![text_prefix("/abc")], "v1");
    written(
        "39",
        vec![abc(), rule(vec![Match::default()], "v2")],
        &[("/abcd", &[], "v1"), ("/x", &[], "v2")],
    );
    written("39", vec![abc()], &[("/x", &[], "404")]);
    written(
        "nothing is sorted",
        vec![
            rule(vec![text_prefix("/")], "v1"),
            rule(vec![exact("/abc")], "v2"),
        ],
        &[("/abc", &[], "v1")],
    );
}

#[test]
fn several_are_one_list() {
    let service = |name, path, backend| {
        route(
            Kind::VirtualService,
            name,
            vec![rule(vec![text_prefix(path)], backend)],
        )
    };
    let all = table(
        vec![service("a", "/a", "v1"), service("b", "/", "v2")],
        vec![],
    );
    let gateway = || route(Kind::Http, "r", vec![rule(vec![prefix("/a/b")], "v3")]);
    let mixed = table(vec![service("a", "/", "v1"), gateway()], vec![]);
    for (name, table, line, want) in [
        ("the first", &all, "/ab", "v1"),
        ("the second", &all, "/b", "v2"),
        ("Gateway API is first", &mixed, "/a/b/c", "v3"),
        ("and the rest is theirs", &mixed, "/a", "v1"),
    ] {
        let request = Request::new(line, &[]);
        assert_eq!(outcome(table, &request.asked()), want, "{name}");
    }
}

#[test]
fn case_can_be_ignored_in_paths() {
    let ignoring = |of: Match| Match {
        ignore_case: true,
        ..of
    };
    written(
        "ignore-uri-case",
        vec![
            rule(vec![ignoring(exact("/Exact"))], "v1"),
            rule(vec![ignoring(text_prefix("/Pre"))], "v2"),
            rule(vec![ignoring(pattern("/Re.*"))], "v3"),
        ],
        &[
            ("/eXACT", &[], "v1"),
            ("/pREfix", &[], "v2"),
            ("/Regex", &[], "v3"),
            ("/regex", &[], "404"),
            ("/pr", &[], "404"),
        ],
    );
}

#[test]
fn fields_can_be_there_or_not() {
    let with = |matched: Match| vec![rule(vec![matched], "v1")];
    let without = |want| Match {
        without_headers: vec![(Arc::from("x"), want)],
        ..Match::default()
    };
    written(
        "present",
        with(Match::default().header("x", TextMatch::Present)),
        &[
            ("/", &[("x", "")], "v1"),
            ("/", &[("x", "1")], "v1"),
            ("/", &[], "404"),
        ],
    );
    written(
        "not this value",
        with(without(is("1"))),
        &[
            ("/", &[("x", "1")], "404"),
            ("/", &[("x", "2")], "v1"),
            ("/", &[], "v1"),
        ],
    );
    written(
        "not at all",
        with(without(TextMatch::Present)),
        &[("/", &[("x", "")], "404"), ("/", &[], "v1")],
    );
    let claim = Match::default().header("@request.auth.claims.sub", is("a"));
    written("a claim is no field", with(claim), &[("/", &[], "404")]);
}

#[test]
fn the_rest_of_a_request_can_be_asked_for() {
    let request = Request::new("POST /", &[]);
    let usual = Asked {
        authority: "Echo.shop:80",
        ..request.asked()
    };
    let with = |set: &dyn Fn(&mut Match)| {
        let mut matched = Match::default();
        set(&mut matched);
        matched
    };
    let prefix = |text: &str| TextMatch::Prefix(Arc::from(text));
    type Set<'a> = &'a dyn Fn(&mut Match);
    let cases: [(&str, Set<'_>, bool); 16] = [
        ("scheme", &|m| m.scheme = Some(is("http")), true),
        ("another scheme", &|m| m.scheme = Some(is("https")), false),
        ("port", &|m| m.port = Some(80), true),
        ("another port", &|m| m.port = Some(81), false),
        (
            "namespace",
            &|m| m.source_namespace = Some(Arc::from("shop")),
            true,
        ),
        (
            "another namespace",
            &|m| m.source_namespace = Some(Arc::from("sho")),
            false,
        ),
        (
            "authority",
            &|m| m.authority = Some(is("echo.SHOP:80")),
            true,
        ),
        (
            "its port counts",
            &|m| m.authority = Some(is("echo.shop")),
            false,
        ),
        (
            "its beginning",
            &|m| m.authority = Some(prefix("eCHO.")),
            true,
        ),
        (
            "a longer one",
            &|m| m.authority = Some(prefix("echo.shop:800")),
            false,
        ),
        (
            "its pattern",
            &|m| m.authority = Some(like("ECHO\\..*")),
            true,
        ),
        ("all of it", &|m| m.authority = Some(like("ECHO")), false),
        ("method", &|m| m.method = Some(prefix("PO")), true),
        ("case of a method", &|m| m.method = Some(is("post")), false),
        (
            "method pattern",
            &|m| m.method = Some(like("GET|POST")),
            true,
        ),
        (
            "another method",
            &|m| m.method = Some(like("GET|PUT")),
            false,
        ),
    ];
    for (name, set, taken) in cases {
        let rules = vec![rule(vec![with(set)], "v1")];
        let table = table(vec![route(Kind::VirtualService, "r", rules)], vec![]);
        let want = if taken { "v1" } else { "404" };
        assert_eq!(outcome(&table, &usual), want, "{name}");
    }
}
