//! Harm done under load, again and again: rules are flushed, the table of connections is full, the
//! keeper is killed, the proxy is killed. What becomes of connections, for how long, and that nothing
//! captured is ever on the wire in clear.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use lateen::rig::tap::Seen;
use lateen::status::KeeperLine;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::support::{Session, Testbed, Turn, eventually, testbed, text, tunnels};

/// How often each harm is done where `LATEEN_HARMS` does not say.
const ROUNDS: usize = 5;
/// Within what everything is as before.
const SOON: Duration = Duration::from_secs(1);
/// A service with an endpoint on either node, and the endpoint beyond the link by its own addresses:
/// what is there answers in clear whoever comes in clear.
const CALLED: [&str; 3] = ["10.96.0.10:80", "10.77.2.12:8080", "[fd77::2:12]:8080"];
const ECHO: &str = "10.96.0.11:7000";
const LOAD: &str = include_str!("harm/load.py");

/// What became of connections since a harm was done.
#[derive(Debug, Deserialize)]
struct Told {
    served: u64,
    /// New connections that failed, by what programs were told.
    failed: BTreeMap<String, u64>,
    /// Milliseconds from the harm to the last of those.
    recovered: u64,
    /// Milliseconds that the slowest took.
    slowest: u64,
    /// Connections that had been open, and ended.
    lost: u64,
}

/// The load of one case, on the rig that most cases share.
struct Bench {
    testbed: Turn,
    load: Session,
}

impl Bench {
    fn new() -> Self {
        let testbed = testbed();
        let mut words = vec!["python3", "-c", LOAD, "0.01", ECHO];
        words.extend(CALLED);
        let load = testbed.session("edge-1", Some("web"), &words);
        let mut bench = Self { testbed, load };
        bench.serves("load", 100);
        bench
    }

    fn ask(&mut self, what: &str) -> Told {
        self.load.say(what);
        serde_json::from_str(&self.load.line()).unwrap()
    }

    /// Waits until `count` more are served and none failed for a while.
    fn serves(&mut self, what: &str, count: u64) -> Told {
        let (mut before, mut since) = (u64::MAX, 0);
        let mut told = None;
        eventually(&format!("{what}: served as before"), || {
            let now = self.ask("told");
            let failed = now.failed.values().sum();
            if failed != before {
                (before, since) = (failed, now.served);
            }
            match now.served >= since + count {
                true => {
                    told = Some(now);
                    Ok(())
                }
                false => Err(now),
            }
        });
        told.unwrap()
    }
}

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

#[allow(
    clippy::disallowed_methods,
    reason = "how the full number is asked for"
)]
fn rounds() -> usize {
    let told = std::env::var("LATEEN_HARMS").ok();
    told.map_or(ROUNDS, |n| n.parse().unwrap())
}

/// What is known of all rounds of one harm.
#[derive(Default)]
struct Rounds {
    told: Vec<Told>,
    /// Frames that gave away an answer.
    marked: u64,
}

/// Does harm again and again, each time with what an operator does about it, if anything.
fn harmed(bench: &mut Bench, what: &str, mut harm: impl FnMut(&mut Testbed)) -> Rounds {
    let mut rounds_of = Rounds::default();
    for round in 0..rounds() {
        let (told, seen) = tapped(bench, |bench| {
            bench.ask("from");
            harm(&mut bench.testbed);
            bench.serves(what, 30)
        });
        rounds_of.marked += seen.marked;
        assert!(seen.kinds.contains_key(tunnels()), "{round}: {seen:?}");
        rounds_of.told.push(told);
    }
    rounds_of.print(what);
    rounds_of
}

fn tapped<T>(bench: &mut Bench, work: impl FnOnce(&mut Bench) -> T) -> (T, Seen) {
    let tap = bench.testbed.tap();
    let outcome = work(bench);
    (outcome, tap.seen())
}

impl Rounds {
    fn sorted(&self, of: impl Fn(&Told) -> u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.told.iter().map(of).collect();
        all.sort_unstable();
        all
    }

    /// The table for whoever runs this for its figures.
    fn print(&self, what: &str) {
        let mut failed: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in self.told.iter().flat_map(|t| &t.failed) {
            *failed.entry(kind).or_default() += count;
        }
        let served: u64 = self.told.iter().map(|t| t.served).sum();
        let lost: u64 = self.told.iter().map(|t| t.lost).sum();
        let [recovered, slowest] = [self.sorted(|t| t.recovered), self.sorted(|t| t.slowest)];
        let middle = self.told.len() / 2;
        let last = self.told.len() - 1;
        println!(
            "{what}, {} times: served {served}, failed {failed:?}, open ones lost {lost}; ms until the last failure: \
             median {}, most {}; ms of the slowest connection: median {}, most {}; frames in clear {}",
            self.told.len(),
            recovered[middle],
            recovered[last],
            slowest[middle],
            slowest[last],
            self.marked
        );
    }

    /// So soon as a rule; where others have the processors, a round may take longer.
    fn within(&self, soon: Duration) {
        let took = self.sorted(|t| t.recovered.max(t.slowest));
        let (usual, longest) = (took[took.len() / 2], took[took.len() - 1]);
        let soon = soon.as_millis() as u64;
        assert!(usual < soon && longest < soon * 5, "{took:?}");
    }

    fn failed(&self) -> u64 {
        self.told.iter().flat_map(|t| t.failed.values()).sum()
    }

    fn lost(&self) -> u64 {
        self.told.iter().map(|t| t.lost).sum()
    }
}

