//! Endpoints that fail their probes get no traffic, and get it again once they pass.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lateen::status::ServiceLine;

use crate::support::{LATEEN, Session, Testbed, eventually, field, testbed, text};

/// Time between probes here, and by when everybody must have heard of a change.
const INTERVAL: &str = "1s";
const BOUND: Duration = Duration::from_secs(2);

const CARTS: [(&str, &str); 2] = [("edge-1", "cart-1"), ("edge-2", "cart-2")];
const CLIENTS: [(&str, &str); 2] = [("edge-1", "web"), ("edge-2", "ledger")];

/// Gives a cart this health check instead of the one it has.
fn check(testbed: &Testbed, cart: &str, check: &str) {
    let shop = std::fs::read_to_string(testbed.mesh_dir().join("shop.toml")).unwrap();
    let capture = format!("capture = {{ netns = \"{cart}\" }}\n");
    let (before, rest) = shop.split_once(&capture).unwrap();
    let (has, after) = rest.split_once('\n').unwrap();
    assert!(has.starts_with("health = "), "{has}");
    let checked = format!("{before}{capture}health = {{ {check} }}\n{after}");
    testbed.write_mesh_file("shop.toml", &checked);
}

/// What answers a cart's probe, until dropped.
fn answer_probes(testbed: &Testbed, (host, cart): (&str, &str)) -> Session {
    let command = [LATEEN, "sample", "tcp-echo", "--listen", "[::]:8081"];
    testbed.session(host, Some(cart), &command)
}

/// Both carts are probed on a port of their own, and pass.
fn probed(testbed: &Testbed) -> [Session; 2] {
    let answering = CARTS.map(|cart| answer_probes(testbed, cart));
    for (host, cart) in CARTS {
        let tcp = format!("tcp = 8081, interval = \"{INTERVAL}\", start-timeout = \"0s\"");
        check(testbed, cart, &tcp);
        until(testbed, (host, cart), "passing");
    }
    answered_by(testbed, &["cart-1", "cart-2"]);
    answering
}

/// Waits until a node says so of a cart's probe; its reason.
fn until(testbed: &Testbed, (host, cart): (&str, &str), state: &str) -> Option<String> {
    let mut reason = None;
    eventually(&format!("{cart} is {state}"), || {
        let node = testbed.status(host).and_then(|s| s.node).ok_or(None)?;
        let name = format!("shop/{cart}");
        let line = node.workloads.into_iter().find(|w| w.name == name);
        match line {
            Some(line) if line.probe.state == state => {
                reason = line.probe.reason;
                Ok(())
            }
            other => Err(other),
        }
    });
    reason
}

/// Waits until every client is answered by all of these and nobody else. Each question is answered
/// meanwhile, by whomever.
fn answered_by(testbed: &Testbed, carts: &[&str]) {
    let carts: BTreeSet<String> = carts.iter().map(ToString::to_string).collect();
    eventually(&format!("{carts:?} answer"), || {
        for (host, client) in CLIENTS {
            let answers = testbed.ask(host, Some(client), "10.96.0.10:80", 4);
            assert!(answers.iter().all(|a| a.contains("server")), "{answers:?}");
            let servers: BTreeSet<_> = answers.iter().map(|a| field(a, "server")).collect();
            if servers != carts {
                return Err(answers);
            }
        }
        Ok(())
    });
}

fn cart_service(testbed: &Testbed) -> Option<ServiceLine> {
    let control = testbed.status("control").and_then(|s| s.control)?;
    let mut services = control.endpoints.into_iter();
    services.find(|s| s.name == "shop/cart.shop.mesh.internal")
}

