//! Units that start, restart and stop at random on a machine that has sixty or a thousand of them: in the
//! end rules, listeners and reality agree, each is itself to whom it calls, and the node has not grown.

mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use usage::{Use, listening};

use crate::harm::keeper;
use crate::support::{LATEEN, MARKER, Roles, Session, Testbed, Turn, within};

const RIG: &str = r#"
[[host]]
name = "control"
addresses = ["10.77.0.1/16", "fd77::1/64"]

[[host]]
name = "edge-1"
addresses = ["10.77.0.11/16", "fd77::11/64"]
units = true

[[host]]
name = "edge-2"
addresses = ["10.77.0.12/16", "fd77::12/64"]
[[host.namespace]]
name = "store"
addresses = ["10.77.2.12/16", "fd77::2:12/64"]
"#;

const ROLES: Roles = &[
    ("control", &["--control"]),
    ("edge-1", &["--node"]),
    ("edge-2", &["--node"]),
];

const AROUND: &str = r#"
default-namespace = "shop"

[mesh]
service-range = ["10.96.0.0/16", "fd96::/112"]

[[node]]
name = "edge-1"
addresses = ["10.77.0.11", "fd77::11"]
[[node]]
name = "edge-2"
addresses = ["10.77.0.12", "fd77::12"]

[[namespace]]
name = "shop"
dataplane-mode = "ambient"

[[workload]]
name = "store"
service-account = "store"
node = "edge-2"
addresses = ["10.77.2.12", "fd77::2:12"]
labels = { app = "store" }
capture = { netns = "store" }

[[service]]
name = "store"
addresses = ["10.96.0.10"]
ports = [{ port = 80, target-port = 8080 }]
selector = { app = "store" }
"#;

/// The machine's service manager, and the units' programs.
const MANAGER: &str = include_str!("churn/manager.py");
/// Where the units connect to.
const STORE: [&str; 2] = ["10.96.0.10", "80"];
const SEED: &str = "7";
/// Changes a second at most: more than any machine has.
const RATE: &str = "150";
/// Service accounts, which the units share.
const ACCOUNTS: usize = 20;
/// Units that hold a connection whenever they run, at most.
const CONNECTING: usize = 10;
/// Running units that ask in the end.
const ASKING: usize = 50;
/// Longest time between looks at what the processes use.
const LOOK: Duration = Duration::from_secs(10);
/// Longest wait for rules and probes to be as the units are. To list a thousand units takes `nft` a minute.
const SETTLED: Duration = Duration::from_secs(120);

/// The mesh of so many units: three of four are called at a port of their own.
fn mesh(units: usize) -> String {
    let mut mesh = AROUND.to_owned();
    for unit in 0..units {
        let account = unit % ACCOUNTS;
        mesh += &format!(
            "\n[[workload]]\nname = \"u{unit}\"\nservice-account = \"a{account}\"\nnode = \"edge-1\"\n\
             labels = {{ app = \"u{unit}\" }}\ncapture = {{ unit = \"u{unit}.service\" }}\n"
        );
        if unit % 4 > 0 {
            let port = 10_000 + unit;
            mesh += &format!(
                "[[service]]\nname = \"u{unit}\"\nports = [{{ port = 80, target-port = {port} }}]\n\
                 selector = {{ app = \"u{unit}\" }}\n"
            );
        }
    }
    mesh
}

fn start(name: &str, units: usize) -> Testbed {
    let mut testbed = Testbed::up(name, RIG, ROLES);
    testbed.write_mesh_file("mesh.toml", &mesh(units));
    let listen = ["sample", "http-server", "--listen", "[::]:8080"];
    let named = ["--name", "store", "--text", MARKER];
    let server = [&[LATEEN], &listen[..], &named[..]].concat();
    testbed.program("edge-2", Some("store"), &server);
    testbed.run();
    let written = testbed.last_written();
    within(SETTLED, "all of the mesh captured", || {
        let control = testbed.status("control").and_then(|s| s.control);
        let read = control.and_then(|c| c.read);
        let here = |host: &str, workloads: usize, accounts: usize| {
            let node = testbed.status(host).and_then(|s| s.node);
            let there = node.as_ref().is_some_and(|n| {
                n.workloads.len() == workloads
                    && n.workloads.iter().all(|w| w.capture == "captured")
                    && n.certificates.len() >= accounts
                    && n.certificates.iter().all(|c| c.serial.is_some())
            });
            there.then_some(()).ok_or(node)
        };
        if read < Some(written) {
            return Err(None);
        }
        here("edge-1", units, ACCOUNTS.min(units))?;
        here("edge-2", 1, 1)
    });
    testbed
}

/// The program that has units start and stop.
struct Manager(Session);

impl Manager {
    fn of(testbed: &Testbed, units: usize) -> Self {
        // Odd, so that they are of many accounts.
        let every = (units / CONNECTING) | 1;
        let (units, every) = (units.to_string(), every.to_string());
        let [host, port] = STORE;
        let words = [
            "python3", "-c", MANAGER, &units, &every, host, port, SEED, RATE, LATEEN,
        ];
        Self(testbed.session("edge-1", None, &words))
    }

