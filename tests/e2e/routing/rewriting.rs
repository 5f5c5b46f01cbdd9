//! What filters make of requests and answers: rows 21 to 26, 28 and 29.

use super::case::{Case, try_all};
use super::written::route;

/// A rule's filters.
fn filtered(rule: &str, filters: &[&str]) -> String {
    format!("{rule} ; filters = [{}]", filters.join(", "))
}

fn modifier(changes: &str) -> String {
    format!("{{ type = \"RequestHeaderModifier\", request-header-modifier = {{ {changes} }} }}")
}

fn redirect(matched: &str, how: &str) -> String {
    let filter = format!("{{ type = \"RequestRedirect\", request-redirect = {{ {how} }} }}");
    filtered(matched, &[&filter])
}

fn rewrite(how: &str) -> String {
    format!("{{ type = \"URLRewrite\", url-rewrite = {{ {how} }} }}")
}

const ONE: &str = "path = { type = \"ReplaceFullPath\", replace-full-path = \"/one\" }";

fn headers() -> Vec<Case> {
    let set = "set = [{ name = \"X-Header-Set\", value = \"set-overwrites-values\" }], \
        add = [{ name = \"X-Header-Add\", value = \"add-appends-values\" }], remove = [\"X-Header-Remove\"]";
    let answers =
        format!("{{ type = \"ResponseHeaderModifier\", response-header-modifier = {{ {set} }} }}");
    let backend = |name: &str, value: &str| {
        let filter = modifier(&format!("set = [{{ name = \"B\", value = \"{value}\" }}]"));
        format!("{{ name = \"{name}\", port = 80, filters = [{filter}] }}")
    };
    let each = format!(
        "-> ; backend-refs = [{}, {}], filters = [{}]",
        backend("v1", "1"),
        backend("v2", "2"),
        modifier("set = [{ name = \"B\", value = \"0\" }]")
    );
    let alone = |name: &str| {
        format!(
            "P/{name} -> ; backend-refs = [{}], filters = [{}]",
            backend(name, &name[1..]),
            modifier("set = [{ name = \"B\", value = \"0\" }]")
        )
    };
    vec![
        Case::new(
            "21, HTTPRouteRequestHeaderModifier: set, add, remove",
            route(&[&filtered("-> v1", &[&modifier(set)])]),
        )
        .ask(
            "/ | x-header-set: a | X-Header-Add: some-other-value | x-header-remove: b",
            &[
                "v1",
                "> x-header-set: set-overwrites-values",
                "> x-header-add: some-other-value,add-appends-values",
                "> !x-header-remove",
            ],
        )
        .ask("/", &["v1", "> x-header-set: set-overwrites-values", "> x-header-add: add-appends-values"]),
        Case::new(
            "HTTPRouteResponseHeaderModifier: set, add, remove",
            route(&[&filtered("-> v1", &[&answers])]),
        )
        .ask(
            "/ | x-echo-answer: X-Header-Set: a | x-echo-answer: x-header-add: some-other-value | x-echo-answer: X-Header-Remove: b",
            &[
                "v1",
                "< x-header-set: set-overwrites-values",
                "< x-header-add: some-other-value,add-appends-values",
                "< !x-header-remove",
            ],
        ),
        Case::new(
            "22, HTTPRouteRequestHeaderModifierBackendWeights: v1 sets B=1, v2 sets B=2, rule sets B=0",
            route(&[&alone("v1"), &alone("v2"), &each]),
        )
        .ask("/v1", &["v1", "> b: 1"])
        .ask("/v2", &["v2", "> b: 2"])
        .also(|bench| {
            let wrong = |answer: &super::answer::Answer| match answer.name().as_str() {
                "v1" => !answer.is("> b: 1"),
                "v2" => !answer.is("> b: 2"),
                _ => true,
            };
            let answers = (0..10).map(|_| bench.ask("/"));
            let wrong = answers.filter(wrong);
            wrong.map(|answer| format!("{answer:?}")).collect()
        }),
    ]
}

