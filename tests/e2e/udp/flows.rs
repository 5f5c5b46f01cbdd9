//! Many flows of one client, all open at once.

use std::fs;
use std::time::Duration;

use super::{ECHO, SERVICE, TRANSPORTS, WEB, over, serves};
use crate::support::{Session, Testbed, testbed, text, within};

const CLIENT: &str = include_str!("flows.py");
/// Flows of a workload each way.
const MOST: usize = 16_384;
const TOGETHER: &str = "50";

/// Resident memory of a host's lateen, in kB.
fn memory(testbed: &Testbed, host: &str) -> usize {
    let path = format!("/proc/{}/status", testbed.process(host));
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().split(' ').next();
    number.unwrap().parse().unwrap()
}

/// Flows of `web` that a host has open.
fn open(testbed: &Testbed, host: &str) -> usize {
    let told = testbed.lateen(host, &["connections", "-o", "json"]);
    text(&told.stdout).matches("10.77.2.13:7777").count()
}

/// How many were answered, and how many of those that had been before were not.
fn asked(session: &mut Session, word: &str) -> (usize, usize) {
    session.say(word);
    let said = session.line();
    let (answered, gone) = said.split_once(' ').unwrap();
    (answered.parse().unwrap(), gone.parse().unwrap())
}

/// Opens so many, all of which are answered twice, and tells what they take.
fn many(testbed: &Testbed, transport: &str, count: usize) -> Session {
    let hosts = ["edge-1", "edge-2"];
    let before = hosts.map(|host| memory(testbed, host));
    let count_word = count.to_string();
    let words = [
        "python3",
        "-c",
        CLIENT,
        SERVICE[0],
        "7",
        &count_word,
        TOGETHER,
    ];
    let mut session = testbed.session(WEB.0, WEB.1, &words);
    assert_eq!(session.line(), "ready");
    for word in ["first", "again"] {
        assert_eq!(asked(&mut session, word), (count, 0), "{transport}: {word}");
    }
    for (host, before) in hosts.into_iter().zip(before) {
        let each = (memory(testbed, host).saturating_sub(before) << 10) / count;
        eprintln!("{transport}: {count} flows, {each} bytes each at {host}");
        // Those of cases before go meanwhile.
        assert!(open(testbed, host) >= count, "{transport}: {host}");
        assert!(
            each < 128 << 10,
            "{transport}: {each} bytes a flow at {host}"
        );
    }
    session
}

#[test]
fn a_thousand_flows_are_open_at_once() {
    let mut testbed = testbed();
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &["python3", "-c", ECHO], ":7777");
        many(&testbed, transport, 1000);
    }
}

/// All that a workload may have; one more harms none of them, and they go when they are silent.
#[test]
#[ignore = "opens 16,384 flows, and waits for minutes until they end"]
fn as_many_flows_as_there_may_be_are_open_at_once() {
    let mut testbed = testbed();
    for transport in TRANSPORTS {
        // Nodes that have no flow yet.
        for host in ["edge-1", "edge-2"] {
            testbed.kill(host);
            testbed.daemon(host);
        }
        over(&testbed, transport);
        serves(&mut testbed, &["python3", "-c", ECHO], ":7777");
        let mut session = many(&testbed, transport, MOST);
        let one_more = ["python3", "-c", CLIENT, SERVICE[0], "7", "1", "1"];
        let mut another = testbed.session(WEB.0, WEB.1, &one_more);
        assert_eq!(another.line(), "ready");
        assert_eq!(asked(&mut another, "more"), (0, 0), "{transport}");
        testbed.logged("edge-1", &["too many flows of datagrams", "16384"]);
        assert_eq!(asked(&mut session, "still"), (MOST, 0), "{transport}");
        within(Duration::from_secs(180), "silent flows go", || {
            match ["edge-1", "edge-2"].map(|host| open(&testbed, host)) {
                [0, 0] => Ok(()),
                open => Err(open),
            }
        });
        for host in ["edge-1", "edge-2"] {
            eprintln!("{transport}: {} kB after at {host}", memory(&testbed, host));
        }
        assert_eq!(asked(&mut another, "more"), (1, 0), "{transport}");
    }
}
