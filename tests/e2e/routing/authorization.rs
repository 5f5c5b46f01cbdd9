//! What policies of the waypoint let through: rows 46 and 48 to 55, and 58.

use serde_json::Value;

use super::Bench;
use super::case::{Case, try_all, unless};
use super::written::{named, route};
use crate::programs::client::Order;
use crate::support::Session;

/// A policy on the echo.
pub(super) fn on_echo(name: &str, action: &str, rules: &str) -> String {
    on(
        "{ kind = \"Service\", name = \"echo\" }",
        name,
        action,
        rules,
    )
}

/// A policy on the service of one server.
pub(super) fn on_v1(name: &str, action: &str, rules: &str) -> String {
    on("{ kind = \"Service\", name = \"v1\" }", name, action, rules)
}

/// A policy on the whole waypoint.
fn on_gateway(name: &str, action: &str, rules: &str) -> String {
    on("{ kind = \"Gateway\", name = \"wp\" }", name, action, rules)
}

fn on(target: &str, name: &str, action: &str, rules: &str) -> String {
    format!(
        "[[authorization-policy]]\nname = \"{name}\"\nnamespace = \"shop\"\naction = \"{action}\"\n\
         target-refs = [{target}]\nrules = [{rules}]\n"
    )
}

/// A rule by operation.
pub(super) fn to(operation: &str) -> String {
    format!("{{ to = [{{ operation = {{ {operation} }} }}] }}")
}

fn when(condition: &str) -> String {
    format!("{{ when = [{{ {condition} }}] }}")
}

const DENIED: &[&str] = &["403", "text RBAC: access denied", "< server: lateen"];

fn paths() -> Vec<Case> {
    let allowed = |path: &str| on_echo("p", "ALLOW", &to(&format!("paths = [\"{path}\"]")));
    vec![
        Case::new(
            "48: ALLOW GET `/public*`",
            on_echo(
                "p",
                "ALLOW",
                &to("methods = [\"GET\"], paths = [\"/public*\"]"),
            ),
        )
        .ask("/public", &["echo", "> :path /public"])
        .ask("/public/../public", &["echo", "> :path /public"])
        .ask("/private", DENIED)
        .ask("/public/../private", DENIED)
        .ask("/public/%2E%2E/private", DENIED)
        .ask("/public/%2e/%2e%2e/private", DENIED)
        .ask("POST /public", DENIED)
        .ask("h2 /public", &["echo"])
        .ask("h2 /public/../private", DENIED),
        Case::new(
            "50: ALLOW `/allow/admin/{**}`",
            allowed("/allow/admin/{**}"),
        )
        .ask("/allow/admin/", &["echo"])
        .ask("/allow/admin", DENIED)
        .ask("/allow/admin?param=value", DENIED)
        .ask("/allow/admin/foo/temp.txt", &["echo"])
        .ask("/allow/user/", DENIED),
        Case::new(
            "51: ALLOW `/foo/{*}/bar/{**}`, `/store/{**}/cart`",
            on_echo(
                "p",
                "ALLOW",
                &to("paths = [\"/foo/{*}/bar/{**}\", \"/store/{**}/cart\"]"),
            ),
        )
        .ask("/foo/buzz/bar/bat.txt", &["echo"])
        .ask("/foo//bar/bat.txt", DENIED)
        .ask("/store//cart", &["echo"])
        .ask("/store/a/b/cart", &["echo"])
        .ask("/store/cart", DENIED),
        Case::new(
            "52: DENY `/allow/admin`, ALLOW `/allow*`",
            on_echo("d", "DENY", &to("paths = [\"/allow/admin\"]")) + &allowed("/allow*"),
        )
        .ask("/allow/admin?param=value", DENIED)
        .ask("/allow?param=value", &["echo"])
        .ask("/other", DENIED),
    ]
}

