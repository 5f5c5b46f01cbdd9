//! Names: of the mesh and of everybody else, as programs of captured workloads and of a host ask for
//! them, while name servers are slow, lie or are gone.

use std::fs;

use serde_json::Value;

use crate::programs::Program;
use crate::programs::name_server::NameServer;
use crate::support::{LATEEN, Session, Testbed, Turn, eventually, field, testbed, text};

/// A server that is nowhere: what is captured never gets there.
const NOWHERE: [&str; 2] = ["192.0.2.53:53", "[2001:db8::53]:53"];
/// Where the host's own programs ask.
const HOST: &str = "127.0.0.1:15053";

/// What a name server says to a program on `edge-1`: the code, the flags and the records, sorted.
fn ask(testbed: &Testbed, namespace: Option<&str>, words: &[&str]) -> String {
    let words = [&[LATEEN, "sample", "dns"][..], words].concat();
    let output = testbed.exec("edge-1", namespace, &words);
    let said = text(&output.stdout);
    let value: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{output:?}"));
    if let Some(error) = value["error"].as_str() {
        return error.to_owned();
    }
    let list = |key: &str| -> Vec<String> {
        let all = value[key].as_array().unwrap().iter();
        all.map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let mut records = list("records");
    records.sort();
    let code = value["code"].as_str().unwrap();
    let all = [vec![code.to_owned()], list("flags"), records].concat();
    all.join(" ")
}

/// Has programs of `edge-1`, those of its workloads among them, ask this server.
fn nameserver(testbed: &Testbed, address: &str) {
    let file = testbed.state().join("resolv.conf");
    fs::write(&file, format!("nameserver {address}\n")).unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&file, readable).unwrap();
    let file = file.to_str().unwrap();
    let mounted = "cmp -s \"$0\" /etc/resolv.conf || mount --bind \"$0\" /etc/resolv.conf";
    let done = testbed.exec("edge-1", None, &["sh", "-c", mounted, file]);
    assert!(done.status.success(), "{done:?}");
}

/// The rig with a name server outside the mesh.
fn named() -> (Turn, Session) {
    let testbed = testbed();
    nameserver(&testbed, "10.77.0.99");
    let command = Program::NameServer(NameServer { port: 53 }).command();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut server = testbed.session("outside", None, &command);
    crate::programs::until_ready(&mut server);
    eventually("the server is asked", || {
        match ask(
            &testbed,
            Some("web"),
            &["x.good.test", "--server", NOWHERE[0]],
        ) {
            said if said.contains("192.0.2.7") => Ok(()),
            other => Err(other),
        }
    });
    (testbed, server)
}

#[test]
fn programs_reach_services_by_their_names_whomever_they_ask() {
    let (testbed, _server) = named();
    let vip = |name: &str| format!("NOERROR aa ra rd {name}. 30 A 10.96.0.10");
    for server in NOWHERE {
        for (words, want) in [
            (&["cart"][..], vip("cart")),
            (&["cart.shop"], vip("cart.shop")),
            (&["cart.shop.mesh.internal"], vip("cart.shop.mesh.internal")),
            (&["Cart.Shop", "--tcp"], vip("Cart.Shop")),
            (&["cart", "--edns"], vip("cart")),
            (
                &["cart", "--type", "AAAA"],
                "NOERROR aa ra rd cart. 30 AAAA fd96::10".to_owned(),
            ),
            (&["cart", "--type", "MX"], "NXDOMAIN ra rd".to_owned()),
            (&["nobody"], "NXDOMAIN ra rd".to_owned()),
            (
                &["cart.shop.shop.mesh.internal"],
                "NOERROR aa ra rd cart.shop. 30 A 10.96.0.10 \
                 cart.shop.shop.mesh.internal. 30 CNAME cart.shop."
                    .to_owned(),
            ),
        ] {
            let words = [words, &["--server", server]].concat();
            assert_eq!(ask(&testbed, Some("web"), &words), want, "{words:?}");
        }
    }
    // As any program does, by way of the C library.
    for host in ["cart:80", "cart.shop:80", "cart.shop.mesh.internal:80"] {
        let answers = testbed.ask("edge-1", Some("web"), host, 2);
        let good = answers
            .iter()
            .all(|a| field(a, "server").starts_with("cart-"));
        assert!(good && answers.len() == 2, "{host}: {answers:?}");
    }
    let curl = [
        "sh",
        "-c",
        "command -v curl >/dev/null || exit 99; exec curl -sS http://cart/",
    ];
    let output = testbed.exec("edge-1", Some("web"), &curl);
    match output.status.code() {
        Some(99) => eprintln!("skipped: `curl` is not installed"),
        _ => {
            // It is free to come by either family.
            let client = field(&text(&output.stdout), "client");
            let own = ["10.77.1.11", "fd77::1:11"];
            assert!(own.contains(&&*client), "{output:?}");
        }
    }
    let identity = "src.identity=\"spiffe://cluster.local/ns/shop/sa/web\"";
    testbed.logged(
        "edge-1",
        &["connection complete", identity, "cart.shop.mesh.internal"],
    );
}

