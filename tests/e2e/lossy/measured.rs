//! What links cost tunnels over TCP and over QUIC, by turns in the same run.

use std::fs;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::{begin, by, client, link, serve};
use crate::support::{Testbed, Turn, testbed};

const WAYS: [&str; 2] = ["tcp", "quic"];
/// How many programs have small requests at a time.
const PROGRAMS: [&str; 2] = ["1", "16"];

/// A link's faults: rules for packets that come, and how fast what leaves may.
struct Link {
    name: &'static str,
    rule: Option<&'static str>,
    shape: Option<&'static str>,
    /// Small requests that are timed.
    asked: &'static str,
    /// Turns of each way; more where the ways are nearer to each other than turns are.
    turns: usize,
    /// Whose small requests are to suffer less over QUIC. Where nothing is lost and nothing waits, the
    /// processors' time decides; at 0.1 % a loss reaches every hundredth request only where more than one
    /// program's wait behind it.
    wins: &'static [&'static str],
}

const ALL: Link = Link {
    name: "",
    rule: None,
    shape: None,
    asked: "1000",
    turns: 3,
    wins: &PROGRAMS,
};

const LINKS: [Link; 7] = [
    Link {
        name: "no loss",
        wins: &[],
        ..ALL
    },
    Link {
        name: "0.1 %",
        rule: Some("numgen random mod 1000 < 1 drop"),
        asked: "4000",
        turns: 5,
        wins: &["16"],
        ..ALL
    },
    Link {
        name: "1 %",
        rule: Some("numgen random mod 100 < 1 drop"),
        ..ALL
    },
    Link {
        name: "3 %",
        rule: Some("numgen random mod 100 < 3 drop"),
        ..ALL
    },
    Link {
        name: "12 MB/s at most",
        rule: Some("limit rate over 12 mbytes/second burst 256 kbytes drop"),
        ..ALL
    },
    Link {
        name: "100 Mbit/s",
        shape: Some("rate 100mbit burst 64kb latency 50ms"),
        asked: "300",
        ..ALL
    },
    Link {
        name: "100 Mbit/s, 0.1 %",
        rule: Some("numgen random mod 1000 < 1 drop"),
        shape: Some("rate 100mbit burst 64kb latency 50ms"),
        asked: "300",
        ..ALL
    },
];

/// Has both hosts' links be like this.
fn be(testbed: &Testbed, like: &Link) {
    // QUIC has the one port at both ends.
    let on = ["tcp dport", "tcp sport", "udp dport"];
    let rules = like.rule.iter();
    let rules = rules.flat_map(|rule| on.map(|of| format!("{of} 15008 {rule}")));
    link(testbed, &rules.collect::<Vec<_>>());
    for host in ["edge-1", "edge-2"] {
        let shaped = match like.shape {
            Some(shape) => format!("tc qdisc replace dev eth0 root tbf {shape}"),
            None => "tc qdisc del dev eth0 root 2>/dev/null || true".to_owned(),
        };
        let output = testbed.exec(host, None, &["sh", "-c", &shaped]);
        assert!(output.status.success(), "{shaped}: {output:?}");
    }
}

/// Time that the processes of both nodes have had of processors.
fn worked(testbed: &Testbed) -> Duration {
    let ticks = ["edge-1", "edge-2"].map(|host| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", testbed.process(host))).unwrap();
        let (_name, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    });
    Duration::from_millis(10 * (ticks[0] + ticks[1]))
}

fn nth(figures: &str, nth: usize) -> u64 {
    let figure = figures.split(' ').nth(nth);
    figure.and_then(|n| n.parse().ok()).unwrap()
}

fn median(mut turns: Vec<u64>) -> u64 {
    turns.sort_unstable();
    turns[turns.len() / 2]
}