fn redirects() -> Vec<Case> {
    let path = |value: &str| {
        format!("path = {{ type = \"ReplaceFullPath\", replace-full-path = \"{value}\" }}")
    };
    let prefix =
        "path = { type = \"ReplacePrefixMatch\", replace-prefix-match = \"/replacement-prefix\" }";
    vec![
        Case::new(
            "23, RedirectHostAndStatus, RedirectPort, RedirectScheme, RedirectPortAndScheme",
            route(&[
                &redirect("P/host", "hostname = \"example.org\""),
                &redirect("P/moved", "hostname = \"example.org\", status-code = 301"),
                &redirect("P/scheme", "scheme = \"https\""),
                &redirect("P/port", "port = 8083"),
                &redirect("P/both", "scheme = \"https\", port = 8443"),
                &redirect("P/usual", "scheme = \"https\", port = 443"),
                &redirect("P/path", &path("/y")),
            ]),
        )
        .ask("/host/x", &["302", "< location: http://example.org/host/x"])
        .ask(
            "/moved/x",
            &["301", "< location: http://example.org/moved/x"],
        )
        .ask("/scheme/x", &["302", "< location: https://echo/scheme/x"])
        .ask("/port/x", &["302", "< location: http://echo:8083/port/x"])
        .ask("/both", &["302", "< location: https://echo:8443/both"])
        .ask("/usual", &["302", "< location: https://echo/usual"])
        .ask(":9000 /path/x", &["302", "< location: http://echo:9000/y"])
        .ask("/path/x", &["302", "< location: http://echo/y"]),
        Case::new(
            "24, RedirectPath, 303Redirect, 307Redirect, 308Redirect",
            route(&[
                &redirect("P/original-prefix", prefix),
                &redirect("P/303", "status-code = 303"),
                &redirect("P/307", "status-code = 307"),
                &redirect("P/308", "status-code = 308"),
            ]),
        )
        .ask(
            "/original-prefix/lemon?q=1",
            &[
                "302",
                "< location: http://echo/replacement-prefix/lemon?q=1",
            ],
        )
        .ask("POST /303", &["303", "< location: http://echo/303"])
        .ask("POST /307", &["307", "< location: http://echo/307"])
        .ask("POST /308", &["308", "< location: http://echo/308"]),
    ]
}

fn rewrites() -> Vec<Case> {
    let prefix = |value: &str| {
        rewrite(&format!(
            "path = {{ type = \"ReplacePrefixMatch\", replace-prefix-match = \"{value}\" }}"
        ))
    };
    let changes = modifier(
        "set = [{ name = \"X-Header-Set\", value = \"set\" }], add = [{ name = \"X-Header-Add\", value = \"add\" }], remove = [\"X-Header-Remove\"]",
    );
    let backend = format!(
        "P/backend -> ; backend-refs = [{{ name = \"v2\", port = 80, filters = [{}] }}]",
        rewrite(&format!("hostname = \"two.example.org\", {ONE}"))
    );
    vec![
        Case::new(
            "25, HTTPRouteRewritePath: prefix and full",
            route(&[
                &filtered("P/prefix/one -> v1", &[&prefix("/one")]),
                &filtered("P/strip-prefix -> v1", &[&prefix("/")]),
                &filtered("P/full/one -> v1", &[&rewrite(ONE)]),
            ]),
        )
        .ask("/prefix/one/two", &["v1", "> :path /one/two"])
        .ask("/strip-prefix", &["v1", "> :path /"])
        .ask("/strip-prefix/three", &["v1", "> :path /three"])
        .ask("/full/one/two?x=1", &["v1", "> :path /one?x=1"]),
        Case::new(
            "26, HTTPRouteRewriteHost: prefix and headers; hostname one.example.org",
            route(&[
                &filtered(
                    "P/prefix/rewrite-path-and-modify-headers -> v1",
                    &[&prefix("/prefix"), &changes],
                ),
                &filtered("-> v1", &[&rewrite("hostname = \"one.example.org\"")]),
            ]),
        )
        .ask(
            "/prefix/rewrite-path-and-modify-headers/one | X-Header-Set: x | X-Header-Add: first | X-Header-Remove: x",
            &[
                "v1",
                "> :path /prefix/one",
                "> x-header-set: set",
                "> x-header-add: first,add",
                "> !x-header-remove",
                "> x-envoy-original-path: /prefix/rewrite-path-and-modify-headers/one",
            ],
        )
        .ask("/", &["v1", "> :host one.example.org", "> x-envoy-original-host: echo"]),
        Case::new("HTTPRouteBackendURLRewrite: on a backend", route(&[&backend]))
            .ask("/backend/x?q", &["v2", "> :host two.example.org", "> :path /one?q"]),
    ]
}