#[test]
fn the_rest_of_the_world_is_asked_and_nothing_is_believed_that_was_not_asked() {
    let (testbed, _server) = named();
    let good = "NOERROR ra rd x.good.test. 2 A 192.0.2.7";
    for (name, words, want) in [
        (
            "by UDP",
            &["y.good.test"][..],
            "NOERROR ra rd y.good.test. 2 A 192.0.2.7",
        ),
        (
            "by TCP",
            &["z.good.test", "--tcp"],
            "NOERROR ra rd z.good.test. 2 A 192.0.2.7",
        ),
        (
            "late",
            &["x.slow.test"],
            "NOERROR ra rd x.slow.test. 2 A 192.0.2.7",
        ),
        ("no such name", &["x.none.test"], "NXDOMAIN ra rd"),
        ("another number", &["x.number.test"], "SERVFAIL ra rd"),
        ("another question", &["x.question.test"], "SERVFAIL ra rd"),
        ("a loop", &["x.loop.test"], "SERVFAIL ra rd"),
        ("9,000 octets", &["x.huge.test"], "SERVFAIL ra rd"),
        ("4,000 addresses", &["x.many.test"], "NOERROR ra rd tc"),
    ] {
        let words = [words, &["--server", NOWHERE[0]]].concat();
        let said = ask(&testbed, Some("web"), &words);
        assert_eq!(said, want, "{name}");
    }
    let many = ["x.many.test", "--tcp", "--server", NOWHERE[0]];
    let all = ask(&testbed, Some("web"), &many);
    assert_eq!(all.matches("192.0.2.7").count(), 4000);
    drop(_server);
    // Two seconds are over, or will be: while nobody is there, what was known goes on to be said.
    eventually("an answer past its end", || {
        let said = ask(
            &testbed,
            Some("web"),
            &["x.good.test", "--server", NOWHERE[0]],
        );
        match said == good.replace(" 2 A", " 30 A") {
            true => Ok(()),
            false => Err(said),
        }
    });
    let unknown = ask(
        &testbed,
        Some("web"),
        &["w.good.test", "--server", NOWHERE[0]],
    );
    assert_eq!(unknown, "SERVFAIL ra rd");
    let metrics = [
        LATEEN,
        "sample",
        "http-client",
        "127.0.0.1:15020",
        "--path",
        "/metrics",
        "--count",
        "1",
    ];
    let page = text(&testbed.exec("edge-1", None, &metrics).stdout);
    for name in [
        "istio_dns_requests_total{request_query_type=\"A\",request_protocol=\"udp\",source_canonical_service=\"web\"",
        "istio_dns_upstream_requests_total{",
        "istio_dns_upstream_failures_total{",
        "istio_dns_upstream_request_duration_seconds_bucket{",
        "lateen_dns_stale_answers_total ",
    ] {
        assert!(page.contains(name), "{name}: {page}");
    }
}

