use std::time::Duration;

use super::*;
use crate::model::route::testing::{exact, is, like, pattern, rule, text_prefix};
use crate::model::route::{HeaderChange, Retry, Rewrite};

fn starts(text: &str) -> TextMatch {
    TextMatch::Prefix(Arc::from(text))
}

fn ignoring(of: Match) -> Match {
    Match {
        ignore_case: true,
        ..of
    }
}

#[test]
fn paths_are_joined() {
    let any = Match::default;
    for (name, a, b, want) in [
        ("all", any(), any(), Ok(Some(any()))),
        ("all of one", any(), exact("/a"), Ok(Some(exact("/a")))),
        (
            "`/` is all",
            pattern("/.*"),
            text_prefix("/"),
            Ok(Some(pattern("/.*"))),
        ),
        (
            "narrower",
            text_prefix("/a"),
            text_prefix("/a/b"),
            Ok(Some(text_prefix("/a/b"))),
        ),
        (
            "wider",
            text_prefix("/a/b"),
            text_prefix("/a"),
            Ok(Some(text_prefix("/a/b"))),
        ),
        ("beside", text_prefix("/a"), text_prefix("/b"), Ok(None)),
        (
            "one of them",
            text_prefix("/a"),
            exact("/ab"),
            Ok(Some(exact("/ab"))),
        ),
        ("another", text_prefix("/a"), exact("/b"), Ok(None)),
        ("the same", exact("/a"), exact("/a"), Ok(Some(exact("/a")))),
        ("two", exact("/a"), exact("/ab"), Ok(None)),
        (
            "the same pattern",
            pattern("/a+"),
            pattern("/a+"),
            Ok(Some(pattern("/a+"))),
        ),
        (
            "a pattern",
            pattern("/a+"),
            text_prefix("/a"),
            Err(Unsayable("`uri`")),
        ),
        (
            "in any case",
            ignoring(text_prefix("/A")),
            ignoring(exact("/ab")),
            Ok(Some(ignoring(exact("/ab")))),
        ),
        (
            "in one",
            ignoring(text_prefix("/a")),
            exact("/a"),
            Err(Unsayable("`uri`")),
        ),
    ] {
        assert_eq!(a.and(&b), want, "{name}");
        let other_way = b.and(&a);
        assert_eq!(other_way.is_err(), want.is_err(), "{name}, the other way");
        assert_eq!(
            other_way.ok().flatten().is_some(),
            want.ok().flatten().is_some(),
            "{name}"
        );
    }
}

#[test]
fn all_conditions_of_both_hold() {
    let header = |name: &str, text| Match::default().header(name, text);
    let port = |port| Match {
        port: Some(port),
        ..Match::default()
    };
    let method = |text| Match {
        method: Some(text),
        ..Match::default()
    };
    for (name, a, b, want) in [
        (
            "two headers",
            header("x", is("1")),
            header("y", is("2")),
            Ok(Some(header("x", is("1")).header("y", is("2")))),
        ),
        (
            "there, and this",
            header("x", TextMatch::Present),
            header("x", starts("1")),
            Ok(Some(header("x", starts("1")))),
        ),
        (
            "two values",
            header("x", is("1")),
            header("x", is("2")),
            Ok(None),
        ),
        (
            "one that matches",
            header("x", like("[0-9]+")),
            header("x", is("12")),
            Ok(Some(header("x", is("12")))),
        ),
        (
            "two patterns",
            header("x", like("1.*")),
            header("x", like(".*2")),
            Err(Unsayable("a header")),
        ),
        ("a port", port(80), Match::default(), Ok(Some(port(80)))),
        ("two ports", port(80), port(81), Ok(None)),
        (
            "two methods",
            method(is("GET")),
            method(is("PUT")),
            Ok(None),
        ),
        (
            "a method",
            method(starts("P")),
            method(is("PUT")),
            Ok(Some(method(is("PUT")))),
        ),
    ] {
        assert_eq!(a.and(&b), want, "{name}");
    }
    let without = |name: &str| Match {
        without_headers: vec![(Arc::from(name), TextMatch::Present)],
        ..Match::default()
    };
    let both = without("x").and(&without("x")).unwrap().unwrap();
    assert_eq!(both.without_headers.len(), 2);
}

#[test]
fn a_rule_takes_from_the_one_around_it_what_it_does_not_say() {
    let change = |name: &str| HeaderChange {
        remove: vec![Arc::from(name)],
        ..HeaderChange::default()
    };
    let rewrite = Filter::Rewrite(Rewrite::default());
    let mut outer = rule(vec![text_prefix("/a"), text_prefix("/b")], "nobody");
    outer.name = Arc::from("outer");
    outer.backends.clear();
    outer.filters = vec![Filter::ResponseHeaders(change("x")), rewrite.clone()];
    outer.timeouts.request = Some(Duration::from_secs(1));
    outer.retry = Some(Retry::usual());
    let mut own = rule(
        vec![text_prefix("/a/1"), text_prefix("/b/1"), exact("/c")],
        "v1",
    );
    let whole = own.under(&outer);
    assert_eq!(whole.matches, [text_prefix("/a/1"), text_prefix("/b/1")]);
    assert_eq!((&*whole.name, &whole.backends), ("outer", &own.backends));
    assert_eq!(whole.filters, outer.filters);
    assert_eq!(
        (whole.timeouts, &whole.retry),
        (outer.timeouts, &outer.retry)
    );

    own.name = Arc::from("own");
    own.filters = vec![Filter::RequestHeaders(change("y"))];
    own.timeouts.request = Some(Duration::from_secs(2));
    let whole = own.under(&outer);
    assert_eq!(&*whole.name, "outer-own");
    assert_eq!(whole.filters, [rewrite, own.filters[0].clone()]);
    assert_eq!(whole.timeouts, own.timeouts);
}
