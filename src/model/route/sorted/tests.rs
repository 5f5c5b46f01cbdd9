//! What holds of every choice, whatever the rules look like: it is the one a plain reading of
//! `spec/waypoint-l7.md` §2.2 makes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::route::testing::{
    Request, exact, is, outcome, pattern, prefix, route, rule, table,
};
use crate::model::route::{Kind, Match, Rule, Target};

/// Few enough words that paths meet often, more than [`FEW`] of them.
const WORDS: [&str; 4] = ["a", "b", "ab", "c"];

fn path() -> impl Strategy<Value = String> {
    (vec(select(&WORDS[..]), 0..4), any::<bool>()).prop_map(|(words, slash)| {
        let end = if slash && !words.is_empty() { "/" } else { "" };
        format!("/{}{end}", words.join("/"))
    })
}

fn one_match() -> impl Strategy<Value = Match> {
    let patterns = select(&["/a.*", "/.*b", "/[abc]+", "/a/.+", ".*"][..]);
    let path = prop_oneof![
        2 => path().prop_map(|p| exact(&p)),
        4 => path().prop_map(|p| prefix(&p)),
        1 => patterns.prop_map(pattern),
    ];
    let method = proptest::option::weighted(0.3, select(&["GET", "POST"][..]));
    let pairs = || vec((select(&["x", "y"][..]), select(&["1", "2"][..])), 0..3);
    (path, method, pairs(), pairs()).prop_map(|(mut matched, method, headers, query)| {
        if let Some(method) = method {
            matched = matched.method(method);
        }
        for (name, value) in headers {
            matched = matched.header(name, is(value));
        }
        for (name, value) in query {
            matched = matched.query(name, is(value));
        }
        matched
    })
}

/// Rules of up to three routes.
fn rules() -> impl Strategy<Value = Vec<Vec<Vec<Match>>>> {
    vec(vec(vec(one_match(), 1..4), 0..6), 1..4)
}

type Fields = Vec<(&'static str, &'static str)>;

fn request() -> impl Strategy<Value = (String, Fields, Fields)> {
    let pairs = || vec((select(&["x", "y"][..]), select(&["1", "2"][..])), 0..3);
    let method = select(&["GET", "POST", "PUT"][..]);
    (method, path(), pairs(), pairs()).prop_map(|(m, path, h, q)| (format!("{m} {path}"), h, q))
}

/// The name of the backend of a rule: where it was written.
fn place(route: usize, rule: usize) -> String {
    format!("{route}-{rule}")
}

/// What §2.2 says, word for word, without any index.
fn naive(routes: &[Vec<Vec<Match>>], request: &Request<'_>) -> Option<String> {
    let mut taking = Vec::new();
    for (i, rules) in routes.iter().enumerate() {
        for (j, matches) in rules.iter().enumerate() {
            for (k, matched) in matches.iter().enumerate() {
                if takes(matched, request) {
                    taking.push((criteria(matched), (i, j, k)));
                }
            }
        }
    }
    let first = taking.into_iter().min();
    first.map(|(_, (i, j, _))| place(i, j))
}

fn takes(matched: &Match, request: &Request<'_>) -> bool {
    let path = match &matched.path {
        PathMatch::Exact(want) => request.path == &**want,
        PathMatch::Prefix(want) => {
            let want: Vec<&str> = want.split('/').filter(|s| !s.is_empty()).collect();
            let got: Vec<&str> = request.path.split('/').filter(|s| !s.is_empty()).collect();
            got.starts_with(&want)
        }
        PathMatch::Regex(want) => want.is_match(request.path),
        PathMatch::TextPrefix(_) => unreachable!("no such match is made"),
    };
    let method = matched.method.as_ref();
    path && method.is_none_or(|want| *want == is(request.method.as_str()))
        && firsts(&matched.headers).into_iter().all(|(name, want)| {
            let values = request.headers.get_all(name).iter();
            let values: Vec<&str> = values.map(|v| v.to_str().unwrap()).collect();
            !values.is_empty() && *want == is(&values.join(","))
        })
        && firsts(&matched.query).into_iter().all(|(name, want)| {
            let mut pairs = request.query.unwrap_or_default().split('&');
            let value = pairs.find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            value.is_some_and(|value| *want == is(value))
        })
}

/// Conditions whose name is not there before.
fn firsts<T>(all: &[(Arc<str>, T)]) -> Vec<(&str, &T)> {
    let mut firsts: Vec<(&str, &T)> = Vec::new();
    for (name, want) in all {
        if firsts.iter().all(|(known, _)| *known != &**name) {
            firsts.push((&**name, want));
        }
    }
    firsts
}

/// Smaller comes first.
fn criteria(matched: &Match) -> impl Ord + use<> {
    let (kind, length) = match &matched.path {
        PathMatch::Exact(path) => (0, path.len()),
        PathMatch::Prefix(path) => (1, path.trim_end_matches('/').len()),
        PathMatch::Regex(path) => (2, path.source().len()),
        PathMatch::TextPrefix(_) => unreachable!("no such match is made"),
    };
    let headers = firsts(&matched.headers).len();
    let query = firsts(&matched.query).len();
    let method = matched.method.is_some();
    (
        kind,
        Reverse(length),
        Reverse(method),
        Reverse(headers),
        Reverse(query),
    )
}

fn written(routes: &[Vec<Vec<Match>>]) -> Vec<crate::model::route::Route> {
    let rules = |i: usize, rules: &[Vec<Match>]| -> Vec<Rule<Target>> {
        let rules = rules.iter().enumerate();
        rules
            .map(|(j, matches)| rule(matches.clone(), &place(i, j)))
            .collect()
    };
    let routes = routes.iter().enumerate();
    routes
        .map(|(i, of)| route(Kind::Http, &format!("r{i}"), rules(i, of)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_choice_is_preceded_by_nobody_who_matches(
        routes in rules(),
        requests in vec(request(), 1..8),
    ) {
        let table = table(written(&routes), vec![]);
        let any = routes.iter().any(|rules| !rules.is_empty());
        for (line, headers, query) in &requests {
            let query: Vec<String> = query.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let line = format!("{line}?{}", query.join("&"));
            let request = Request::new(&line, headers);
            let none = if any { "404" } else { "default" };
            let want = naive(&routes, &request).unwrap_or_else(|| none.to_owned());
            prop_assert_eq!(outcome(&table, &request.asked()), want, "{:?}", request);
        }
    }
}

#[test]
fn both_ways_of_finding_paths_are_tried() {
    let paths = |n: usize| (0..n).map(|i| exact(&format!("/{i}"))).collect();
    for (n, indexed) in [(FEW, false), (FEW + 1, true)] {
        let route = Arc::new(route(Kind::Http, "r", vec![rule(paths(n), "v1")]));
        let sorted = Sorted::new(Candidate::all(&route));
        assert_eq!(sorted.index.is_some(), indexed, "{n}");
    }
}
