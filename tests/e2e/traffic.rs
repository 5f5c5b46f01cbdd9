//! Unmodified programs talk through the mesh.

use std::collections::BTreeMap;

use crate::support::{LATEEN, MARKER, Testbed, field, testbed, text, tunnels};

#[test]
fn a_service_is_answered_by_its_endpoints_in_turn_who_see_the_client_itself() {
    let testbed = testbed();
    for (name, vip, client) in [
        ("IPv4", "10.96.0.10:80", "10.77.1.11"),
        ("IPv6", "[fd96::10]:80", "fd77::1:11"),
    ] {
        let answers = testbed.ask("edge-1", Some("web"), vip, 10);
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for answer in &answers {
            *count.entry(field(answer, "server")).or_default() += 1;
            assert_eq!(field(answer, "client"), client, "{name}: {answer}");
        }
        let even = BTreeMap::from([("cart-1".to_owned(), 5), ("cart-2".to_owned(), 5)]);
        assert_eq!(count, even, "{name}: {answers:?}");
    }
}

#[test]
fn only_tunnels_cross_the_link_and_no_answer_is_readable() {
    let testbed = testbed();
    let (answers, seen) = testbed.tapped(|| {
        let mut answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 6);
        answers.extend(testbed.ask("edge-1", Some("web"), "10.77.2.12:8080", 2));
        answers.extend(testbed.ask("edge-1", Some("web"), "[fd77::2:12]:8080", 2));
        answers
    });
    assert!(answers.iter().all(|a| a.contains(MARKER)), "{answers:?}");
    assert_eq!(seen.marked, 0, "{seen:?}");
    assert!(seen.kinds.contains_key(tunnels()), "{seen:?}");
    let other = |kind: &&String| {
        kind.starts_with("tcp/") && !["tcp/15008", "tcp/15012"].contains(&kind.as_str())
    };
    let other: Vec<&String> = seen.kinds.keys().filter(other).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn neighbours_need_no_tunnel_and_are_told_of_as_if_they_had_one() {
    let mut testbed = testbed();
    // One that holds no tunnel of a case before, when only one of both was there.
    testbed.kill("edge-1");
    testbed.daemon("edge-1");
    testbed.settled();
    for (ip, to, client) in [
        ("10.77.1.12", "10.77.1.12:8080", "10.77.1.11"),
        ("[fd77::1:12]", "[fd77::1:12]:8080", "fd77::1:11"),
    ] {
        let answers = testbed.ask("edge-1", Some("web"), to, 3);
        for answer in &answers {
            assert_eq!(field(answer, "server"), "cart-1", "{answers:?}");
            assert_eq!(field(answer, "client"), client, "{answers:?}");
        }
        let (wire, target) = (format!("dst.addr={ip}:15008"), format!("\"{to}\""));
        for direction in ["outbound", "inbound"] {
            let words = [
                "connection complete",
                "src.identity=\"spiffe://cluster.local/ns/shop/sa/web\"",
                "dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
                "src.workload=\"web\"",
                "dst.workload=\"cart-1\"",
                &wire,
                &target,
                direction,
            ];
            testbed.logged("edge-1", &words);
        }
    }
    let sockets = ["ss", "-Htn", "state", "established", "sport = :15008"];
    let tunnels = text(&testbed.exec("edge-1", Some("cart-1"), &sockets).stdout);
    assert!(!tunnels.contains("10.77.1.11"), "{tunnels}");
    assert!(!tunnels.contains("fd77::1:11"), "{tunnels}");
    // Last, since it leaves a tunnel behind.
    a_borrowed_address_is_not_passed_on(&testbed);
}

/// An address that a program gave itself is not believed: such a connection goes by tunnel, which
/// shows whom answers went to.
fn a_borrowed_address_is_not_passed_on(testbed: &Testbed) {
    let address = |verb| {
        let words = ["ip", "address", verb, "10.77.1.99/32", "dev", "lo"];
        let done = testbed.exec("edge-1", Some("web"), &words);
        assert!(done.status.success(), "{done:?}");
    };
    let script = "import socket\n\
        s=socket.create_connection(('10.77.1.12',8080),5,('10.77.1.99',0))\n\
        s.sendall(b'GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n')\n\
        print(s.makefile().read().splitlines()[-1])\n";
    address("add");
    let asked = testbed.exec("edge-1", Some("web"), &["python3", "-c", script]);
    address("del");
    let answer = text(&asked.stdout);
    assert_eq!(field(answer.trim(), "client"), "10.77.1.11", "{asked:?}");
}