fn normalised() -> Vec<Case> {
    let denied = || on_echo("d", "DENY", &to("paths = [\"/admin*\"]"));
    vec![
        Case::new("49: DENY `/admin*`; BASE", denied())
            .mesh("path-normalization = \"BASE\"")
            .ask("//admin", &["echo", "> :path //admin"])
            .ask("/%2Fadmin", &["echo", "> :path /%2Fadmin"])
            .ask("/a/../admin", DENIED),
        Case::new("49: MERGE_SLASHES", denied())
            .mesh("path-normalization = \"MERGE_SLASHES\"")
            .ask("//admin", DENIED)
            .ask("/%2Fadmin", &["echo"]),
        Case::new("49: DECODE_AND_MERGE_SLASHES", denied())
            .mesh("path-normalization = \"DECODE_AND_MERGE_SLASHES\"")
            .ask("//admin", DENIED)
            .ask("/%2Fadmin", DENIED)
            .ask("/x%2F..%5cadmin", DENIED)
            .ask("/a%2fb", &["echo", "> :path /a/b"]),
        Case::new("4.3: NONE", denied())
            .mesh("path-normalization = \"NONE\"")
            .ask("/a/../admin", &["echo", "> :path /a/../admin"])
            .ask("/admin", DENIED)
            .ask("/%00", &["400"])
            .ask("/%zz", &["400"]),
    ]
}

fn attributes() -> Vec<Case> {
    vec![
        Case::new(
            "53: ALLOW hosts a.com",
            on_echo("p", "ALLOW", &to("hosts = [\"a.com\"]")),
        )
        .ask("/ | Host: A.COM", &["echo"])
        .ask("/ | Host: a.com:80", DENIED),
        Case::new(
            "53: a.com and `a.com:*`",
            on_echo("p", "ALLOW", &to("hosts = [\"a.com\", \"a.com:*\"]")),
        )
        .ask("/ | Host: A.COM", &["echo"])
        .ask("/ | Host: a.com:80", &["echo"])
        .ask("h2 / | Host: a.com:80", &["echo"]),
        Case::new(
            "54: ALLOW ports 80",
            on_echo("p", "ALLOW", &to("ports = [\"80\"]")),
        )
        .ask("/", &["echo"])
        .ask(":9000 /", DENIED),
        Case::new(
            "54: ports 8080",
            on_echo("p", "ALLOW", &to("ports = [\"8080\"]")),
        )
        .ask("/", DENIED),
        Case::new(
            "55: ALLOW when header x-test `*`",
            on_echo(
                "p",
                "ALLOW",
                &when("key = \"request.headers[x-test]\", values = [\"*\"]"),
            ),
        )
        .ask("/ | x-test;", &["echo"])
        .ask("/", DENIED),
        Case::new(
            "55: DENY when x-test `not-values = [\"v\"]`",
            on_echo(
                "p",
                "DENY",
                &when("key = \"request.headers[x-test]\", not-values = [\"v\"]"),
            ),
        )
        .ask("/", DENIED)
        .ask("/ | x-test: v", &["echo"]),
        Case::new(
            "labels 47: ALLOW when `request.headers[x-t]` values m, not-values n",
            on_gateway(
                "p",
                "ALLOW",
                &when("key = \"request.headers[x-t]\", values = [\"m\"], not-values = [\"n\"]"),
            ),
        )
        .ask("/ | x-t: m", &["echo"])
        .ask("/ | x-t: n", DENIED)
        .ask("/", DENIED),
        Case::new(
            "labels 46: → Gateway wp: ALLOW GET `/ok*`; DENY `/ok/no`",
            on_gateway("a", "ALLOW", &to("methods = [\"GET\"], paths = [\"/ok*\"]"))
                + &on_gateway("d", "DENY", &to("paths = [\"/ok/no\"]")),
        )
        .ask("/okx", &["echo"])
        .ask("/ok/no", DENIED)
        .ask("POST /okx", DENIED),
        Case::new(
            "labels 45: ALLOW other → Service echo, of two behind wp",
            on_echo(
                "p",
                "ALLOW",
                "{ from = [{ source = { namespaces = [\"other\"] } }] }",
            ),
        )
        .ask("/", DENIED)
        .ask("other /", &["echo"])
        .ask("10.96.0.22:80 /", &["v2"]),
        Case::new(
            "labels 43: ALLOW without rules → GatewayClass in ROOT; in shop",
            "[[authorization-policy]]\nname = \"all\"\nnamespace = \"istio-system\"\n\
             target-refs = [{ kind = \"GatewayClass\", name = \"istio-waypoint\" }]\nrules = []\n",
        )
        .ask("/", DENIED)
        .ask("10.96.0.22:80 /", DENIED),
        Case::new(
            "labels 44: refs [Service echo, Service gone]",
            on(
                "{ kind = \"Service\", name = \"echo\" }, { kind = \"Service\", name = \"gone\" }",
                "p",
                "DENY",
                "{}",
            ),
        )
        .ask("/", DENIED),
        Case::new(
            "1.3: x-forwarded-for counts from nobody unless it is trusted",
            on_echo(
                "p",
                "ALLOW",
                "{ from = [{ source = { remote-ip-blocks = [\"192.0.2.0/24\"] } }] }",
            ),
        )
        .ask("/ | X-Forwarded-For: 192.0.2.7", DENIED),
        Case::new(
            "1.3: and from those that are",
            on_echo(
                "p",
                "ALLOW",
                "{ from = [{ source = { remote-ip-blocks = [\"192.0.2.0/24\"] } }] }",
            ),
        )
        .mesh("trusted-proxies = [\"cluster.local/ns/shop/sa/web\"]")
        .ask("/ | X-Forwarded-For: 10.0.0.1, 192.0.2.7", &["echo"])
        .ask("/ | X-Forwarded-For: 192.0.2.7, 10.0.0.1", DENIED)
        .ask("other / | X-Forwarded-For: 192.0.2.7", DENIED)
        .ask("/", DENIED),
    ]
}