/// Asks for names at a rate while a server treats them so; how many got which answer.
fn load(testbed: &Testbed, domain: &str, seconds: u32, different: u32) -> Value {
    let (seconds, different) = (seconds.to_string(), different.to_string());
    let words = [
        LATEEN,
        "sample",
        "dns-many",
        domain,
        "--rate",
        "200",
        "--seconds",
        &seconds,
        "--different",
        &different,
        "--server",
        NOWHERE[0],
    ];
    let output = testbed.exec("edge-1", Some("web"), &words);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn under_load(seconds: u32) {
    let (testbed, server) = named();
    let whole = u64::from(200 * seconds);
    for (domain, code) in [
        ("good.test", "NOERROR"),
        ("slow.test", "NOERROR"),
        ("question.test", "SERVFAIL"),
    ] {
        let tally = load(&testbed, domain, seconds, 50);
        println!("{domain}: {tally}");
        assert_eq!(tally["codes"][code], whole, "{domain}: {tally}");
        // What the mesh knows does not wait for those who know nothing.
        let begun = std::time::Instant::now();
        let cart = ask(&testbed, Some("web"), &["cart", "--server", NOWHERE[0]]);
        assert!(cart.contains("10.96.0.10"), "{cart}");
        assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
    }
    let silent = load(&testbed, "silent.test", seconds, u32::MAX);
    println!("silent.test: {silent}");
    assert_eq!(silent["codes"]["SERVFAIL"], whole, "{silent}");
    drop(server);
    let gone = load(&testbed, "good.test", seconds, 50);
    println!("gone: {gone}");
    assert_eq!(gone["codes"]["NOERROR"], whole, "{gone}");
    let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 4);
    assert!(answers.iter().all(|a| a.contains("server")), "{answers:?}");
}

#[test]
fn two_hundred_names_a_second_are_answered_whatever_servers_do() {
    under_load(4);
}

/// `spec/reliability.md` §4.2, row 22. `cargo test --test e2e dns::for_a_minute -- --ignored --nocapture`
#[test]
#[ignore = "takes six minutes"]
fn for_a_minute_two_hundred_names_a_second_are_answered_whatever_servers_do() {
    under_load(60);
}

#[test]
fn who_is_not_to_be_answered_asks_as_before() {
    let (testbed, _server) = named();
    let shop = fs::read_to_string(testbed.mesh_dir().join("shop.toml")).unwrap();
    let web = "labels = { app = \"web\" }";
    for (name, line) in [
        ("a key", format!("{web}\ndns-capture = false")),
        (
            "a label",
            "labels = { app = \"web\", \"ambient.istio.io/dns-capture\" = \"false\" }".to_owned(),
        ),
    ] {
        assert!(shop.contains(web));
        testbed.write_mesh_file("shop.toml", &shop.replace(web, &line));
        eventually("questions go where they are sent to", || {
            let said = ask(
                &testbed,
                Some("web"),
                &["cart", "--server", "10.77.0.99:53"],
            );
            match said == "NXDOMAIN ra rd" {
                true => Ok(()),
                false => Err(said),
            }
        });
        let rules = testbed.exec(
            "edge-1",
            Some("web"),
            &["nft", "list", "table", "inet", "lateen"],
        );
        let rules = text(&rules.stdout);
        assert!(
            rules.contains("15001") && !rules.contains("15053"),
            "{name}: {rules}"
        );
        testbed.write_mesh_file("shop.toml", &shop);
        testbed.settled();
    }
}

#[test]
fn without_the_node_nobody_is_asked() {
    let (mut testbed, _server) = named();
    testbed.kill("edge-1");
    for words in [&["x.good.test"][..], &["x.good.test", "--tcp"], &["cart"]] {
        let words = [words, &["--server", "10.77.0.99:53"]].concat();
        let said = ask(&testbed, Some("web"), &words);
        assert!(said.contains("refused"), "{words:?}: {said}");
    }
    testbed.daemon("edge-1");
    testbed.settled();
    let said = ask(&testbed, Some("web"), &["cart", "--server", NOWHERE[0]]);
    assert!(said.contains("10.96.0.10"), "{said}");
}

#[test]
fn programs_of_the_host_are_answered_for_names_that_mean_the_same_to_all() {
    let (testbed, _server) = named();
    for (words, want) in [
        (
            &["cart.shop.mesh.internal"][..],
            "NOERROR aa ra rd cart.shop.mesh.internal. 30 A 10.96.0.10",
        ),
        (
            &["cart.shop", "--tcp"],
            "NOERROR aa ra rd cart.shop. 30 A 10.96.0.10",
        ),
        (&["cart"], "NXDOMAIN ra rd"),
        (&["none.shop.mesh.internal"], "NXDOMAIN aa ra rd"),
        (&["x.good.test"], "NOERROR ra rd x.good.test. 2 A 192.0.2.7"),
    ] {
        for server in [HOST, "[::1]:15053"] {
            let words = [words, &["--server", server]].concat();
            let said = ask(&testbed, None, &words);
            // A second may have gone by.
            assert_eq!(said.replace(" 1 A", " 2 A"), want, "{words:?}");
        }
    }
}