#[test]
fn a_killed_keeper_is_replaced_and_no_connection_knows_of_it() {
    let mut bench = Bench::new();
    let rounds = harmed(&mut bench, "keeper killed", |testbed| {
        let before = keeper(testbed, "edge-1").expect("a keeper beside the proxy");
        kill(before);
        eventually("another keeper", || match keeper(testbed, "edge-1") {
            Some(now) if now != before => Ok(()),
            other => Err(other),
        });
        eventually("the proxy knows it", || match line(testbed) {
            Some(line) if line.connected => Ok(()),
            other => Err(other),
        });
    });
    rounds.within(SOON);
    assert_eq!((rounds.failed(), rounds.lost(), rounds.marked), (0, 0, 0));
    let testbed = &bench.testbed;
    testbed.logged("edge-1", &["the keeper died, starting another"]);
    let node = testbed.status("edge-1").and_then(|s| s.node).unwrap();
    let captured = node.workloads.iter().all(|w| w.capture == "captured");
    assert!(captured, "{node:?}");
}

#[test]
fn a_killed_proxys_traffic_is_refused_until_it_is_back() {
    let mut bench = Bench::new();
    let rounds = harmed(&mut bench, "proxy killed", |testbed| {
        let before = keeper(testbed, "edge-1").expect("a keeper beside the proxy");
        testbed.kill("edge-1");
        for to in CALLED.into_iter().chain(["10.77.0.99:8080"]) {
            let answers = testbed.ask("edge-1", Some("web"), to, 1);
            let got = answers.iter().any(|a| a.contains("server"));
            assert!(!got, "{to}: {answers:?}");
        }
        eventually("the keeper ends with its proxy", || {
            let state = fs::read_to_string(format!("/proc/{before}/status")).unwrap_or_default();
            match state.is_empty() || state.contains("State:\tZ") {
                true => Ok(()),
                false => Err(state),
            }
        });
        testbed.daemon("edge-1");
    });
    assert_eq!(rounds.marked, 0);
    assert!(rounds.failed() > 0, "nobody noticed");
    rounds.within(SOON);
    bench.testbed.settled();
}

/// Flushes the rules of `web` again and again, beside which programs get out for that moment.
fn flushed(bench: &mut Bench, what: &str) -> Rounds {
    let listed = |testbed: &Testbed| {
        let table = ["nft", "list", "table", "inet", "lateen"];
        text(&testbed.exec("edge-1", Some("web"), &table).stdout)
    };
    let mut back = Vec::new();
    let rounds = harmed(bench, what, |testbed| {
        let flushed = testbed.exec("edge-1", Some("web"), &["nft", "flush", "ruleset"]);
        assert!(flushed.status.success(), "{flushed:?}");
        let begun = Instant::now();
        eventually("the rules are back", || match listed(testbed) {
            now if now.contains("chain outbound_guard") => Ok(()),
            now => Err(now),
        });
        back.push(begun.elapsed());
    });
    back.sort_unstable();
    let (usual, longest) = (back[back.len() / 2], back[back.len() - 1]);
    println!("{what}: back after {usual:?} as a rule, {longest:?} at most");
    rounds
}

#[test]
fn rules_that_somebody_flushes_are_back_at_once_and_strict_ones_let_nothing_by_meanwhile() {
    let mut bench = Bench::new();
    flushed(&mut bench, "rules flushed").within(SOON);
    drop(bench);
    let mut strict = testbed();
    let config = strict.config("edge-1");
    let usual = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{usual}\n[capture]\nstrict = true\n")).unwrap();
    strict.kill("edge-1");
    drop(strict);
    let mut bench = Bench::new();
    let rounds = flushed(&mut bench, "rules flushed, strict");
    fs::write(&config, usual).unwrap();
    bench.testbed.kill("edge-1");
    assert_eq!(rounds.marked, 0);
    // What is dropped in that moment comes again by itself, after a second.
    rounds.within(2 * SOON);
}

/// The most connections that the machine's kernel tracks in each network; as before once dropped.
struct MostTracked(String);

impl MostTracked {
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    fn one() -> std::io::Result<Self> {
        let before = fs::read_to_string(Self::PATH)?;
        fs::write(Self::PATH, "1")?;
        Ok(Self(before))
    }
}

impl Drop for MostTracked {
    fn drop(&mut self) {
        let _as_before = fs::write(Self::PATH, &self.0);
    }
}

#[test]
#[ignore = "stops new connections of the whole machine for moments"]
fn where_no_more_connections_are_tracked_new_ones_wait_and_open_ones_go_on() {
    let mut bench = Bench::new();
    let mut rounds_of = Rounds::default();
    for _round in 0..rounds() {
        let (told, seen) = tapped(&mut bench, |bench| {
            bench.ask("from");
            let full = MostTracked::one().expect("root sets it");
            let mut before = None;
            eventually("nobody new gets through", || {
                std::thread::sleep(Duration::from_millis(200));
                let served = bench.ask("told").served;
                match before.replace(served) == Some(served) {
                    true => Ok(()),
                    false => Err(served),
                }
            });
            bench.ask("from");
            drop(full);
            bench.serves("tracked again", 30)
        });
        rounds_of.marked += seen.marked;
        rounds_of.told.push(told);
    }
    rounds_of.print("connections full");
    assert_eq!(
        (rounds_of.failed(), rounds_of.lost(), rounds_of.marked),
        (0, 0, 0)
    );
    // They come again by themselves, one, three and seven seconds after they first tried.
    let slowest = rounds_of.sorted(|t| t.slowest);
    assert!(slowest[slowest.len() / 2] < 4_000, "{slowest:?}");
}
