//! What becomes of requests and connections at a waypoint: the vectors of `spec/waypoint-l7.md` §11 and
//! the conformance tests of §10, with ordinary clients and servers around the real binary.
//!
//! Each case is written as mesh files, in place, and tried once its revision is in force; all that a
//! table finds wrong is told at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::programs::client::{Many, Order, Tally};
use crate::programs::echo::Echo;
use crate::programs::{Program, until_ready};
use crate::support::{Roles, Session, Testbed, Turn, eventually, text};

mod answer;
mod authorization;
mod case;
mod connections;
mod custom;
mod egress;
mod hostile;
mod limits;
mod load;
mod matching;
mod outer;
mod protocols;
mod resilience;
mod rewriting;
mod shares;
mod telemetry;
mod tokens;
mod traffic;
mod virtual_services;
mod written;

const RIG: &str = r#"
[[host]]
name = "control"
addresses = ["10.77.0.1/16"]

[[host]]
name = "client"
addresses = ["10.77.0.11/16"]
[[host.namespace]]
name = "web"
addresses = ["10.77.1.11/16"]
[[host.namespace]]
name = "other"
addresses = ["10.77.1.12/16"]

[[host]]
name = "server-1"
addresses = ["10.77.0.12/16"]
[[host.namespace]]
name = "echo-1"
addresses = ["10.77.2.11/16"]
[[host.namespace]]
name = "echo-2"
addresses = ["10.77.2.12/16"]
[[host.namespace]]
name = "v1"
addresses = ["10.77.2.21/16"]
[[host.namespace]]
name = "v2"
addresses = ["10.77.2.22/16"]
[[host.namespace]]
name = "v3"
addresses = ["10.77.2.23/16"]

[[host]]
name = "server-2"
addresses = ["10.77.0.13/16"]
[[host.namespace]]
name = "far"
addresses = ["10.77.3.11/16"]

[[host]]
name = "gate-1"
addresses = ["10.77.0.21/16"]

[[host]]
name = "gate-2"
addresses = ["10.77.0.22/16"]

[[host]]
name = "outside"
addresses = ["10.77.0.99/16"]
"#;

const ROLES: Roles = &[
    ("control", &["--control"]),
    ("client", &["--node"]),
    ("server-1", &["--node"]),
    ("server-2", &["--node"]),
    ("gate-1", &["--waypoint", "shop/wp"]),
    ("gate-2", &["--waypoint", "shop/wp"]),
];

/// The service whose routes these are, by its first port.
const ECHO: &str = "10.96.0.20:80";
/// The outer port of the waypoint.
const GATE: &str = "10.77.0.21:15008";
/// Where servers tell what they have received.
const LOG: u16 = 8099;

/// The running mesh, and a client in it.
struct Bench {
    turn: Turn,
    client: Mutex<Session>,
}

impl Bench {
    fn new() -> Self {
        static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
        let turn = Turn::on(&TESTBED, start);
        let client = Mutex::new(client(&turn, "web"));
        let bench = Self { turn, client };
        bench.enforce("", "nodes = [\"gate-1\"]", "").unwrap();
        bench
    }

