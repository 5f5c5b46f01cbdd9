//! Units and users that share their machine's addresses: each is itself to everybody, in and out, though
//! two machines have one address of each family between ten of them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use lateen::rig::RunAs;

use crate::support::{
    LATEEN, MARKER, Roles, Testbed, Turn, eventually, field, quic, text, tunnels,
};

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
units = true

[[host]]
name = "outside"
addresses = ["10.77.0.99/16", "fd77::99/64"]
"#;

const ROLES: Roles = &[
    ("control", &["--control"]),
    ("edge-1", &["--node"]),
    ("edge-2", &["--node"]),
];

const AROUND: &str = r#"
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
"#;

/// Somebody on a machine's own network.
#[derive(Clone, Debug)]
pub(crate) struct Somebody {
    pub(crate) name: String,
    pub(crate) host: &'static str,
    pub(crate) number: u16,
    user: Option<u32>,
}

impl Somebody {
    pub(crate) fn identity(&self) -> RunAs {
        match self.user {
            Some(uid) => RunAs::user(uid),
            None => RunAs::unit(&self.unit()),
        }
    }

    fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    /// Where it listens: on each machine the same five ports.
    fn port(&self) -> u16 {
        8000 + self.number % 5
    }

    fn principal(&self) -> String {
        format!("cluster.local/ns/shop/sa/{}", self.name)
    }

    /// Its service, in both families.
    fn addresses(&self) -> [String; 2] {
        let number = 10 + self.number;
        [format!("10.96.0.{number}"), format!("fd96::{number}")]
    }

    fn declared(&self) -> String {
        let Self { name, host, .. } = self;
        let capture = match self.user {
            Some(uid) => format!("user = {uid}"),
            None => format!("unit = \"{}\"", self.unit()),
        };
        let allowed = everybody()
            .into_iter()
            .filter(|client| allows(client, self));
        let allowed: Vec<_> = allowed.map(|c| format!("\"{}\"", c.principal())).collect();
        let ([v4, v6], port, allowed) = (self.addresses(), self.port(), allowed.join(", "));
        format!(
            r#"
[[workload]]
name = "{name}"
namespace = "shop"
service-account = "{name}"
node = "{host}"
labels = {{ app = "{name}" }}
capture = {{ {capture} }}

[[service]]
name = "{name}"
namespace = "shop"
addresses = ["{v4}", "{v6}"]
ports = [{{ port = 80, target-port = {port} }}]
selector = {{ app = "{name}" }}

[[authorization-policy]]
name = "{name}"
namespace = "shop"
selector = {{ match-labels = {{ app = "{name}" }} }}
rules = [{{ from = [{{ source = {{ principals = [{allowed}] }} }}] }}]
"#
        )
    }
}

/// Ten of them: three units and two users on each machine.
pub(crate) fn everybody() -> Vec<Somebody> {
    (0..10)
        .map(|number: u16| {
            let user = (number % 5 > 2).then(|| 2000 + u32::from(number));
            let kind = if user.is_some() { "user" } else { "unit" };
            Somebody {
                name: format!("{kind}-{number}"),
                host: if number < 5 { "edge-1" } else { "edge-2" },
                number,
                user,
            }
        })
        .collect()
}

/// Who may call whom: no two have the same clients, nor the same servers.
pub(crate) fn allows(client: &Somebody, server: &Somebody) -> bool {
    let (client, server) = (client.number, server.number);
    (client + server + client * server) % 11 < 6
}

/// Asks each of `ADDRESS:PORT`, all at once, and tells who answered what.
const CLIENT: &str = r#"
import json, socket, sys, threading
lock = threading.Lock()
def ask(to):
    host, port = to.rsplit(':', 1)
    try:
        s = socket.create_connection((host.strip('[]'), int(port)), 5)
        s.sendall(b'GET / HTTP/1.0\r\nHost: x\r\n\r\n')
        answer = s.makefile().read()
        told = json.loads(answer.splitlines()[-1]) if answer else {'error': 'closed'}
    except Exception as e:
        told = {'error': type(e).__name__}
    told['to'] = to
    with lock:
        print(json.dumps(told), flush=True)
threads = [threading.Thread(target=ask, args=(to,)) for to in sys.argv[1:]]
[t.start() for t in threads]
[t.join() for t in threads]
"#;

