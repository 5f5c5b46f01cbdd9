use super::*;
use crate::model::route::testing::{name, port, route, rule};

/// The host name of the service whose port it is.
const OWN: &str = "cart.shop.mesh.internal";

fn tls(called: &str, names: &[&str], backend: &str) -> Route {
    let mut route = route(Kind::Tls, called, vec![rule(vec![], backend)]);
    route.server_names = names.iter().map(|name| Arc::from(*name)).collect();
    route
}

fn tcp(called: &str, backend: &str) -> Route {
    route(Kind::Tcp, called, vec![rule(vec![], backend)])
}

fn table(own: Vec<Route>, general: Vec<Route>) -> TlsTable {
    let (resources, port) = port(own, general);
    TlsTable::new(&resources, &Arc::from(OWN), &port).unwrap()
}

fn outcome(table: &TlsTable, sni: Option<&str>) -> String {
    match table.select(sni) {
        TlsSelection::Default => "default".to_owned(),
        TlsSelection::Close => "close".to_owned(),
        TlsSelection::Rule(chosen) => name(&chosen.rule.backends[0]),
    }
}

#[test]
fn server_names_decide() {
    let two = || {
        vec![
            tls("a", &["a.example"], "v1"),
            tls("b", &["*.b.example"], "v2"),
        ]
    };
    let only = table(two(), vec![]);
    let beside = table([two(), vec![tcp("t", "v3")]].concat(), vec![]);
    let nested = table(
        vec![
            tls("any", &["*"], "v1"),
            tls("short", &["*.example"], "v2"),
            tls("long", &["*.b.example"], "v3"),
            tls("exact", &["x.b.example"], "v4"),
            tls("younger", &["*.b.example"], "v5"),
        ],
        vec![],
    );
    let unnamed = table(
        vec![tls("any", &["*"], "v1"), tls("own", &[], "v2")],
        vec![],
    );
    for (name, table, sni, want) in [
        (
            "of a route without names its own",
            &unnamed,
            Some(OWN),
            "v2",
        ),
        (
            "and no other",
            &unnamed,
            Some("web.shop.mesh.internal"),
            "v1",
        ),
        ("37 exact", &only, Some("a.example"), "v1"),
        ("37 suffix", &only, Some("x.b.example"), "v2"),
        ("37 another", &only, Some("c"), "close"),
        ("37 none", &only, None, "close"),
        ("case is of no account", &only, Some("A.Example"), "v1"),
        ("several labels", &only, Some("y.x.b.example"), "v2"),
        ("no label", &only, Some("b.example"), "close"),
        ("an empty label", &only, Some(".b.example"), "close"),
        ("half a label", &only, Some("xb.example"), "close"),
        ("then TCP", &beside, Some("c"), "v3"),
        ("without a name TCP", &beside, None, "v3"),
        ("exact is first", &nested, Some("x.b.example"), "v4"),
        ("the longest, the older", &nested, Some("y.b.example"), "v3"),
        ("a shorter one", &nested, Some("c.example"), "v2"),
        ("any", &nested, Some("c"), "v1"),
        ("any, but one", &nested, None, "close"),
    ] {
        assert_eq!(outcome(table, sni), want, "{name}");
    }
}

#[test]
fn the_first_tcp_route_takes_all() {
    let http = || route(Kind::Http, "h", vec![rule(vec![], "v9")]);
    for (name, own, general, want) in [
        (
            "35 the first",
            vec![tcp("z", "v1"), tcp("a", "v2")],
            vec![],
            "v1",
        ),
        (
            "the port's own",
            vec![tcp("a", "v1")],
            vec![tcp("b", "v2")],
            "v1",
        ),
        ("the general one", vec![], vec![tcp("b", "v2")], "v2"),
        ("of HTTP it knows nothing", vec![http()], vec![], "default"),
        ("no rule", vec![], vec![], "default"),
    ] {
        assert_eq!(outcome(&table(own, general), None), want, "{name}");
    }
}

#[test]
fn a_rule_has_a_name() {
    let table = table(vec![tcp("t", "v1")], vec![]);
    let TlsSelection::Rule(chosen) = table.select(None) else {
        panic!("a tcp-route takes everything");
    };
    assert_eq!(chosen.name, "shop.t.0");
    assert_eq!(chosen.route.key.name.as_ref(), "t");
}

#[test]
fn a_route_that_is_not_there_is_named() {
    let (mut resources, port) = port(vec![tcp("t", "v1")], vec![]);
    resources.routes.clear();
    let error = TlsTable::new(&resources, &Arc::from(OWN), &port).unwrap_err();
    assert_eq!(error.to_string(), "tcp-route shop/t is not there");
}
