//! Which rule takes a request: rows 5 to 17.

use super::case::{Case, try_all, unless};
use super::written::{named, route};
use crate::support::{LATEEN, text};

const TO_V1_AND_V2: &[&str] = &["P/v1 -> v1", "P/v2 -> v2"];
const SETS: &str = "-> v1 ; filters = [{ type = \"ResponseHeaderModifier\", response-header-modifier = { set = [{ name = \"X-Header-Set\", value = \"set\" }] } }]";

fn sets(name: &str, more: &str, header: &str) -> String {
    let filter = format!(
        "-> v1 ; filters = [{{ type = \"ResponseHeaderModifier\", response-header-modifier = {{ set = [{{ name = \"{header}\", value = \"set\" }}] }} }}]"
    );
    named("http-route", name, more, &[&filter])
}

fn attachment() -> Vec<Case> {
    vec![
        Case::new("MeshBasic: none", "").ask("/", &["echo"]),
        Case::new(
            "5, MeshTrafficSplit: R P/v1→v1, P/v2→v2",
            route(TO_V1_AND_V2),
        )
        .ask("/v1", &["v1"])
        .ask("/v2/x", &["v2"])
        .ask("/", &["404", "empty"])
        .ask("/v1x", &["404", "empty"]),
        Case::new(
            "6, MeshFrontend: R sets response `X-Header-Set: set`",
            route(&[SETS]),
        )
        .ask("/", &["v1", "< x-header-set: set"])
        .ask("10.77.2.11:8080 /", &["echo-1", "< !x-header-set"]),
        Case::new(
            "7, MeshFrontendHostname: R on echo →v1; none on v2",
            route(&["-> v1"]),
        )
        .ask("10.96.0.22:80 / | Host: echo", &["v2", "> :host echo"])
        .ask("/ | Host: v2.shop.mesh.internal", &["v1"]),
        Case::new(
            "8, MeshPorts: route A (port 80) sets X-A; route B (no port) sets X-B",
            sets("a", "parent-refs = [{ name = \"echo\", port = 80 }]", "X-A")
                + &sets("b", "parent-refs = [{ name = \"echo\" }]", "X-B"),
        )
        .ask(":80 /", &["200", "< x-a: set", "< !x-b"])
        .ask(":9000 /", &["200", "< x-b: set", "< !x-a"]),
        Case::new(
            "9: route in namespace `other`, parent `shop/echo`",
            named(
                "http-route",
                "r",
                "namespace = \"other\"\nparent-refs = [{ name = \"echo\", namespace = \"shop\" }]",
                &["-> ; backend-refs = [{ name = \"v1\", namespace = \"shop\", port = 80 }]"],
            ),
        )
        .ask("/", &["echo"])
        .ask("other /", &["echo"])
        .also(|bench| warned(bench, &["r", "other"])),
    ]
}

