//! Datagrams of every length, forged ones, and tunnels that are begun by nobody.

use serde_json::Value;

use super::{ECHO, LEDGER, MESH, OWN, SERVICE, TRANSPORTS, WEB, over, prints, serves, tunnelled};
use crate::programs::client::Order;
use crate::programs::{Program, until_ready};
use crate::support::{MARKER, Testbed, eventually, testbed, text};

const FORGE: &str = include_str!("forge.py");

/// Sends each length to an address and port, and prints those that do not come back.
const LENGTHS: &str = "
import socket,sys
to,port=sys.argv[1],int(sys.argv[2])
s=socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET,socket.SOCK_DGRAM)
s.settimeout(5); s.connect((to,port))
for n in map(int,sys.argv[3:]):
    said=bytes(i*7&255 for i in range(n))
    try:
        s.send(said)
        if s.recv(70000)!=said: print(n,'differs')
    except OSError as e: print(n,e)
";

/// The longest datagram before a path is known to take more.
const DATAGRAM: u64 = 1200;
/// Around what a packet holds inside and outside of tunnels, and the most that UDP does.
const ALL: [&str; 14] = [
    "0", "1", "1172", "1173", "1200", "1371", "1372", "1373", "1472", "1473", "9000", "65000",
    "65487", "65507",
];
/// The most that is carried of IPv6.
const ALL_OF_IPV6: [&str; 4] = ["0", "1452", "1453", "65488"];

#[test]
fn datagrams_of_every_length_come_back_as_they_were() {
    let mut testbed = testbed();
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &["python3", "-c", ECHO], ":7777");
        for (at, lengths) in SERVICE.into_iter().zip([&ALL[..], &ALL_OF_IPV6]) {
            let words = [&["python3", "-c", LENGTHS, at, "7"], lengths].concat();
            let (said, _seen) = tunnelled(&testbed, transport, || prints(&testbed, &words));
            assert_eq!(said, "", "{transport} {at}");
        }
    }
}

/// What the server has heard that begins with this, in order of names.
fn heard(testbed: &Testbed, begins: &str) -> Vec<String> {
    let ask = "import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)
s.connect(('127.0.0.1',7777)); s.send(b'heard?'); sys.stdout.write(s.recv(65535).decode())";
    let said = testbed.exec(LEDGER.0, LEDGER.1, &["python3", "-c", ask]);
    let said: Vec<String> = serde_json::from_slice(&said.stdout).unwrap();
    let mut kinds: Vec<_> = said
        .iter()
        .filter_map(|said| said.strip_prefix(begins)?.split(' ').next())
        .map(str::to_owned)
        .collect();
    kinds.sort();
    kinds
}

/// Forges one of each kind, and waits until those that are let in have come.
fn forge(testbed: &Testbed, from: (&str, Option<&str>), source: &str, by: &str, want: &[&str]) {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (at, port) = match from == WEB {
        true => (SERVICE[0], "7"),
        false => (OWN, "7777"),
    };
    // The number is followed by a space, so that none begins as another does.
    // From outside it is in clear to begin with, and kernels quote it half a minute later, when they give up
    // on pieces: to the address that was forged, where another case listens by then.
    let marker = if from == WEB {
        MARKER
    } else {
        "nothing-secret"
    };
    let text_of_it = format!("forged {marker} {number}");
    let words = ["python3", "-c", FORGE, source, at, port, &text_of_it, by];
    let output = testbed.exec(from.0, from.1, &words);
    assert!(output.status.success(), "{output:?}");
    // A good one, behind whatever was forged.
    let good = ["python3", "-c", LENGTHS, at, port, "100"];
    let output = testbed.exec(from.0, from.1, &good);
    let silent = from != WEB && want.is_empty();
    assert_eq!(output.stdout.is_empty(), !silent, "a good one: {output:?}");
    eventually(&format!("{from:?} as {source} by {by}: {want:?}"), || {
        let heard = heard(testbed, &format!("{text_of_it} "));
        match heard.iter().eq(want) {
            true => Ok(()),
            false => Err(heard),
        }
    });
}

#[test]
fn forged_datagrams_are_let_in_by_nobody_and_never_leave_in_clear() {
    let mut testbed = testbed();
    let good = ["backwards", "pieces", "whole"];
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &["python3", "-c", ECHO], ":7777");
        tunnelled(&testbed, transport, || {
            for (source, by, want) in [
                ("10.77.1.11", "packets", &good[..]),
                ("10.77.1.11", "pieces", &["whole"]),
                ("10.77.1.11", "frames", &[]),
                ("10.77.1.12", "packets", &[]),
                ("10.77.1.12", "frames", &[]),
                ("10.77.2.13", "packets", &[]),
            ] {
                forge(&testbed, WEB, source, by, want);
            }
        });
    }
    // In plain text an address proves nothing, and nobody is asked to believe it.
    let outside = ("outside", None);
    forge(&testbed, outside, "10.77.0.99", "pieces", &good);
    let strict = "[[peer-authentication]]\nname = \"ledger\"\nnamespace = \"shop\"\n\
        selector = { match-labels = { app = \"ledger\" } }\nmtls = { mode = \"STRICT\" }\n";
    testbed.write_mesh_file("policy.toml", &format!("{MESH}{strict}"));
    testbed.settled();
    for source in ["10.77.0.99", "10.77.1.11", "10.77.2.13"] {
        forge(&testbed, outside, source, "pieces", &[]);
    }
}

/// Whoever gives another's address has little sent there (RFC 9000 §8.1): quinn sends whole what it begins
/// within the limit, so that it may be a datagram more.
#[test]
fn who_has_not_been_heard_is_answered_with_thrice_as_much_at_most() {
    let mut testbed = testbed();
    over(&testbed, "quic");
    serves(&mut testbed, &["python3", "-c", ECHO], ":7777");
    let client = Program::Client.command();
    let client: Vec<_> = client.iter().map(String::as_str).collect();
    let mut session = testbed.session("outside", None, &client);
    until_ready(&mut session);
    let to = format!("{OWN}:15008");
    session.say(&serde_json::to_string(&Order::Begin { to }).unwrap());
    let said: Vec<Value> = serde_json::from_str(&session.line()).unwrap();
    assert!(said.len() > 70, "{said:?}");
    let number = |one: &Value, key: &str| one[key].as_u64().unwrap();
    let mut answered = Vec::new();
    for one in &said {
        let (sent, heard) = (number(one, "sent"), number(one, "heard"));
        assert!(heard <= 3 * sent + DATAGRAM, "{one}");
        if heard > 0 {
            answered.push(one["name"].as_str().unwrap());
        }
    }
    for (name, wanted) in [
        ("whole", true),
        ("another version", true),
        ("truncated", false),
        ("empty", false),
        ("version negotiation", false),
    ] {
        assert_eq!(answered.contains(&name), wanted, "{name}: {said:?}");
    }
    let words = ["python3", "-c", LENGTHS, SERVICE[0], "7", "100"];
    let (silent, _seen) = tunnelled(&testbed, "quic", || {
        text(&testbed.exec(WEB.0, WEB.1, &words).stdout)
    });
    assert_eq!(silent, "", "a good call after it");
}