/// What each address said to somebody: who answered and whom it saw, or the failure.
fn ask(testbed: &Testbed, client: &Somebody, to: &[String]) -> Vec<(String, String, String)> {
    let mut words = vec!["python3", "-c", CLIENT];
    words.extend(to.iter().map(String::as_str));
    let asked = testbed.exec_as(client.host, &client.identity(), &words);
    let said = text(&asked.stdout);
    let told = said.lines().map(|line| {
        let server = match field(line, "error") {
            error if error.is_empty() => field(line, "server"),
            error => error,
        };
        (field(line, "to"), server, field(line, "client"))
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), to.len(), "{client:?}: {asked:?}");
    told
}

fn serve(testbed: &Testbed, somebody: &Somebody) -> Child {
    let listen = format!("[::]:{}", somebody.port());
    let words = [
        LATEEN,
        "sample",
        "http-server",
        "--listen",
        &listen,
        "--name",
        &somebody.name,
        "--text",
        MARKER,
    ];
    testbed.program_as(somebody.host, &somebody.identity(), &words)
}

/// The rig of these cases; `None`, with the reason, where units cannot be had.
pub(crate) fn units() -> Option<Turn> {
    static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: units and users of a rig take root");
        return None;
    }
    Some(Turn::on(&TESTBED, start))
}

fn start() -> Testbed {
    let mut testbed = Testbed::up("units", RIG, ROLES);
    let mesh: String = everybody().iter().map(Somebody::declared).collect();
    testbed.write_mesh_file("mesh.toml", &(AROUND.to_owned() + &mesh));
    let servers = everybody();
    let servers = servers.iter().map(|somebody| serve(&testbed, somebody));
    let _end_with_the_rig: Vec<Child> = servers.collect();
    testbed.run();
    settled(&testbed);
    testbed
}

pub(crate) fn settled(testbed: &Testbed) {
    let written = testbed.last_written();
    eventually("everybody captured and known for it", || {
        let control = testbed.status("control").and_then(|s| s.control);
        let control = control.ok_or(None)?;
        let there = control.read >= Some(written)
            && control
                .nodes
                .iter()
                .all(|n| n.captured == 5 && n.revision == control.revision);
        let here = |host: &str| {
            let node = testbed.status(host).and_then(|s| s.node);
            node.is_some_and(|n| {
                n.revision == control.revision
                    && n.workloads.iter().all(|w| w.capture == "captured")
                    && n.certificates.len() >= 5
                    && n.certificates.iter().all(|c| c.serial.is_some())
            })
        };
        match there && here("edge-1") && here("edge-2") {
            true => Ok(()),
            false => Err(Some(control)),
        }
    });
}

#[test]
fn each_of_ten_is_itself_to_each_in_both_families() {
    let Some(testbed) = units() else { return };
    let mut seen = BTreeSet::new();
    let ((), tapped) = testbed.tapped(|| {
        for client in everybody() {
            let servers = everybody();
            let of = |server: &Somebody| {
                let [v4, v6] = server.addresses();
                [format!("{v4}:80"), format!("[{v6}]:80")]
            };
            let to: Vec<String> = servers.iter().flat_map(of).collect();
            let answers = ask(&testbed, &client, &to);
            for server in &servers {
                for address in of(server) {
                    let answer = answers.iter().find(|(to, ..)| *to == address);
                    let (_, said, saw) = answer.unwrap();
                    let what = format!("{} to {} at {address}", client.name, server.name);
                    match allows(&client, server) {
                        true => assert_eq!(*said, server.name, "{what}"),
                        false => assert_ne!(*said, server.name, "{what}"),
                    }
                    let v4 = address.starts_with("10.");
                    let host = client.host.trim_start_matches("edge-");
                    let from = if v4 {
                        format!("10.77.0.1{host}")
                    } else {
                        format!("fd77::1{host}")
                    };
                    if allows(&client, server) {
                        assert_eq!(*saw, from, "{what}");
                        seen.insert((client.name.clone(), server.name.clone()));
                    }
                }
            }
        }
    });
    assert_eq!(tapped.marked, 0, "{tapped:?}");
    assert!(tapped.kinds.contains_key(tunnels()), "{tapped:?}");
    for (client, server) in seen {
        let host = everybody()
            .into_iter()
            .find(|s| s.name == server)
            .unwrap()
            .host;
        let words = [
            "inbound",
            &format!("src.identity=\"spiffe://cluster.local/ns/shop/sa/{client}\""),
            &format!("dst.identity=\"spiffe://cluster.local/ns/shop/sa/{server}\""),
            &format!("dst.workload=\"{server}\""),
        ];
        testbed.logged(host, &words);
    }
}