fn precedence() -> Vec<Case> {
    vec![
        Case::new(
            "10, HTTPRouteMatching: [P/ or H version=one]→v1, [P/v2 or H version=two]→v2",
            route(&["P/ | H:version=one -> v1", "P/v2 | H:version=two -> v2"]),
        )
        .ask("/", &["v1"])
        .ask("/v2/", &["v2"])
        .ask("/v2example", &["v1"])
        .ask("/foo/v2/example", &["v1"])
        .ask("/ | Version: two", &["v2"]),
        Case::new(
            "11, HTTPRoutePathMatchOrder: E/match→v1, …, P/match/prefix/one→v2",
            route(&[
                "E/match -> v1",
                "E/match/exact -> v2",
                "E/match/exact/one -> v3",
                "P/match/ -> v3",
                "P/match/prefix/ -> v1",
                "P/match/prefix/one -> v2",
            ]),
        )
        .ask("/match/exact/one", &["v3"])
        .ask("/match/exact", &["v2"])
        .ask("/match", &["v1"])
        .ask("/match/prefix/one/any", &["v2"])
        .ask("/match/prefix/any", &["v1"])
        .ask("/match/any", &["v3"]),
        Case::new(
            "12, HTTPRouteHeaderMatching: H version=two→v2; H version=two,color=orange→v1; H color=blue or green→v1",
            route(&[
                "H:version=two -> v2",
                "H:version=two H:color=orange -> v1",
                "H:color=blue | H:color=green -> v1",
            ]),
        )
        .ask("/ | version: two", &["v2"])
        .ask("/ | version: two | color: orange", &["v1"])
        .ask("/ | color: green", &["v1"])
        .ask("/ | version: two | color: blue", &["v2"])
        .ask("/ | color: purple", &["404", "empty"]),
        Case::new(
            "13, HTTPRouteQueryParamMatching: Q animal=whale→v1; …",
            route(&[
                "Q:animal=whale -> v1",
                "Q:animal=dolphin -> v2",
                "Q:animal=dolphin Q:color=blue | Q:ANIMAL=Whale -> v3",
            ]),
        )
        .ask("?animal=whale&x=1", &["v1"])
        .ask("?animal=dolphin", &["v2"])
        .ask("?animal=dolphin&color=blue", &["v3"])
        .ask("?ANIMAL=Whale", &["v3"])
        .ask("?animal=whaledolphin", &["404"])
        .ask("?color=blue", &["404"]),
        Case::new(
            "14: P/path5→v1; Q animal=hydra→v2; H version=four→v3",
            route(&["P/path5 -> v1", "Q:animal=hydra -> v2", "H:version=four -> v3"]),
        )
        .ask("/path5?animal=hydra", &["v1"])
        .ask("/?animal=hydra | version: four", &["v3"]),
        Case::new(
            "15, HTTPRouteMethodMatching: POST→v1; GET→v2; P/path1 GET→v1; …",
            route(&[
                "POST -> v1",
                "GET -> v2",
                "P/path1 GET -> v1",
                "P/path5 -> v1",
                "PATCH -> v2",
                "H:version=four -> v3",
            ]),
        )
        .ask("POST /", &["v1"])
        .ask("/path1", &["v1"])
        .ask("PATCH /path5", &["v1"])
        .ask("PATCH / | version: four", &["v2"])
        .ask("PUT /", &["404"]),
        Case::new("16: regex `/a.*c`→v1; P/a→v2", route(&["X/a.*c -> v1", "P/a -> v2"]))
            .ask("/a/bc", &["v2"])
            .ask("/abc", &["v1"]),
        Case::new(
            "17: two routes, same match, older first →v1, →v2",
            named("http-route", "older", "parent-refs = [{ name = \"echo\" }]", &["-> v1"])
                + &named("http-route", "younger", "parent-refs = [{ name = \"echo\" }]", &["-> v2"]),
        )
        .also(|bench| {
            let tally = bench.many(super::ECHO, 50, &[]);
            unless(tally.get("200 v1") == Some(&50), || format!("{tally:?}"))
        })
        .also(|bench| warned(bench, &["older", "younger"])),
        Case::new(
            "HTTPRouteExactPathMatching: E/one→v1, E/two→v2",
            route(&["E/one -> v1", "E/two -> v2"]),
        )
        .ask("/one", &["v1"])
        .ask("/two", &["v2"])
        .ask("/", &["404"])
        .ask("/one/example", &["404"])
        .ask("/two/", &["404"]),
        Case::new(
            "HTTPRouteMatchingAcrossRoutes: P/ and H version=one →v1; P/v2 and H version=two →v2",
            named("http-route", "one", "parent-refs = [{ name = \"echo\" }]", &["P/ | H:version=one -> v1"])
                + &named("http-route", "two", "parent-refs = [{ name = \"echo\" }]", &["P/v2 | H:version=two -> v2"]),
        )
        .ask("/example", &["v1"])
        .ask("/ | version: one", &["v1"])
        .ask("/v2/ | version: one", &["v2"])
        .ask("/v2example", &["v1"])
        .ask("/ | version: two", &["v2"]),
        Case::new(
            "HTTPRouteNamedRule: a rule with a name",
            route(&["P/named -> v1 ; name = \"named-rule\"", "-> v2"]),
        )
        .ask("/named", &["v1"])
        .ask("/unnamed", &["v2"]),
    ]
}

/// Whether `lateen check` has a warning with all these words.
fn warned(bench: &super::Bench, words: &[&str]) -> Vec<String> {
    let directory = bench.turn.mesh_dir().display().to_string();
    let check = [LATEEN, "check", &directory];
    let checked = bench.turn.exec("control", None, &check);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    let holds = said.contains("warning") || said.contains('⚠');
    unless(holds && words.iter().all(|w| said.contains(w)), || {
        format!("no warning with {words:?}: {said}")
    })
}

#[test]
fn requests_go_where_the_first_rule_by_precedence_sends_them() {
    let mut cases = attachment();
    cases.extend(precedence());
    try_all(&cases);
}