fn order() -> Vec<Case> {
    let cors = "P/ -> v1 ; filters = [{ type = \"CORS\", cors = { allow-origins = [\"http://a.example\"], allow-methods = [\"PUT\"] } }]";
    let redirects = "P/ ; filters = [{ type = \"RequestRedirect\", request-redirect = { hostname = \"example.org\" } }]";
    let denies = || on_echo("d", "DENY", "{}");
    vec![
        Case::new(
            "58: any DENY hit on a redirect rule",
            route(&[redirects]) + &denies(),
        )
        .ask("/x", DENIED),
        Case::new("58: on an unrouted path", route(&["P/v1 -> v1"]) + &denies()).ask("/x", DENIED),
        Case::new("1.7: a preflight that policy denies", route(&[cors]) + &denies()).ask(
            "OPTIONS / | Origin: http://a.example | Access-Control-Request-Method: PUT",
            DENIED,
        ),
        Case::new(
            "1.7: policy sees the request as it was asked",
            named(
                "http-route",
                "r",
                "parent-refs = [{ name = \"echo\" }]",
                &["P/public -> v1 ; filters = [{ type = \"URLRewrite\", url-rewrite = { path = { type = \"ReplacePrefixMatch\", replace-prefix-match = \"/private\" } } }]"],
            ) + &on_echo("d", "DENY", &to("paths = [\"/private*\"]")),
        )
        .ask("/public/a", &["v1", "> :path /private/a"])
        .ask("/private/a", DENIED),
        Case::new("a denial leaves the connection open", denies()).also(|bench| {
            let tally = bench.many(super::ECHO, 40, &[]);
            unless(tally.len() == 1 && tally.values().sum::<usize>() == 40, || {
                format!("{tally:?}")
            })
        }),
        Case::new("1.9: gRPC is told in its own terms", denies()).also(|bench| {
            let told: Value = bench.order(&Order::Call {
                to: "10.96.0.20:81".to_owned(),
                path: "/S/M".to_owned(),
                headers: Vec::new(),
                messages: 1,
            });
            let fine = told["status"] == 200
                && told["grpc-status"] == "7"
                && told["grpc-message"] == "RBAC: access denied";
            unless(fine, || told.to_string())
        }),
    ]
}

fn connections() -> Vec<Case> {
    let banner = |bench: &Bench, want: bool| {
        let told: Value = bench.order(&Order::Banner {
            to: "10.96.0.20:90".to_owned(),
            count: 3,
        });
        let by = told["by"].as_object().cloned().unwrap_or_default();
        let open = by.keys().all(|name| name.starts_with("echo-"));
        unless(open == want, || format!("open is not {want}: {told}"))
    };
    let methods = || to("methods = [\"GET\"]");
    vec![
        Case::new(
            "labels 49: HTTP-only DENY → Gateway wp, on a TCP port",
            on_gateway("d", "DENY", &methods()),
        )
        .also(move |bench| banner(bench, false)),
        Case::new(
            "labels 49: HTTP-only ALLOW",
            on_gateway("a", "ALLOW", &methods()),
        )
        .also(move |bench| banner(bench, false)),
        Case::new(
            "a DENY of another port",
            on_gateway("d", "DENY", &to("methods = [\"GET\"], ports = [\"80\"]")),
        )
        .also(move |bench| banner(bench, true))
        .ask("/", DENIED),
    ]
}