fn cors() -> Vec<Case> {
    let cors = |how: &str| {
        let filter = format!("{{ type = \"CORS\", cors = {{ {how} }} }}");
        route(&[&filtered("-> v1", &[&filter])])
    };
    let listed = "allow-origins = [\"https://www.foo.com\", \"https://*.bar.com\"], allow-methods = [\"GET\", \"OPTIONS\"], \
        allow-headers = [\"x-header-1\"], expose-headers = [\"x-header-2\"], allow-credentials = true, max-age = 3600";
    let all = |credentials| {
        cors(&format!(
            "allow-origins = [\"*\"], allow-methods = [\"*\"], allow-credentials = {credentials}"
        ))
    };
    vec![
        Case::new("28, HTTPRouteCORS: two origins", cors(listed))
            .ask(
                "OPTIONS / | Origin: https://www.foo.com | Access-Control-Request-Method: GET",
                &[
                    "200",
                    "empty",
                    "< access-control-allow-origin: https://www.foo.com",
                    "< access-control-allow-methods: GET, OPTIONS",
                    "< access-control-allow-headers: x-header-1",
                    "< access-control-max-age: 3600",
                    "< access-control-allow-credentials: true",
                ],
            )
            .ask(
                "OPTIONS / | Origin: https://xpto.www.bar.com | Access-Control-Request-Method: GET",
                &["200", "< access-control-allow-origin: https://xpto.www.bar.com"],
            )
            .ask(
                "OPTIONS / | Origin: https://foobar.com | Access-Control-Request-Method: GET",
                &["200", "empty", "< !access-control-allow-origin"],
            )
            .ask(
                "/ | Origin: https://www.foo.com",
                &[
                    "v1",
                    "< access-control-allow-origin: https://www.foo.com",
                    "< access-control-expose-headers: x-header-2",
                    "< access-control-allow-credentials: true",
                ],
            )
            .ask("/ | Origin: https://foobar.com", &["v1", "< !access-control-allow-origin"])
            .ask(
                "/ | Origin: https://www.foo.com | x-echo-answer: access-control-allow-origin: https://app.example",
                &["v1", "< access-control-allow-origin: https://www.foo.com"],
            ),
        Case::new("29: CORS `*`, methods `*`, credentials true", all(true)).ask(
            "OPTIONS / | Origin: https://any.example | Access-Control-Request-Method: PUT",
            &[
                "200",
                "< access-control-allow-methods: PUT",
                "< access-control-allow-origin: https://any.example",
                "< access-control-allow-credentials: true",
            ],
        ),
        Case::new("29: CORS `*`, methods `*`, credentials false", all(false))
            .ask(
                "OPTIONS / | Origin: https://any.example | Access-Control-Request-Method: PUT",
                &["200", "< access-control-allow-origin", "< !access-control-allow-credentials"],
            )
            .also(|bench| {
                let asked = "OPTIONS / | Origin: https://any.example | Access-Control-Request-Method: PUT";
                let methods = bench.ask(asked).header("access-control-allow-methods");
                let fine = matches!(methods.as_deref(), Some("*" | "PUT"));
                super::case::unless(fine, || format!("{methods:?}"))
            }),
    ]
}

#[test]
fn requests_and_answers_are_changed_as_filters_say() {
    let mut cases = headers();
    cases.extend(redirects());
    cases.extend(rewrites());
    cases.extend(cors());
    try_all(&cases);
}