/// A name of one label means something only to who is known to be of a namespace.
#[test]
fn each_is_answered_for_names_as_who_it_is() {
    let Some(testbed) = units() else { return };
    let asking = |server| [LATEEN, "sample", "dns", "user-4", "--server", server];
    for client in everybody() {
        // Nobody answers there; what is captured does not get there.
        for server in ["10.77.0.99:53", "[fd77::99]:53"] {
            for more in [&[][..], &["--tcp"]] {
                let words = [&asking(server)[..], more].concat();
                let asked = testbed.exec_as(client.host, &client.identity(), &words);
                let said = text(&asked.stdout);
                let what = format!("{} asks {server} {more:?}: {said}", client.name);
                assert!(said.contains("user-4. 30 A 10.96.0.14"), "{what}");
            }
        }
    }
    let elsewhere = testbed.exec("edge-1", None, &asking("10.77.0.99:53"));
    assert!(text(&elsewhere.stdout).contains("refused"), "{elsewhere:?}");
    let nobody = testbed.exec("edge-1", None, &asking("127.0.0.1:15053"));
    assert!(!text(&nobody.stdout).contains("10.96.0.14"), "{nobody:?}");
}

#[test]
fn by_its_port_of_the_machine_s_address_one_is_itself_too() {
    let Some(testbed) = units() else { return };
    let all = everybody();
    let client = &all[0];
    for server in &all {
        let address = if server.number < 5 {
            "10.77.0.11"
        } else {
            "10.77.0.12"
        };
        let to = format!("{address}:{}", server.port());
        let answers = ask(&testbed, client, std::slice::from_ref(&to));
        let itself = client.number == server.number;
        match allows(client, server) || itself {
            true => assert_eq!(answers[0].1, server.name, "{to}"),
            false => assert_ne!(answers[0].1, server.name, "{to}"),
        }
    }
    // In clear text nobody has proven to be anybody, and all of them ask for somebody.
    let outside = testbed.ask("outside", None, "10.77.0.11:8000", 1);
    assert!(outside[0].contains("error"), "{outside:?}");
    let local = testbed.ask("edge-1", None, "10.77.0.11:8000", 1);
    assert!(local[0].contains("error"), "{local:?}");
    let loopback = testbed.ask("edge-1", None, "127.0.0.1:8000", 1);
    assert_eq!(field(&loopback[0], "server"), all[0].name, "{loopback:?}");
}

/// A server that `client` may call, on the other machine.
fn allowed(client: &Somebody) -> Somebody {
    let other = |s: &Somebody| s.host != client.host && allows(client, s);
    everybody().into_iter().find(other).unwrap()
}

#[test]
fn a_unit_that_starts_again_is_captured_again_at_once() {
    let Some(testbed) = units() else { return };
    let mut client = everybody()[1].clone();
    let server = allowed(&client);
    let [v4, _] = server.addresses();
    let to = [format!("{v4}:80")];
    // Another unit of the same account, so that the server of this one is left alone.
    client.name = "again".to_owned();
    let workload = format!(
        "[[workload]]\nname = \"again\"\nnamespace = \"shop\"\nservice-account = \"unit-1\"\nnode = \"{}\"\n\
         labels = {{ app = \"again\" }}\ncapture = {{ unit = \"{}\" }}\n",
        client.host,
        client.unit()
    );
    testbed.write_mesh_file("again.toml", &workload);
    for round in 0..3 {
        let begun = Instant::now();
        eventually("the unit is captured", || {
            let answers = ask(&testbed, &client, &to);
            match answers[0].1 == server.name {
                true => Ok(()),
                false => Err(answers),
            }
        });
        let took = begun.elapsed();
        if round > 0 {
            assert!(took < Duration::from_secs(2), "round {round}: {took:?}");
        }
        // Its cgroup goes with its last program, and the next has another number.
        let gone = ["rmdir", "/sys/fs/cgroup/system.slice/again.service"];
        eventually("the unit has stopped", || {
            let removed = testbed.exec(client.host, None, &gone);
            removed.status.success().then_some(()).ok_or(removed)
        });
    }
    fs::remove_file(testbed.mesh_dir().join("again.toml")).unwrap();
    settled(&testbed);
}

