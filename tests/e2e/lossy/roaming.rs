//! What becomes of tunnels whose host speaks from another address all of a sudden, as behind another
//! uplink.

use std::fs;

use super::{CLIENT, WEB, begin, by, link};
use crate::support::{Testbed, eventually, testbed, text};

/// Another address of `web`'s.
const ELSEWHERE: &str = "10.77.1.111";
const DOWNLOADS: &str = "100";

/// Starts both nodes anew, with or without the key.
fn roaming(testbed: &mut Testbed, roams: bool) {
    for host in ["edge-1", "edge-2"] {
        let config = testbed.config(host);
        let text = fs::read_to_string(&config).unwrap();
        let plain = text.replace("\nroaming = true\n", "\n");
        let said = plain.replacen("\nuser =", "\nroaming = true\nuser =", 1);
        assert_ne!(said, plain, "{plain}");
        fs::write(&config, if roams { said } else { plain }).unwrap();
        testbed.stop(host);
        testbed.ended(host);
        testbed.daemon(host);
    }
}

/// Runs each in `web`'s namespace.
fn web(testbed: &Testbed, commands: &[&[&str]]) {
    for command in commands {
        let output = testbed.exec(WEB.0, WEB.1, command);
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

/// Tunnel packets that have come from the other address.
fn moved(testbed: &Testbed) -> u64 {
    let listed = testbed.exec("edge-2", None, &["nft", "list", "table", "netdev", "loss"]);
    let listed = text(&listed.stdout);
    let counted = listed.split("counter packets ").nth(1).unwrap_or_default();
    let counted = counted.split(' ').next().unwrap_or_default();
    counted.parse().unwrap_or_else(|_| panic!("{listed}"))
}

/// What the nodes have said last of connections that failed.
fn failures(testbed: &Testbed) -> Vec<String> {
    let logs = ["edge-1", "edge-2"].map(|host| testbed.log(host));
    let lines = logs.iter().flat_map(|log| {
        let failed = log.lines().filter(|line| line.contains("ERROR access"));
        failed.rev().take(3)
    });
    lines.map(str::to_owned).collect()
}

#[test]
fn downloads_outlive_a_change_of_address() {
    let mut testbed = testbed();
    begin(&mut testbed);
    roaming(&mut testbed, true);
    by(&testbed, "quic");
    link(
        &testbed,
        &[format!("ip saddr {ELSEWHERE} udp dport 15008 counter")],
    );
    let to = format!("{ELSEWHERE}/16");
    web(&testbed, &[&["ip", "addr", "add", &to, "dev", "eth0"]]);
    let words = ["python3", "-c", CLIENT, "held", DOWNLOADS, "1500000"];
    let mut downloads = testbed.session(WEB.0, WEB.1, &words);
    let begun = downloads.line();
    let early = moved(&testbed);
    let told = failures(&testbed);
    let route = |from| {
        [
            "ip",
            "route",
            "replace",
            "10.77.0.0/16",
            "dev",
            "eth0",
            "src",
            from,
        ]
    };
    web(&testbed, &[&route(ELSEWHERE)]);
    downloads.say("go");
    let broken = downloads.line();
    let came = moved(&testbed);
    link(&testbed, &[]);
    web(
        &testbed,
        &[
            &route("10.77.1.11"),
            &["ip", "addr", "del", &to, "dev", "eth0"],
        ],
    );
    roaming(&mut testbed, false);
    eventually("tunnels as before", || {
        let asked = testbed.exec(WEB.0, WEB.1, &["python3", "-c", CLIENT, "connect", "1"]);
        let told = text(&asked.stdout);
        told.starts_with("0 ").then_some(()).ok_or(told)
    });
    assert_eq!(
        (begun.as_str(), early),
        (DOWNLOADS, 0),
        "how many have begun: {told:?}"
    );
    assert_eq!(broken, "0", "broken downloads");
    assert!(came > 100, "{came} packets came from there");
}