    /// Puts rules in force at the waypoint and at the client's node.
    ///
    /// # Errors
    /// What the control plane says of them, or whoever does not have them in time.
    fn enforce(&self, rules: &str, gateway: &str, settings: &str) -> Result<(), String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let text = written::mesh(rules, gateway, number);
        let text = text.replacen("[mesh]\n", &format!("[mesh]\n{settings}\n"), 1);
        self.turn.write_mesh_file("mesh.toml", &text);
        let written = self.turn.last_written();
        let mark = format!("\"other/mark-{number}\"");
        let deadline = Instant::now() + Duration::from_secs(10);
        for host in ["gate-1", "client"] {
            while !self.has(host, &mark) {
                let control = self.turn.status("control").and_then(|s| s.control);
                let control = control.ok_or("no control plane")?;
                if control.stale && control.read > Some(written) {
                    return Err(format!("is not in force: {}", control.problems));
                }
                if Instant::now() > deadline {
                    let node = control.nodes.iter().find(|n| n.name == host);
                    return Err(format!("does not come to {host}: {node:?}"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn has(&self, host: &str, mark: &str) -> bool {
        let listed = self.turn.lateen(host, &["policies", "-o", "json"]);
        text(&listed.stdout).contains(mark)
    }

    /// Has the client in the mesh do something.
    fn order<T: DeserializeOwned>(&self, order: &Order) -> T {
        let mut client = self.client.lock().unwrap();
        client.say(&serde_json::to_string(order).unwrap());
        let said = client.line();
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    /// Who answers `count` requests, and how.
    fn many(&self, to: &str, count: usize, headers: &[(&str, &str)]) -> Tally {
        let headers = headers.iter();
        self.order(&Order::Many(Many {
            to: to.to_owned(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: headers
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            body: String::new(),
            count,
            connections: 4,
        }))
    }

    /// What a server has received with a key.
    fn received(&self, server: &str, key: &str) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{LOG}/{key}");
        let asked = self
            .turn
            .exec("server-1", Some(server), &["curl", "-s", &url]);
        serde_json::from_slice(&asked.stdout).unwrap()
    }

    /// The same, once there is so much of it.
    fn receives(&self, server: &str, key: &str, count: usize) -> Result<Vec<Value>, String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let received = self.received(server, key);
            if received.len() == count {
                return Ok(received);
            }
            if Instant::now() > deadline {
                return Err(format!("{server} has {} of {count}", received.len()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How long a host's log is by now.
    fn logged_by(&self, host: &str) -> usize {
        self.turn.log(host).len()
    }

    /// How many lines with `part` a host has logged since its log was so long, once it is `least`.
    fn logs_since(&self, host: &str, length: usize, part: &str, least: usize) -> usize {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let log = self.turn.log(host);
            let since = log.get(length..).unwrap_or_default();
            let count = since.lines().filter(|line| line.contains(part)).count();
            if count >= least || Instant::now() > deadline {
                return count;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a host says of itself in numbers.
    fn metrics(&self, host: &str) -> String {
        let command = ["curl", "-s", "http://127.0.0.1:15020/metrics"];
        text(&self.turn.exec(host, None, &command).stdout)
    }

    /// How many connections the servers of these names have had.
    fn accepted(&self, servers: &[&str]) -> usize {
        let accepted = |server: &&str| {
            let url = format!("http://127.0.0.1:{LOG}/accepted");
            let asked = self
                .turn
                .exec("server-1", Some(server), &["curl", "-s", &url]);
            text(&asked.stdout).parse::<usize>().unwrap()
        };
        servers.iter().map(accepted).sum()
    }
}

/// A key that no request had before.
fn fresh(what: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("{what}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn client(testbed: &Testbed, namespace: &str) -> Session {
    let command = Program::Client.command();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut session = testbed.session("client", Some(namespace), &command);
    until_ready(&mut session);
    session
}

fn start() -> Testbed {
    let mut testbed = Testbed::up("e2e-routing", RIG, ROLES);
    std::fs::create_dir_all(testbed.mesh_dir()).unwrap();
    let first = written::mesh("", "nodes = [\"gate-1\"]", 0);
    testbed.write_mesh_file("mesh.toml", &first);
    testbed.run();
    servers(&mut testbed);
    eventually("all are captured", || {
        let control = testbed.status("control").and_then(|s| s.control);
        let nodes = control.as_ref().map(|c| {
            let captured = |name: &str| {
                let node = c.nodes.iter().find(|n| n.name == name);
                node.map_or(0, |n| n.captured)
            };
            ["client", "server-1", "server-2"].map(captured)
        });
        match nodes {
            Some([2, 5, 1]) => Ok(()),
            _ => Err(control),
        }
    });
    testbed
}

/// The names of the servers, and where each is.
const SERVERS: [(&str, &str); 6] = [
    ("echo-1", "server-1"),
    ("echo-2", "server-1"),
    ("v1", "server-1"),
    ("v2", "server-1"),
    ("v3", "server-1"),
    ("far", "server-2"),
];

fn servers(testbed: &mut Testbed) {
    for (name, host) in SERVERS {
        let mut http = vec![8080];
        // One of the two of `half` is not there.
        if name == "v1" {
            http.push(8085);
        }
        let echo = Echo {
            name: name.to_owned(),
            http,
            banner: vec![9090],
            tls: vec![8443],
            log: vec![LOG],
        };
        let command = Program::Echo(echo).command();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        testbed.program(host, Some(name), &command);
    }
    let directory = testbed.state().join("nginx");
    std::fs::create_dir_all(directory.join("keys")).unwrap();
    let config = directory.join("nginx.conf");
    std::fs::write(&config, written::nginx(&directory)).unwrap();
    egress::certify(&directory);
    let nginx = ["nginx", "-c", config.to_str().unwrap()];
    testbed.program("outside", None, &nginx);
    for (name, host) in SERVERS {
        listens(testbed, host, Some(name), LOG);
    }
    listens(testbed, "outside", None, 8088);
}

fn listens(testbed: &Testbed, host: &str, namespace: Option<&str>, port: u16) {
    eventually(&format!("a server on {host} {namespace:?}"), || {
        let filter = format!("( sport = :{port} )");
        let listed = testbed.exec(host, namespace, &["ss", "-Hltn", &filter]);
        match text(&listed.stdout).is_empty() {
            false => Ok(()),
            true => Err("nobody listens"),
        }
    });
}