#[test]
fn while_the_proxy_is_dead_nobody_gets_anywhere() {
    let Some(mut testbed) = units() else { return };
    let client = everybody()[2].clone();
    let server = allowed(&client);
    let [v4, v6] = server.addresses();
    let to = [
        format!("{v4}:80"),
        format!("[{v6}]:80"),
        "10.77.0.99:80".to_owned(),
        format!("10.77.0.12:{}", server.port()),
    ];
    testbed.kill("edge-1");
    let (answers, seen) = testbed.tapped(|| ask(&testbed, &client, &to));
    for (to, said, _) in &answers {
        assert_eq!(said, "ConnectionRefusedError", "{to}");
    }
    // What the kernel still says to peers for a process that was killed is none of the programs'.
    let ours = ["tcp/15012", "tcp/15008"];
    let tcp = |kind: &&String| kind.starts_with("tcp/") && !ours.contains(&kind.as_str());
    let leaked: Vec<_> = seen.kinds.keys().filter(tcp).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    testbed.daemon("edge-1");
    eventually("served again", || {
        let answers = ask(&testbed, &client, &to[..2]);
        let good = answers.iter().all(|(_, said, _)| *said == server.name);
        if good { Ok(()) } else { Err(answers) }
    });
    settled(&testbed);
}

/// A guest behind a link of `edge-1`, as a container or a virtual machine is; once for all cases.
const GUEST: &str = "test -e /run/netns/vm || { \
    ip netns add vm && ip link add tap3 type veth peer name eth0 netns vm \
    && ip addr add 10.88.0.1/24 dev tap3 && ip link set tap3 up && ip -n vm link set lo up \
    && ip -n vm addr add 10.88.0.2/24 dev eth0 && ip -n vm link set eth0 up \
    && ip -n vm route add default via 10.88.0.1; }";

/// What runs inside the guest begins so.
pub(crate) const INSIDE: [&str; 4] = ["ip", "netns", "exec", "vm"];

/// The guest, which the other machine has a way to.
pub(crate) fn guest(testbed: &Testbed) {
    let made = testbed.exec("edge-1", None, &["sh", "-c", GUEST]);
    assert!(made.status.success(), "{made:?}");
    let way = [
        "ip",
        "route",
        "replace",
        "10.88.0.0/24",
        "via",
        "10.77.0.11",
    ];
    assert!(testbed.exec("edge-2", None, &way).status.success());
}

#[test]
fn a_guest_behind_an_interface_is_itself_too() {
    let Some(testbed) = units() else { return };
    guest(&testbed);
    let server = [
        LATEEN,
        "sample",
        "http-server",
        "--listen",
        "[::]:8080",
        "--name",
        "vm-1",
    ];
    // On a network of its own, which the end of the rig does not reach.
    let _guest = testbed.session("edge-1", None, &[&INSIDE[..], &server[..]].concat());
    testbed.write_mesh_file(
        "vm.toml",
        "[[workload]]\nname = \"vm-1\"\nnamespace = \"shop\"\nservice-account = \"unit-1\"\nnode = \"edge-1\"\n\
         addresses = [\"10.88.0.2\"]\nlabels = { app = \"vm\" }\ncapture = { interface = \"tap3\" }\n\
         [[service]]\nname = \"vm\"\nnamespace = \"shop\"\naddresses = [\"10.96.0.50\"]\n\
         ports = [{ port = 80, target-port = 8080 }]\nselector = { app = \"vm\" }\n",
    );
    let to = ["10.96.0.50:80".to_owned(), "10.88.0.2:8080".to_owned()];
    for client in [&everybody()[0], &everybody()[5]] {
        let identity = format!(
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/{}\"",
            client.name
        );
        // Of the same host it is handed over.
        let transport = match (client.host, quic()) {
            ("edge-1", _) => "",
            (_, true) => "transport=\"quic\"",
            (_, false) => "transport=\"tcp\"",
        };
        let words = ["inbound", "dst.workload=\"vm-1\"", &identity, transport];
        // Until it is captured, and that is known, it is called in clear like anybody outside.
        eventually("the guest answers as who it is", || {
            let answers = ask(&testbed, client, &to);
            let log = testbed.log("edge-1");
            let mut lines = log.lines();
            let told = lines.any(|line| words.iter().all(|word| line.contains(word)));
            match told && answers.iter().all(|(_, said, _)| said == "vm-1") {
                true => Ok(()),
                false => Err(answers),
            }
        });
    }
    // It has the account of a unit, and gets where that one gets.
    let server = allowed(&everybody()[1]);
    let [v4, _] = server.addresses();
    let client = ["python3", "-c", CLIENT, &format!("{v4}:80")];
    let asked = testbed.exec("edge-1", None, &[&INSIDE[..], &client[..]].concat());
    let said = text(&asked.stdout);
    assert_eq!(field(said.trim(), "server"), server.name, "{asked:?}");
    fs::remove_file(testbed.mesh_dir().join("vm.toml")).unwrap();
    settled(&testbed);
}