    fn told(&mut self, line: &str) -> Value {
        self.0.say(line);
        let said = self.0.line();
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{line}: {said:?}"))
    }

    fn units(&mut self, line: &str) -> Vec<usize> {
        serde_json::from_value(self.told(line)).unwrap()
    }

    fn done(&mut self, what: &str) -> u64 {
        self.told("done")[what].as_u64().unwrap()
    }

    /// What programs of these units are answered by the service.
    fn asked(&mut self, units: &[usize]) -> BTreeMap<usize, Value> {
        let words: Vec<_> = units.iter().map(usize::to_string).collect();
        let answers = self.told(&format!("asked {}", words.join(" ")));
        serde_json::from_value(answers).unwrap()
    }
}

/// The processes of `edge-1`: its proxy and its keeper.
struct Processes([u32; 2]);

impl Processes {
    fn of(testbed: &Testbed) -> Self {
        let keeper = keeper(testbed, "edge-1").expect("a keeper beside the proxy");
        Self([testbed.process("edge-1"), keeper])
    }

    fn uses(&self) -> [Use; 2] {
        self.0.map(Use::of)
    }
}

/// Waits until no connection is open on `edge-1`.
fn still(testbed: &Testbed) {
    within(SETTLED, "no connection open", || {
        let node = testbed.status("edge-1").and_then(|s| s.node);
        let open = node.map(|n| n.connections);
        if open == Some(0) { Ok(()) } else { Err(open) }
    });
}

/// Has `lateen status` say who runs, and waits until it is these.
fn told_running(testbed: &Testbed, runs: &BTreeSet<usize>, units: usize) {
    within(SETTLED, "status says which units run", || {
        let node = testbed.status("edge-1").and_then(|s| s.node);
        let lines = node.map(|n| n.workloads).unwrap_or_default();
        let wrong = lines.iter().filter(|line| {
            let unit = line
                .name
                .strip_prefix("shop/u")
                .and_then(|n| n.parse().ok());
            let runs = unit.is_some_and(|unit| runs.contains(&unit));
            // One that only has to exist is not probed beyond that.
            let absent = || {
                let reason = line.probe.reason.as_deref().unwrap_or_default();
                line.probe.state != "none" && reason.starts_with("not-running")
            };
            let right = match runs {
                true => line.probe.state == "none",
                false => absent(),
            };
            line.capture != "captured" || !right
        });
        let wrong: Vec<_> = wrong.take(5).collect();
        match wrong.is_empty() && lines.len() == units {
            true => Ok(()),
            false => Err(format!("{} lines, wrong: {wrong:?}", lines.len())),
        }
    });
}

/// The units whose cgroups the rules of `edge-1` name; whatever else they name too.
fn ruled(testbed: &Testbed) -> BTreeSet<String> {
    let list = ["nft", "-j", "list", "table", "inet", "lateen"];
    let listed = testbed.exec("edge-1", None, &list);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let maps = objects.filter(|object| {
        let name = object["map"]["name"].as_str().unwrap_or_default();
        name.starts_with("units_")
    });
    let elements = maps.filter_map(|object| object["map"]["elem"].as_array());
    // Each is a key and a mark. A cgroup that is gone has no path, and a number instead.
    elements
        .flatten()
        .map(|pair| match &pair[0] {
            Value::String(path) => path.clone(),
            other => other.to_string(),
        })
        .collect()
}

/// The rules that the kernel holds name those units, and no others.
fn rules_agree(testbed: &Testbed, runs: &BTreeSet<usize>) {
    let wanted = runs
        .iter()
        .map(|unit| format!("system.slice/u{unit}.service"));
    let wanted: BTreeSet<_> = wanted.collect();
    within(SETTLED, "the rules name the units that run", || {
        let named = ruled(testbed);
        let differ: Vec<_> = named
            .symmetric_difference(&wanted)
            .take(5)
            .cloned()
            .collect();
        match differ.is_empty() {
            true => Ok(()),
            false => Err(format!("{} of {}: {differ:?}", named.len(), wanted.len())),
        }
    });
}

