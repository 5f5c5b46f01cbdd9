//! Virtual services that delegate to others.

use super::*;
use crate::model::compile::sample::routes::rule;
use crate::model::declaration::{Delegate, Route};
use crate::model::route::{Match, PathMatch};

fn prefix(text: &str) -> Match {
    Match {
        path: PathMatch::TextPrefix(Arc::from(text)),
        ..Match::default()
    }
}

/// `r`, which is for `echo` and delegates what begins with `/a` to `d`, and has more to `v2`.
fn root() -> Route {
    let mut root = route(Kind::VirtualService, "r", 1, "echo.shop.mesh.internal", &[]);
    root.rules[0].matches = vec![prefix("/a")];
    root.rules.push(rule(&["host=v2"]));
    root.delegates = vec![to("d")];
    root
}

fn to(name: &str) -> Delegate {
    Delegate {
        rule: 0,
        namespace: Arc::from("shop"),
        name: Arc::from(name),
    }
}

/// One for others, with a rule of `/a/b` to `v1` and one of `/c`.
fn delegate(name: &str) -> Route {
    let mut delegate = route(Kind::VirtualService, name, 3, "", &["host=v1"]);
    delegate.hosts.clear();
    delegate.rules[0].matches = vec![prefix("/a/b")];
    delegate.rules.push(rule(&["host=v1"]));
    delegate.rules[1].matches = vec![prefix("/c")];
    delegate
}

/// The rules of `r` as its waypoint is told: what of paths each takes, and what it does.
fn rules(routes: Vec<Route>) -> Vec<String> {
    let compiled = compiled(&shop(routes));
    let told = told(&compiled);
    assert_eq!(told.routes.len(), 1, "nobody is told of delegates");
    let (_, route) = told.routes.first_key_value().unwrap();
    let shown = |rule: &Rule<Target>| {
        let paths = rule.matches.iter().map(|m| match &m.path {
            PathMatch::TextPrefix(text) | PathMatch::Prefix(text) => text.to_string(),
            other => format!("{other:?}"),
        });
        let paths: Vec<String> = paths.collect();
        let backends = rule.backends.iter().map(|b| match &b.to {
            Target::Service { key, .. } => key.hostname.split('.').next().unwrap(),
            Target::Invalid(why) => why,
        });
        let backends: Vec<&str> = backends.collect();
        let broken = rule.filters.iter().find_map(|filter| match filter {
            Filter::Unresolved(why) => Some(why.to_string()),
            _ => None,
        });
        let to = broken.unwrap_or_else(|| backends.join(" "));
        format!("{} -> {to}", paths.join(" "))
    };
    route.rules.iter().map(shown).collect()
}

#[test]
fn the_rules_of_delegates_are_in_the_place_of_what_delegates() {
    let with_hosts = Route {
        hosts: vec![Arc::from("v1.shop.mesh.internal")],
        ..delegate("d")
    };
    let another = Route {
        delegates: vec![to("e")],
        ..delegate("d")
    };
    let nobody = "/a -> there is no virtual-service shop/d without hosts";
    for (name, routes, want) in [
        (
            "found",
            vec![delegate("d"), root()],
            vec!["/a/b -> v1", " -> v1", "/ -> v2"],
        ),
        (
            "missing",
            vec![root(), delegate("e")],
            vec![nobody, "/ -> v2"],
        ),
        (
            "another level",
            vec![root(), another, delegate("e")],
            vec!["/a -> virtual-service shop/d delegates itself", "/ -> v2"],
        ),
    ] {
        assert_eq!(rules(routes), want, "{name}");
    }
    let compiled = compiled(&shop(vec![root(), with_hosts]));
    let told = told(&compiled);
    let route = told.routes.values().find(|r| *r.key.name == *"r").unwrap();
    let why = Filter::Unresolved(Arc::from(
        "there is no virtual-service shop/d without hosts",
    ));
    assert_eq!(route.rules[0].filters, [why], "one with hosts is nobody's");
}

#[test]
fn what_became_of_delegates() {
    let state = |routes: Vec<Route>, name: &str| {
        let surveyed = survey(&shop(routes));
        let mut states = surveyed.routes.into_iter();
        let state = states.find(|state| *state.key.name == *name).unwrap();
        let parents = state.parents.iter();
        let parents = parents.map(|p| format!("{}: {}", p.parent, p.accepted.reason));
        (
            parents.collect::<Vec<_>>().join(", "),
            state.resolved.reason,
        )
    };
    let of = |name: &str| format!("host {name}.shop.mesh.internal: Accepted");
    let lost = Route {
        rules: vec![rule(&["host=v9", "host=v1#one"])],
        ..delegate("d")
    };
    for (name, routes, of_route, want) in [
        (
            "the root",
            vec![root(), delegate("d")],
            "r",
            (of("echo"), "ResolvedRefs"),
        ),
        (
            "without it",
            vec![root()],
            "r",
            (of("echo"), "DelegateNotFound"),
        ),
        (
            "the delegate",
            vec![root(), delegate("d")],
            "d",
            (
                "virtual-service shop/r: Accepted".to_owned(),
                "ResolvedRefs",
            ),
        ),
        (
            "of nobody",
            vec![delegate("d")],
            "d",
            ("nobody: NoMatchingParent".to_owned(), "ResolvedRefs"),
        ),
        (
            "who goes nowhere",
            vec![root(), lost.clone()],
            "d",
            (
                "virtual-service shop/r: Accepted".to_owned(),
                "BackendNotFound",
            ),
        ),
        // That is the delegate's.
        (
            "its root",
            vec![root(), lost.clone()],
            "r",
            (of("echo"), "ResolvedRefs"),
        ),
    ] {
        assert_eq!(state(routes, of_route), want, "{name}");
    }
    let surveyed = survey(&shop(vec![root(), lost]));
    let why = surveyed.routes[1]
        .missing
        .iter()
        .map(|(_, why)| why.to_string());
    let key = key("v1");
    let want = [
        "no service has the host name v9".to_owned(),
        format!("{key} has no subset one"),
    ];
    assert_eq!(why.collect::<Vec<_>>(), want);
}