#[test]
fn the_tap_would_see_clear_text() {
    let testbed = testbed();
    let (_, seen) = testbed.tapped(|| testbed.ask("edge-1", None, "10.77.0.99:8080", 1));
    assert!(
        seen.marked > 0 && seen.kinds.contains_key("tcp/8080"),
        "{seen:?}"
    );
}

#[test]
fn outside_reaches_in_and_the_mesh_reaches_out_in_plain_text() {
    let testbed = testbed();
    let inward = testbed.ask("outside", None, "10.77.1.12:8080", 2);
    assert_eq!(field(&inward[0], "server"), "cart-1", "{inward:?}");
    assert_eq!(field(&inward[0], "client"), "10.77.0.99", "{inward:?}");
    let inward = testbed.ask("outside", None, "[fd77::1:12]:8080", 1);
    assert_eq!(field(&inward[0], "client"), "fd77::99", "{inward:?}");
    let outward = testbed.ask("edge-1", Some("web"), "10.77.0.99:8080", 2);
    assert_eq!(field(&outward[0], "server"), "outside", "{outward:?}");
    assert_eq!(field(&outward[0], "client"), "10.77.1.11", "{outward:?}");
}

#[test]
fn a_workload_reaches_itself_by_every_name_it_has() {
    let testbed = testbed();
    for to in [
        "127.0.0.1:8080",
        "10.77.1.12:8080",
        "[::1]:8080",
        "[fd77::1:12]:8080",
    ] {
        let answers = testbed.ask("edge-1", Some("cart-1"), to, 1);
        assert_eq!(field(&answers[0], "server"), "cart-1", "{to}: {answers:?}");
    }
    let by_service = testbed.ask("edge-1", Some("cart-1"), "10.96.0.10:80", 2);
    let servers: Vec<String> = by_service.iter().map(|a| field(a, "server")).collect();
    assert!(servers.contains(&"cart-1".to_owned()), "{by_service:?}");
}

#[test]
fn many_connections_at_once_all_work() {
    let testbed = testbed();
    let words = [
        LATEEN,
        "sample",
        "tcp-many",
        "10.96.0.11:7000",
        "--connections",
        "1000",
    ];
    let tally = testbed.exec("edge-1", Some("web"), &words);
    let said = text(&tally.stdout);
    assert!(
        tally.status.success() && said.contains("\"good\":1000"),
        "{said}"
    );
}

#[test]
fn a_large_body_arrives_whole_both_ways_of_reaching_it() {
    let testbed = testbed();
    for to in ["10.96.0.10:80", "10.77.2.12:8080"] {
        let words = [
            LATEEN,
            "sample",
            "http-client",
            to,
            "--path",
            "/bytes/5000000",
            "--count",
            "1",
        ];
        let output = testbed.exec("edge-1", Some("web"), &words);
        let body = text(&output.stdout);
        assert_eq!(body.trim_end().len(), 5_000_000, "{to}");
    }
}

#[test]
fn what_cannot_be_reached_is_refused_and_the_log_says_why() {
    let testbed = testbed();
    for (name, to, reason) in [
        (
            "a port the service has not",
            "10.96.0.10:81",
            "has no port 81",
        ),
        ("a port nobody listens on", "10.77.2.12:9", "503"),
        (
            "the proxy itself",
            "127.0.0.1:15001",
            "is this proxy itself",
        ),
    ] {
        let answers = testbed.ask("edge-1", Some("web"), to, 1);
        assert!(answers[0].contains("error"), "{name}: {answers:?}");
        testbed.logged("edge-1", &[reason]);
    }
}

#[test]
fn metrics_name_both_ends() {
    let testbed = testbed();
    testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 4);
    let words = [
        LATEEN,
        "sample",
        "http-client",
        "127.0.0.1:15020",
        "--path",
        "/metrics",
        "--count",
        "1",
    ];
    let page = text(&testbed.exec("edge-1", None, &words).stdout);
    let flows = lateen::demo::metrics::flows(&page);
    let expected = |f: &lateen::demo::metrics::Flow| {
        f.source_principal == "spiffe://cluster.local/ns/shop/sa/web"
            && f.destination_principal == "spiffe://cluster.local/ns/shop/sa/cart"
            && f.security == "mutual_tls"
            && f.service == "cart"
    };
    assert!(flows.keys().any(expected), "{flows:?}");
    let ready = [
        LATEEN,
        "sample",
        "http-client",
        "127.0.0.1:15021",
        "--path",
        "/healthz/ready",
        "--count",
        "1",
    ];
    assert_eq!(
        text(&testbed.exec("edge-1", None, &ready).stdout).trim(),
        "ready"
    );
}