fn marks() -> Vec<Case> {
    let dry =
        |name: &str, action: &str, rules: &str| on_echo(name, action, rules) + "dry-run = true\n";
    vec![
        Case::new("3.7: a DENY that is only tried", dry("d", "DENY", "{}"))
            .also(|bench| marked(bench, "would be denied by policy shop/d")),
        Case::new(
            "3.7: an ALLOW that is only tried, of others",
            dry("a", "ALLOW", &to("methods = [\"PUT\"]")),
        )
        .also(|bench| marked(bench, "would be denied: no policy would allow it")),
        Case::new("AUDIT", on_echo("a", "AUDIT", "{}"))
            .also(|bench| marked(bench, "audited by policy shop/a")),
    ]
}

/// Complains unless a request passes and its line in the log says so.
fn marked(bench: &Bench, text: &str) -> Vec<String> {
    let before = bench.logged_by("gate-1");
    let answer = bench.ask("/");
    let mut complaints = unless(answer.is("echo"), || format!("{answer:?}"));
    let lines = bench.logs_since("gate-1", before, text, 1);
    complaints.extend(unless(lines > 0, || format!("no line says {text:?}")));
    complaints
}

/// A stream of the client's that is open, says `open` once it is, and `over` at its end.
fn opened(bench: &Bench, to: &str, asks: &str) -> Session {
    let script = format!(
        "exec 3<>/dev/tcp/{to}; printf '{asks}' >&3; read -r _ <&3; echo open; cat <&3 >/dev/null 2>&1; echo over"
    );
    let command = ["timeout", "20", "bash", "-c", &script];
    let mut session = bench.turn.session("client", Some("web"), &command);
    assert_eq!(session.line().trim(), "open", "{to}");
    session
}

fn open_streams() -> Vec<Case> {
    let upgrade = "GET /chat HTTP/1.1\\r\\nhost: echo\\r\\nconnection: Upgrade\\r\\nupgrade: websocket\\r\\n\
        sec-websocket-version: 13\\r\\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n";
    vec![
        Case::new("4.1: open streams are judged again", "").also(|bench| {
            let mut bytes = opened(bench, "10.96.0.20/90", "");
            let mut socket = opened(bench, "10.96.0.20/80", upgrade);
            let mut other = opened(bench, "10.96.0.21/90", "");
            let before = bench.logged_by("gate-1");
            let nodes = "nodes = [\"gate-1\"]";
            let harmless = on_echo("h", "DENY", &to("paths = [\"/other\"], ports = [\"80\"]"));
            bench.enforce(&harmless, nodes, "").unwrap();
            assert_eq!(
                bench.logs_since("gate-1", before, "policy has changed", 0),
                0
            );
            let denied = on_echo("d", "DENY", &to("ports = [\"90\"]"))
                + &on_echo("e", "DENY", &to("paths = [\"/chat\"], ports = [\"80\"]"));
            bench.enforce(&denied, nodes, "").unwrap();
            let ended = [bytes.line(), socket.line()];
            let lines = bench.logs_since("gate-1", before, "policy has changed", 2);
            let mut complaints = unless(ended.iter().all(|l| l.trim() == "over"), || {
                format!("{ended:?}")
            });
            complaints.extend(unless(lines == 2, || format!("{lines} lines say why")));
            // Whom nobody denies is left alone: it ends once everybody is.
            let all = on_gateway("g", "DENY", "{}");
            bench.enforce(&all, nodes, "").unwrap();
            let last = other.line();
            complaints.extend(unless(last.trim() == "over", || last));
            let lines = bench.logs_since("gate-1", before, "policy has changed", 3);
            complaints.extend(unless(lines == 3, || format!("{lines} lines say why")));
            complaints
        }),
    ]
}

#[test]
fn policies_are_enforced_where_they_are_attached() {
    let cases = [
        paths(),
        normalised(),
        attributes(),
        order(),
        connections(),
        marks(),
        open_streams(),
    ];
    try_all(&cases.into_iter().flatten().collect::<Vec<_>>());
}
