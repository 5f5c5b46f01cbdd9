//! UDP between workloads, by real programs: through tunnels, judged by policies, never in clear.

use std::collections::BTreeMap;

use crate::support::{MARKER, Testbed, eventually, testbed, text, tunnels};

/// A service that has UDP ports alone, and one that is called by its endpoints' addresses too.
const MESH: &str = "
[[service]]
name = \"echo\"
namespace = \"shop\"
addresses = [\"10.96.0.77\", \"fd96::77\"]
ports = [{ port = 77, target-port = 7777, protocol = \"udp\" }]
selector = { app = \"cart\" }
";

const DENIED: &str = "
[[authorization-policy]]
name = \"no-datagrams\"
namespace = \"shop\"
action = \"DENY\"
selector = { match-labels = { app = \"cart\" } }
rules = [{ from = [{ source = { principals = [\"cluster.local/ns/shop/sa/web\"] } }], to = [{ operation = { ports = [\"7777\"] } }] }]
";

/// Answers with its name, who it thinks asked, and what it was sent.
const SERVER: &str = "
import socket,sys
s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0)
s.bind(('::',7777))
while True:
    data,peer=s.recvfrom(65535)
    s.sendto(('%s %s '%(sys.argv[1],peer[0])).encode()+data,peer)
";

/// Asks each destination as often as told, from one socket each, and prints the answers; `silence` where
/// none comes.
const CLIENT: &str = "
import socket,sys
to,port,times,size=sys.argv[1],int(sys.argv[2]),int(sys.argv[3]),int(sys.argv[4])
text=sys.argv[5].encode().ljust(size,b'.')
family=socket.AF_INET6 if ':' in to else socket.AF_INET
for n in range(times):
    s=socket.socket(family,socket.SOCK_DGRAM)
    s.settimeout(2)
    s.connect((to,port))
    try:
        s.send(text)
        data=s.recv(65535)
        print(data[:80].decode().split('.secret')[0], len(data))
    except Exception as e:
        print('silence',type(e).__name__)
    s.close()
";

fn ask(
    testbed: &Testbed,
    from: (&str, Option<&str>),
    to: &str,
    times: usize,
    size: usize,
) -> Vec<String> {
    let (ip, port) = to.rsplit_once(':').unwrap();
    let ip = ip.trim_matches(['[', ']']);
    let (times, size) = (times.to_string(), size.to_string());
    let words = ["python3", "-c", CLIENT, ip, port, &times, &size, MARKER];
    let output = testbed.exec(from.0, from.1, &words);
    text(&output.stdout).lines().map(str::to_owned).collect()
}

const WEB: (&str, Option<&str>) = ("edge-1", Some("web"));

/// The shared rig with the service in it, and its servers.
fn begin(testbed: &mut Testbed) {
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(|| {
        for (host, name) in [("edge-1", "cart-1"), ("edge-2", "cart-2")] {
            testbed.program(host, Some(name), &["python3", "-c", SERVER, name]);
        }
    });
    put(testbed, MESH);
    eventually("datagrams are carried", || {
        let mut answers = ask(testbed, WEB, "10.96.0.77:77", 1, 40);
        answers.extend(ask(testbed, WEB, "[fd96::77]:77", 1, 40));
        match answers.iter().all(|answer| answer.starts_with("cart-")) {
            true => Ok(()),
            false => Err((
                answers,
                testbed.log("edge-1").lines().last().map(str::to_owned),
            )),
        }
    });
}

fn put(testbed: &Testbed, mesh: &str) {
    testbed.write_mesh_file("policy.toml", mesh);
}

#[test]
fn what_programs_send_reaches_endpoints_in_turn_and_nobody_reads_it() {
    let mut testbed = testbed();
    begin(&mut testbed);
    for (to, client) in [
        ("10.96.0.77:77", "::ffff:10.77.1.11"),
        ("[fd96::77]:77", "fd77::1:11"),
    ] {
        let (answers, seen) = testbed.tapped(|| ask(&testbed, WEB, to, 10, 60));
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for answer in &answers {
            let words: Vec<_> = answer.split(' ').collect();
            *count.entry(words[0]).or_default() += 1;
            assert_eq!(words[1], client, "{answer}");
            assert!(words[2].contains(MARKER), "{answer}");
        }
        assert_eq!(
            count,
            BTreeMap::from([("cart-1", 5), ("cart-2", 5)]),
            "{answers:?}"
        );
        assert_eq!(seen.marked, 0, "{seen:?}");
        assert!(seen.kinds.contains_key(tunnels()), "{seen:?}");
        for kind in ["udp/77", "udp/7777"] {
            assert!(!seen.kinds.contains_key(kind), "{seen:?}");
        }
    }
    // To an endpoint by its own address, and more than a packet holds.
    for size in [1_400, 20_000, 60_000] {
        let answers = ask(&testbed, WEB, "10.77.2.12:7777", 2, size);
        let whole = |answer: &String| {
            let length = answer
                .rsplit(' ')
                .next()
                .and_then(|n| n.parse::<usize>().ok());
            answer.starts_with("cart-2 ") && length.is_some_and(|n| n >= size)
        };
        assert!(answers.iter().all(whole), "{size}: {answers:?}");
    }
    let open = testbed.lateen("edge-2", &["connections", "-o", "json"]);
    assert!(text(&open.stdout).contains("10.77.2.12:7777"), "{open:?}");
}

#[test]
fn policies_judge_datagrams_by_port_and_principal() {
    let mut testbed = testbed();
    begin(&mut testbed);
    let denied = |what: &str, from, wanted: bool| {
        eventually(what, || {
            let answers = ask(&testbed, from, "10.77.2.12:7777", 1, 40);
            match answers[0].starts_with("silence") == wanted {
                true => Ok(()),
                false => Err(answers),
            }
        });
    };
    put(&testbed, &format!("{MESH}{DENIED}"));
    denied("web is refused", WEB, true);
    denied("another is not", ("edge-2", Some("ledger")), false);
    testbed.logged("edge-2", &["inbound", "policy", "no-datagrams", "7777"]);
    // TCP to the same workload is another port's.
    let answers = testbed.ask("edge-1", Some("web"), "10.77.2.12:8080", 1);
    assert!(answers[0].contains("cart-2"), "{answers:?}");
    put(&testbed, MESH);
    denied("web is let in again", WEB, false);
}

#[test]
fn who_is_outside_is_let_in_in_plain_text_unless_policy_forbids() {
    let mut testbed = testbed();
    begin(&mut testbed);
    let outside = ("outside", None);
    let answers = ask(&testbed, outside, "10.77.2.12:7777", 2, 40);
    for answer in &answers {
        assert!(
            answer.starts_with("cart-2 ::ffff:10.77.0.99 "),
            "{answers:?}"
        );
    }
    let strict = "[[peer-authentication]]\nname = \"cart\"\nnamespace = \"shop\"\n\
        selector = { match-labels = { app = \"cart\" } }\nmtls = { mode = \"STRICT\" }\n";
    put(&testbed, &format!("{MESH}{strict}"));
    eventually("strict keeps it out", || {
        let answers = ask(&testbed, outside, "10.77.2.12:7777", 1, 40);
        match answers[0].starts_with("silence") {
            true => Ok(()),
            false => Err(answers),
        }
    });
    let answers = ask(&testbed, WEB, "10.77.2.12:7777", 1, 40);
    assert!(
        answers[0].starts_with("cart-2"),
        "tunnels are let in: {answers:?}"
    );
}

#[test]
fn what_is_no_port_of_the_mesh_passes_as_it_is() {
    let mut testbed = testbed();
    begin(&mut testbed);
    testbed.program("outside", None, &["python3", "-c", SERVER, "outside"]);
    eventually("past the mesh", || {
        let answers = ask(&testbed, WEB, "10.77.0.99:7777", 1, 40);
        match answers[0].starts_with("outside ::ffff:10.77.1.11 ") {
            true => Ok(()),
            false => Err(answers),
        }
    });
}