#[test]
fn an_endpoint_that_fails_gets_no_traffic_until_it_passes_again() {
    let testbed = testbed();
    let [first, _second] = probed(&testbed);
    let stopped = Instant::now();
    drop(first);
    answered_by(&testbed, &["cart-2"]);
    let took = stopped.elapsed();
    assert!(took < BOUND, "left alone after {took:?}");
    let reason = until(&testbed, CARTS[0], "failing").unwrap();
    assert!(reason.starts_with("refused: 10.77.1.12:8081"), "{reason}");
    let status = testbed.lateen("edge-1", &["status"]);
    assert_eq!(status.status.code(), Some(1), "an operator is needed");
    assert!(text(&status.stdout).contains(&reason), "{status:?}");
    let service = cart_service(&testbed).unwrap();
    assert_eq!((service.healthy, service.total), (1, 2));
    let started = Instant::now();
    let _first = answer_probes(&testbed, CARTS[0]);
    answered_by(&testbed, &["cart-1", "cart-2"]);
    let took = started.elapsed();
    assert!(took < BOUND, "back after {took:?}");
    let log = testbed.log("edge-1");
    let carried = log
        .lines()
        .find(|line| line.contains(":8081") && line.contains("access"));
    assert_eq!(carried, None, "probes are nobody's traffic");
}

#[test]
fn all_endpoints_are_used_while_all_fail() {
    let testbed = testbed();
    drop(probed(&testbed));
    eventually("the service uses all", || match cart_service(&testbed) {
        Some(s) if s.healthy == 0 && s.total == 2 => Ok(()),
        other => Err(other),
    });
    let status = testbed.lateen("control", &["status"]);
    let shown = text(&status.stdout);
    assert!(
        shown.contains("all endpoints failing, using all"),
        "{shown}"
    );
    assert_eq!(status.status.code(), Some(1), "an operator is needed");
    answered_by(&testbed, &["cart-1", "cart-2"]);
    let _second = answer_probes(&testbed, CARTS[1]);
    answered_by(&testbed, &["cart-2"]);
}

#[test]
fn each_kind_of_probe_asks_in_the_workloads_own_network() {
    let testbed = testbed();
    let started = "interval = \"200ms\", start-timeout = \"0s\"";
    let http = |path: &str| format!("http = \"{path}\", port = 8080, {started}");
    check(&testbed, "cart-1", &http("/healthz"));
    until(&testbed, CARTS[0], "passing");
    let place = "ip -br address | grep -q 10.77.2.12";
    let powers = "grep -qE 'Cap(Prm|Eff|Amb):.*[1-9a-f]' /proc/self/status";
    let script = format!("exec = [\"sh\", \"-c\", \"{place} && ! {powers}\"], {started}");
    check(&testbed, "cart-2", &script);
    until(&testbed, CARTS[1], "passing");
    let shop = std::fs::read_to_string(testbed.mesh_dir().join("shop.toml")).unwrap();
    let broken = shop.replace("/healthz", "/bytes/none");
    let broken = broken.replace(place, "echo not here; false");
    testbed.write_mesh_file("shop.toml", &broken);
    let reason = until(&testbed, CARTS[0], "failing").unwrap();
    assert_eq!(reason, "http-status: answered 400 Bad Request");
    let reason = until(&testbed, CARTS[1], "failing").unwrap();
    assert_eq!(reason, "exit-status: exit status: 1: not here");
}

#[test]
fn nobody_is_sent_to_a_node_that_is_told_to_stop() {
    let mut testbed = testbed();
    let words = [
        "sample",
        "http-client",
        "10.96.0.10:80",
        "--every",
        "5",
        "--count",
        "400",
    ];
    let command = [&[LATEEN][..], &words].concat();
    let mut client = testbed.session("edge-1", Some("web"), &command);
    let mut answers: Vec<String> = (0..20).map(|_| client.line()).collect();
    let drains = |testbed: &Testbed| testbed.log("edge-2").matches("draining").count();
    let before = drains(&testbed);
    testbed.stop("edge-2");
    eventually("it drains", || match drains(&testbed) {
        now if now > before => Ok(()),
        now => Err(now),
    });
    let service = cart_service(&testbed).unwrap();
    assert_eq!((service.healthy, service.total), (1, 2), "told before");
    testbed.ended("edge-2");
    answers.extend((20..400).map(|_| client.line()));
    let servers: Vec<String> = answers.iter().map(|a| field(a, "server")).collect();
    let count = |name: &str| servers.iter().filter(|s| *s == name).count();
    assert_eq!(count("cart-1") + count("cart-2"), 400, "{answers:?}");
    assert!(count("cart-2") >= 10, "it was used until then");
    assert_eq!(servers.last().map(String::as_str), Some("cart-1"));
    testbed.daemon("edge-2");
    testbed.settled();
    answered_by(&testbed, &["cart-1", "cart-2"]);
}
