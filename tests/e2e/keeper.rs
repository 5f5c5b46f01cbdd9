//! The keeper beside the proxy, as one program: either is killed, and captured traffic is served or
//! refused, and never let past.

use std::fs;
use std::time::{Duration, Instant};

use lateen::status::KeeperLine;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Testbed, eventually, testbed, text};

/// How often each death is died.
const ROUNDS: usize = 10;
/// Within what everything is as before.
const SOON: Duration = Duration::from_secs(1);
/// A service with an endpoint on either node.
const CART: &str = "10.96.0.10:80";

fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let listed = fs::read_to_string(path).unwrap_or_default();
    let ids = listed.split_whitespace().map(|id| id.parse().unwrap());
    ids.collect()
}

/// The keeper beside a host's proxy: the child of whoever starts it again.
pub(crate) fn keeper(testbed: &Testbed, host: &str) -> Option<u32> {
    let watcher = children(testbed.process(host));
    watcher.iter().flat_map(|w| children(*w)).next()
}

fn line(testbed: &Testbed) -> Option<KeeperLine> {
    let node = testbed.status("edge-1").and_then(|s| s.node);
    node.and_then(|n| n.keeper)
}

fn kill(process: u32) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(process.unwrap(), Signal::KILL).unwrap();
}

fn served(testbed: &Testbed) -> Result<(), Vec<String>> {
    let answers = testbed.ask("edge-1", Some("web"), CART, 2);
    match answers.len() == 2 && answers.iter().all(|a| a.contains("server")) {
        true => Ok(()),
        false => Err(answers),
    }
}

/// Within a second as a rule; where others have the processors, a round may take longer.
fn at_once(mut took: Vec<Duration>) {
    took.sort_unstable();
    let usual = took[took.len() / 2];
    let longest = took[took.len() - 1];
    assert!(usual < SOON && longest < SOON * 5, "{took:?}");
}

#[test]
fn a_killed_keeper_is_replaced_and_traffic_goes_on() {
    let testbed = testbed();
    served(&testbed).unwrap();
    let mut took = Vec::new();
    let ((), seen) = testbed.tapped(|| {
        for _round in 0..ROUNDS {
            let before = keeper(&testbed, "edge-1").expect("a keeper beside the proxy");
            kill(before);
            let begun = Instant::now();
            eventually("another keeper", || match keeper(&testbed, "edge-1") {
                Some(now) if now != before => Ok(()),
                other => Err(other),
            });
            eventually("traffic as before", || served(&testbed));
            took.push(begun.elapsed());
            eventually("the proxy knows it", || match line(&testbed) {
                Some(line) if line.connected => Ok(()),
                other => Err(other),
            });
        }
    });
    at_once(took);
    assert_eq!(seen.marked, 0, "{seen:?}");
    testbed.logged("edge-1", &["the keeper died, starting another"]);
    let node = testbed.status("edge-1").and_then(|s| s.node).unwrap();
    let captured = node.workloads.iter().all(|w| w.capture == "captured");
    assert!(captured, "{node:?}");
}

#[test]
fn a_killed_proxys_traffic_is_refused_until_it_is_back() {
    let mut testbed = testbed();
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let before = keeper(&testbed, "edge-1").expect("a keeper beside the proxy");
        testbed.kill("edge-1");
        let ((), seen) = testbed.tapped(|| {
            for to in ["10.77.2.12:8080", "[fd77::2:12]:8080", "10.77.0.99:8080"] {
                let answers = testbed.ask("edge-1", Some("web"), to, 1);
                let got = answers.iter().any(|a| a.contains("server"));
                assert!(!got, "round {round}: {answers:?}");
            }
        });
        assert_eq!(seen.marked, 0, "round {round}: {seen:?}");
        eventually("the keeper ends with its proxy", || {
            let state = fs::read_to_string(format!("/proc/{before}/status")).unwrap_or_default();
            match state.is_empty() || state.contains("State:\tZ") {
                true => Ok(()),
                false => Err(state),
            }
        });
        let begun = Instant::now();
        testbed.daemon("edge-1");
        eventually("traffic again", || served(&testbed));
        took.push(begun.elapsed());
    }
    at_once(took);
    testbed.settled();
}

#[test]
fn rules_that_somebody_flushes_are_back_within_a_second() {
    let testbed = testbed();
    let listed = |testbed: &Testbed| {
        let table = ["nft", "list", "table", "inet", "lateen"];
        text(&testbed.exec("edge-1", Some("web"), &table).stdout)
    };
    let mut took = Vec::new();
    for _round in 0..ROUNDS {
        let flushed = testbed.exec("edge-1", Some("web"), &["nft", "flush", "ruleset"]);
        assert!(flushed.status.success(), "{flushed:?}");
        let begun = Instant::now();
        eventually("the rules are back", || match listed(&testbed) {
            now if now.contains("chain outbound_guard") => Ok(()),
            now => Err(now),
        });
        took.push(begun.elapsed());
        served(&testbed).unwrap();
    }
    at_once(took);
}