/// Has units ask the service: each is answered, and is itself to its node and to the other.
fn each_is_itself(testbed: &Testbed, manager: &mut Manager, units: &[usize]) {
    let before = ["edge-1", "edge-2"].map(|host| testbed.log(host).len());
    for (unit, said) in manager.asked(units) {
        assert_eq!(said["server"], "store", "u{unit}: {said}");
    }
    let mut accounts = BTreeMap::new();
    for unit in units {
        *accounts.entry(format!("a{}", unit % ACCOUNTS)).or_insert(0) += 1;
    }
    let names: BTreeSet<_> = units.iter().map(|unit| format!("u{unit}")).collect();
    within(SETTLED, "both nodes know who asked", || {
        let [out, inward] = [("edge-1", before[0]), ("edge-2", before[1])]
            .map(|(host, from)| testbed.log(host)[from..].to_owned());
        let complete = |log: &str, direction: &str, key: &str| {
            let lines = log.lines().filter(|line| {
                line.contains("connection complete")
                    && line.contains(direction)
                    && line.contains("dst.workload=\"store\"")
            });
            let value = |line: &str| {
                let rest = line.split_once(key)?.1;
                Some(rest.split_once('"')?.0.to_owned())
            };
            lines.filter_map(value).collect::<Vec<_>>()
        };
        let asked = complete(&out, "outbound", "src.workload=\"");
        let identity = "src.identity=\"spiffe://cluster.local/ns/shop/sa/";
        let mut seen = BTreeMap::new();
        for account in complete(&inward, "inbound", identity) {
            *seen.entry(account).or_insert(0) += 1;
        }
        let each = asked.len() == names.len() && asked.iter().all(|name| names.contains(name));
        if each && seen == accounts {
            Ok(())
        } else {
            Err((asked, seen))
        }
    });
}

/// What the proxy and the keeper used while units changed: after the first tenth of the time, and at most.
struct Used {
    first: [Use; 2],
    most: [Use; 2],
}

/// Has units change for so long.
fn changing(
    testbed: &Testbed,
    manager: &mut Manager,
    processes: &Processes,
    time: Duration,
) -> Used {
    let slice = LOOK.min(time / 10);
    let slices = (time.as_millis() / slice.as_millis()) as usize;
    let (mut first, mut most) = (None, processes.uses());
    for done in 1..=slices {
        manager.told(&format!("churn {}", slice.as_secs_f64()));
        let now = processes.uses();
        most = [most[0].most(now[0]), most[1].most(now[1])];
        if first.is_none() && done * 10 >= slices {
            manager.told("still");
            still(testbed);
            first = Some(processes.uses());
        }
    }
    let first = first.expect("a tenth of the time has passed");
    Used { first, most }
}

fn churn(testbed: &Testbed, units: usize, time: Duration) {
    let mut manager = Manager::of(testbed, units);
    let processes = Processes::of(testbed);
    // Sockets are put in stock once, and kept.
    manager.told(&format!("connected {}", SETTLED.as_secs()));
    manager.told("still");
    let before = listening(testbed.process("edge-1"));
    let Used { first, most } = changing(testbed, &mut manager, &processes, time);
    let (changes, connected) = (manager.done("changes"), manager.done("connected"));
    let begun = Instant::now();
    manager.told("still");
    let runs: BTreeSet<_> = manager.units("runs").into_iter().collect();
    told_running(testbed, &runs, units);
    let settled = begun.elapsed();
    rules_agree(testbed, &runs);
    assert_eq!(listening(testbed.process("edge-1")), before);
    still(testbed);
    let mut last = processes.uses();
    within(SETTLED, "no more in use than before", || {
        last = processes.uses();
        let flat = last.iter().zip(&first).all(|(now, then)| now.is_flat(then));
        if flat { Ok(()) } else { Err([first, last]) }
    });
    let asking = manager.units(&format!("some {}", ASKING.min(runs.len())));
    each_is_itself(testbed, &mut manager, &asking);
    let again = asking[0];
    manager.told(&format!("again {again}"));
    let unit = format!("u{again}.service");
    let wait = [LATEEN, "capture", "wait", "--unit", &unit];
    let known = testbed.exec("edge-1", None, &wait);
    assert!(known.status.success(), "{known:?}");
    each_is_itself(testbed, &mut manager, &[again]);
    assert!(connected > 0, "no unit had a connection");
    for trouble in ["failed", "cut"] {
        let count = manager.done(trouble);
        assert_eq!(count, 0, "{trouble} connections of units that went on");
    }
    assert_eq!(Processes::of(testbed).0, processes.0, "neither has died");
    manager.told("end");
    let of = |at: usize| {
        format!(
            "first {}, at most {}, last {}",
            first[at], most[at], last[at]
        )
    };
    let (proxy, keeper) = (of(0), of(1));
    println!(
        "{units} units, {changes} changes and {connected} connections in {time:?}, settled in {settled:?}; \
         proxy: {proxy}; keeper: {keeper}"
    );
}

/// A rig for each size; `None`, with the reason, where units cannot be had.
fn turn(rig: &'static OnceLock<Mutex<Testbed>>, start: fn() -> Testbed) -> Option<Turn> {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: units of a rig take root");
        return None;
    }
    Some(Turn::on(rig, start))
}

#[test]
fn sixty_units_start_and_stop_at_random() {
    static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    let Some(testbed) = turn(&TESTBED, || start("churn-60", 60)) else {
        return;
    };
    churn(&testbed, 60, Duration::from_secs(6));
}

/// `cargo test --test e2e churn::a_thousand -- --ignored --nocapture`
#[test]
#[ignore = "takes ten minutes"]
fn a_thousand_units_start_and_stop_at_random() {
    static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    let Some(testbed) = turn(&TESTBED, || start("churn-1000", 1000)) else {
        return;
    };
    churn(&testbed, 1000, Duration::from_secs(600));
}
