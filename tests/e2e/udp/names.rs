//! A name server that is a service: dnsmasq, asked by dig.

use std::fs;

use super::{SERVICE, TRANSPORTS, needs, over, prints, serves, tunnelled};
use crate::support::{MARKER, testbed};

/// How often it is asked.
const QUESTIONS: usize = 1000;

/// With answers longer than any packet.
fn server() -> Vec<String> {
    let piece = format!("{MARKER}{}", "a".repeat(200));
    let mut words: Vec<_> = [
        "dnsmasq",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port=5353",
        "--edns-packet-max=4096",
        "--address=/a.example/192.0.2.1",
    ]
    .map(str::to_owned)
    .into();
    words.extend((0..12).map(|n| format!("--txt-record=big.example,{piece}{n}")));
    words
}

#[test]
fn a_name_server_answers_by_datagrams_however_long_and_by_tcp() {
    needs(&["dnsmasq", "dig"]);
    let mut testbed = testbed();
    let command = server();
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let questions = testbed.state().join("questions");
    let lines = (0..QUESTIONS).map(|n| format!("n{n}.a.example\n"));
    fs::write(&questions, lines.collect::<String>()).unwrap();
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &command, ":5353");
        let dig = |at: &str, more: &[&str]| {
            let at = format!("@{at}");
            let words = [&["dig", &at, "+tries=1", "+time=5"], more].concat();
            prints(&testbed, &words)
        };
        tunnelled(&testbed, transport, || {
            for at in SERVICE {
                assert_eq!(
                    dig(at, &["+short", "a.example"]),
                    "192.0.2.1\n",
                    "{transport}"
                );
                for (room, by) in [("+bufsize=4096", "(UDP)"), ("+bufsize=1232", "(TCP)")] {
                    let said = dig(at, &[room, "big.example", "txt"]);
                    assert!(
                        said.contains("ANSWER: 12,") && said.contains(by),
                        "{transport} {at}: {said}"
                    );
                }
            }
            let said = dig(SERVICE[0], &["+short", "-f", questions.to_str().unwrap()]);
            let right = said.lines().filter(|line| *line == "192.0.2.1").count();
            assert_eq!(right, QUESTIONS, "{transport}: {said}");
        });
    }
}