/// What is asked of QUIC: that a small request beside bulk suffers less from what is lost.
#[test]
#[ignore = "measures for minutes, and wants a release build and a machine of its own"]
fn lossy_links_hold_up_small_requests_less_over_quic() {
    let mut testbed = testbed();
    begin(&mut testbed);
    let lost: Vec<String> = LINKS.iter().flat_map(|like| on(&testbed, like)).collect();
    be(&testbed, &ALL);
    assert!(lost.is_empty(), "{lost:?}");
}

/// Measures both ways by turns, and says where QUIC was to win and has not.
fn on(testbed: &Testbed, like: &Link) -> Vec<String> {
    let name = like.name;
    let mut p99 = WAYS.map(|_| PROGRAMS.map(|_| Vec::new()));
    for _ in 0..like.turns {
        for (way, transport) in WAYS.into_iter().enumerate() {
            be(testbed, &ALL);
            by(testbed, transport);
            be(testbed, like);
            let one = client(testbed, &["bulk", "1", "20000000"]);
            let many = client(testbed, &["bulk", "64", "500000"]);
            eprintln!("{name:17} {transport:4}  1 flow {one} MB/s  64 flows {many} MB/s");
            for (programs, seen) in PROGRAMS.into_iter().zip(&mut p99[way]) {
                let small = client(testbed, &["small", like.asked, programs]);
                eprintln!(
                    "{name:17} {transport:4}  small of {programs:>2}: p50 p99 p99.9 {small} µs"
                );
                seen.push(nth(&small, 1));
            }
        }
    }
    let [tcp, quic] = p99.map(|of| of.map(median));
    let mut lost = Vec::new();
    for (programs, (tcp, quic)) in PROGRAMS.into_iter().zip(tcp.into_iter().zip(quic)) {
        let figures = format!("{name:17} small of {programs:>2}, medians of p99: {tcp}, {quic} µs");
        eprintln!("{figures}");
        if like.wins.contains(&programs) && quic >= tcp {
            lost.push(figures);
        }
    }
    lost
}

#[test]
#[ignore = "measures, and wants a release build and a machine of its own"]
fn what_a_gigabyte_costs() {
    let mut testbed = testbed();
    begin(&mut testbed);
    cost(&testbed);
}

#[test]
#[ignore = "measures, and wants a release build and a machine of its own"]
fn what_a_gigabyte_costs_on_jumbo_links() {
    static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    let jumbo = || {
        let mut testbed = Testbed::with_mtu(9000);
        serve(&mut testbed);
        testbed
    };
    cost(&Turn::on(&TESTBED, jumbo));
}

fn cost(testbed: &Testbed) {
    for transport in [WAYS, WAYS].concat() {
        by(testbed, transport);
        for flows in [1, 64] {
            let bytes = 1_000_000_000 / flows;
            let before = worked(testbed);
            let words = ["bulk", &flows.to_string(), &bytes.to_string()];
            let rate = client(testbed, &words);
            let cost = (worked(testbed) - before).as_secs_f64();
            eprintln!(
                "{transport:4}  {flows:2} flows  {rate} MB/s  {cost:.2} s of both nodes' for each GB"
            );
        }
    }
}

/// Of `auto` where no datagram passes, against what knows of no other way than TCP.
#[test]
#[ignore = "measures, and wants a release build and a machine of its own"]
fn where_datagrams_are_blocked_connections_take_no_longer() {
    let mut testbed = testbed();
    begin(&mut testbed);
    link(&testbed, &["udp dport 15008 drop".to_owned()]);
    let mut p99 = [Vec::new(), Vec::new()];
    for _ in 0..16 {
        for (way, transport) in ["tcp", "auto"].into_iter().enumerate() {
            by(&testbed, transport);
            let seen = client(&testbed, &["connect", "1000"]);
            eprintln!("{transport:4}  failed p50 p99 {seen} µs");
            assert!(seen.starts_with("0 "), "{transport}: {seen}");
            p99[way].push(nth(&seen, 2));
        }
    }
    link(&testbed, &[]);
    let [tcp, auto] = p99.map(median);
    assert!(
        auto * 100 < tcp * 105,
        "p99 of {auto} µs, {tcp} µs by TCP alone"
    );
}
