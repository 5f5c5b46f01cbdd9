//! Waypoints on machines of their own, and one beside a node role: what passes them, what is refused,
//! and what becomes of it when one of several goes away.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use crate::policy::HOLD_MANY;
use crate::support::{LATEEN, Roles, Testbed, Turn, eventually, field, text};

mod labels;

const RIG: &str = r#"
[[host]]
name = "control"
addresses = ["10.77.0.1/16"]

[[host]]
name = "edge-1"
addresses = ["10.77.0.11/16"]
[[host.namespace]]
name = "web"
addresses = ["10.77.1.11/16"]

[[host]]
name = "edge-2"
addresses = ["10.77.0.12/16"]
[[host.namespace]]
name = "cart"
addresses = ["10.77.2.12/16"]

[[host]]
name = "gate-1"
addresses = ["10.77.0.21/16"]

[[host]]
name = "gate-2"
addresses = ["10.77.0.22/16"]

[[host]]
name = "gate-3"
addresses = ["10.77.0.23/16"]

[[host]]
name = "outside"
addresses = ["10.77.0.99/16"]
"#;

const ROLES: Roles = &[
    ("control", &["--control"]),
    ("edge-1", &["--node"]),
    ("edge-2", &["--node", "--waypoint", "shop/beside"]),
    ("gate-1", &["--waypoint", "shop/wp"]),
    ("gate-2", &["--waypoint", "shop/wp"]),
    ("gate-3", &["--waypoint", "infra/wp"]),
];

/// Who follows the mesh.
const FOLLOWERS: [&str; 5] = ["edge-1", "edge-2", "gate-1", "gate-2", "gate-3"];

/// What is in every case's mesh. Where the control plane is, nobody serves `ghost`.
const AROUND: &str = r#"
[mesh]
service-range = ["10.96.0.0/16", "fd96::/112"]

[[node]]
name = "control"
addresses = ["10.77.0.1"]
[[node]]
name = "edge-1"
addresses = ["10.77.0.11"]
[[node]]
name = "edge-2"
addresses = ["10.77.0.12"]
[[node]]
name = "gate-1"
addresses = ["10.77.0.21"]
[[node]]
name = "gate-2"
addresses = ["10.77.0.22"]
[[node]]
name = "gate-3"
addresses = ["10.77.0.23"]

[[namespace]]
name = "infra"

[[workload]]
name = "web"
namespace = "shop"
service-account = "web"
node = "edge-1"
addresses = ["10.77.1.11"]
capture = { netns = "web" }
dataplane-mode = "ambient"

[[gateway]]
name = "ghost"
namespace = "shop"
class = "waypoint"
waypoint-for = "all"
node = "control"

[[gateway]]
name = "beside"
namespace = "shop"
class = "waypoint"
node = "edge-2"
"#;

/// How the cart is addressed.
const SERVICE: &str = "10.96.0.10:80";
const WORKLOAD: &str = "10.77.2.12:8080";

/// What a case says of labels, each a line of a table or nothing.
#[derive(Clone, Copy, Debug)]
struct Labels {
    /// `waypoint-for` of `shop/wp` and of `infra/wp`.
    takes: [&'static str; 2],
    namespace: &'static str,
    service: &'static str,
    workload: &'static str,
}

impl Labels {
    /// The rest of the mesh; `number` marks it.
    fn mesh(&self, number: usize) -> String {
        let Self {
            takes: [wp, infra],
            namespace,
            service,
            workload,
        } = self;
        format!(
            r#"
[[namespace]]
name = "shop"
{namespace}

[[service]]
name = "cart"
namespace = "shop"
addresses = ["10.96.0.10"]
ports = [{{ port = 80, target-port = 8080, app-protocol = "http" }},
         {{ port = 70, target-port = 7000, app-protocol = "tcp" }}]
selector = {{ app = "cart" }}
{service}

[[workload]]
name = "cart-1"
namespace = "shop"
service-account = "cart"
node = "edge-2"
addresses = ["10.77.2.12"]
capture = {{ netns = "cart" }}
dataplane-mode = "ambient"
labels.app = "cart"
{workload}

[[gateway]]
name = "wp"
namespace = "shop"
class = "waypoint"
waypoint-for = "{wp}"
nodes = ["gate-1", "gate-2"]

[[gateway]]
name = "wp"
namespace = "infra"
class = "waypoint"
waypoint-for = "{infra}"
node = "gate-3"
listeners = [{{ allowed-routes = {{ namespaces = {{ from = "All" }} }} }}]

[[authorization-policy]]
name = "mark-{number}"
namespace = "infra"
action = "DENY"
dry-run = true
rules = [{{}}]
"#
        )
    }
}

/// Everything of the shop is behind `shop/wp`.
const BEHIND: Labels = Labels {
    takes: ["all", "service"],
    namespace: "use-waypoint = \"wp\"",
    service: "",
    workload: "",
};

/// The rig of these cases, with everything of the shop behind `shop/wp` and all of them serving.
fn waypoints() -> Turn {
    static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
    let mut testbed = Turn::on(&TESTBED, start);
    for (host, _) in ROLES {
        testbed.daemon(host);
    }
    enforce(&testbed, &BEHIND);
    serving(&testbed, "shop/wp.shop.mesh.internal", (2, 2));
    testbed
}

fn start() -> Testbed {
    let mut testbed = Testbed::up("e2e-waypoints", RIG, ROLES);
    std::fs::create_dir_all(testbed.mesh_dir()).unwrap();
    testbed.write_mesh_file("around.toml", AROUND);
    testbed.write_mesh_file("labels.toml", &BEHIND.mesh(0));
    testbed.run();
    let server = [
        LATEEN,
        "sample",
        "http-server",
        "--listen",
        "[::]:8080",
        "--name",
        "cart-1",
    ];
    testbed.program("edge-2", Some("cart"), &server);
    let echo = [LATEEN, "sample", "tcp-echo", "--listen", "[::]:7000"];
    testbed.program("edge-2", Some("cart"), &echo);
    eventually("both programs listen", || {
        let sockets = ["ss", "-Hltn", "( sport = :8080 or sport = :7000 )"];
        let listed = text(&testbed.exec("edge-2", Some("cart"), &sockets).stdout);
        match listed.lines().count() {
            2 => Ok(()),
            _ => Err(listed),
        }
    });
    testbed
}

/// Puts labels in force everywhere; a mark shows when they are.
fn enforce(testbed: &Testbed, labels: &Labels) {
    static NUMBER: Mutex<usize> = Mutex::new(0);
    let mut number = NUMBER.lock().unwrap();
    *number += 1;
    testbed.write_mesh_file("labels.toml", &labels.mesh(*number));
    let mark = format!("\"infra/mark-{number}\"");
    for host in FOLLOWERS {
        eventually(&format!("{mark} in force on {host}"), || {
            let listed = testbed.lateen(host, &["policies", "-o", "json"]);
            let listed = text(&listed.stdout) + &text(&listed.stderr);
            match listed.contains(&mark) {
                true => Ok(()),
                false => {
                    let control = testbed.status("control").and_then(|s| s.control);
                    Err((listed, control.map(|c| c.problems)))
                }
            }
        });
    }
    eventually("the cart is captured", || match testbed.status("control") {
        Some(status) if status.control.as_ref().is_some_and(captured) => Ok(()),
        other => Err(other),
    });
}

fn captured(control: &lateen::status::ControlStatus) -> bool {
    let edges = control.nodes.iter();
    let mut edges = edges.filter(|n| n.name.starts_with("edge"));
    edges.all(|node| node.captured == 1)
}

/// Waits until so many of a service's endpoints are healthy.
fn serving(testbed: &Testbed, service: &str, want: (u32, u32)) {
    eventually(&format!("{service} has {want:?} endpoints"), || {
        let control = testbed.status("control").and_then(|s| s.control);
        let control = control.ok_or(None)?;
        let line = control.endpoints.iter().find(|s| s.name == service);
        match line.map(|s| (s.healthy, s.total)) {
            Some(counts) if counts == want => Ok(()),
            _ => Err(Some(control)),
        }
    });
}

/// By which way an answer came, told by the program that gave it: it sees who connects.
fn way(answer: &str) -> &'static str {
    match field(answer, "client").as_str() {
        "10.77.1.11" => "direct",
        "10.77.0.21" | "10.77.0.22" => "shop/wp",
        "10.77.0.23" => "infra/wp",
        "10.77.0.12" => "shop/beside",
        _ if answer.contains("error") => "refused",
        _ => "?",
    }
}

/// Whether somebody on the way has understood the request as one, and given it a number.
fn numbered(answer: &str) -> bool {
    !field(answer, "request-id").is_empty()
}

/// How many answers came from each address.
fn shares(answers: &[String]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for answer in answers {
        *shares.entry(field(answer, "client")).or_default() += 1;
    }
    shares
}

fn curl(testbed: &Testbed, more: &[&str]) -> String {
    let command = [&["curl", "-s", "-m", "5"], more].concat();
    text(&testbed.exec("edge-1", Some("web"), &command).stdout)
}

#[test]
fn http_and_tcp_pass_it_with_the_clients_identity() {
    let testbed = waypoints();
    let url = format!("http://{SERVICE}/through");
    for (protocol, version, more) in [
        ("HTTP/1.1", "1.1", &["--http1.1"][..]),
        ("HTTP/1.0", "1", &["--http1.0"]),
        ("HTTP/2", "2", &["--http2-prior-knowledge"]),
    ] {
        let told = [
            "-w",
            "%{http_version} %header{x-envoy-upstream-service-time}",
        ];
        let asked = curl(&testbed, &[more, &told, &[&*url]].concat());
        let (answer, rest) = asked.split_once('\n').unwrap();
        assert_eq!(way(answer), "shop/wp", "{protocol}: {asked}");
        assert!(numbered(answer), "{protocol}: {asked}");
        let (spoken, time) = rest.split_once(' ').unwrap();
        assert_eq!(spoken, version, "{asked}");
        assert!(time.parse::<u32>().is_ok(), "{asked}");
        let id = field(answer, "request-id");
        let gate = match field(answer, "client").as_str() {
            "10.77.0.21" => "gate-1",
            _ => "gate-2",
        };
        let line = [
            "request complete",
            "direction=\"waypoint\"",
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/web\"",
            "src.workload=\"web\"",
            "dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
            "path=\"/through\"",
            "response_code=200",
            &format!("protocol=\"{protocol}\""),
            &id,
        ];
        testbed.logged(gate, &line);
    }
    let many = ["sample", "tcp-many", "10.96.0.10:70", "--connections", "4"];
    let many = testbed.exec("edge-1", Some("web"), &[&[LATEEN], &many[..]].concat());
    assert!(many.status.success(), "{many:?}");
    for gate in ["gate-1", "gate-2"] {
        let line = [
            "connection complete",
            "direction=\"waypoint\"",
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/web\"",
            "10.77.2.12:7000",
        ];
        testbed.logged(gate, &line);
    }
    let from_waypoint = "src.identity=\"spiffe://cluster.local/ns/shop/sa/wp\"";
    testbed.logged("edge-2", &["connection complete", "inbound", from_waypoint]);
}

#[test]
fn what_did_not_come_through_it_is_refused_at_the_destination() {
    let testbed = waypoints();
    let bare = || testbed.ask("outside", None, WORKLOAD, 1).remove(0);
    let refused = bare();
    assert!(refused.contains("error"), "{refused}");
    testbed.logged("edge-2", &["src.addr=10.77.0.99", "waypoint"]);
    let by_service = Labels {
        takes: ["service", "service"],
        ..BEHIND
    };
    enforce(&testbed, &by_service);
    let answer = bare();
    assert_eq!(field(&answer, "client"), "10.77.0.99", "{answer}");
}

#[test]
fn what_passed_none_is_ended_once_one_must_be_passed() {
    let testbed = waypoints();
    let none = Labels {
        namespace: "",
        ..BEHIND
    };
    enforce(&testbed, &none);
    let hold = HOLD_MANY.replace("10.96.0.12", "10.96.0.10");
    let hold = ["python3", "-c", &hold, "3"];
    let mut direct = testbed.session("edge-1", Some("web"), &hold);
    assert_eq!(direct.line(), "3");
    enforce(&testbed, &BEHIND);
    eventually("those that went direct are ended", || {
        direct.say("count");
        match direct.line().as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    testbed.logged("edge-2", &["closed, for a waypoint must be passed now"]);
}

#[test]
fn beside_a_node_role_it_listens_where_the_mesh_says() {
    let testbed = waypoints();
    let line = testbed.status("edge-2").unwrap().waypoints.remove(0);
    assert_eq!(line.waypoint, "shop/beside");
    let listens: Vec<String> = line.listens.iter().map(ToString::to_string).collect();
    assert_eq!(listens, ["10.77.0.12:15009"]);
    let gate = testbed.status("gate-1").unwrap();
    assert_eq!(gate.waypoints[0].listens[0].port(), 15008);
    let certified = gate.node.unwrap().certificates;
    let certified: Vec<&str> = certified.iter().map(|c| &*c.identity).collect();
    assert_eq!(certified, ["spiffe://cluster.local/ns/shop/sa/wp"]);
    let beside = Labels {
        service: "use-waypoint = \"beside\"",
        ..BEHIND
    };
    enforce(&testbed, &beside);
    let answers = testbed.ask("edge-1", Some("web"), SERVICE, 2);
    assert_eq!(way(&answers[0]), "shop/beside", "{answers:?}");
    // One of two that have both roles: what is captured there is the cart alone.
    let node = testbed.status("edge-2").and_then(|s| s.node).unwrap();
    let captured: Vec<&str> = node.workloads.iter().map(|w| &*w.name).collect();
    assert_eq!(captured, ["shop/cart-1"]);
}

#[test]
fn a_port_that_comes_free_is_taken_with_the_next_revision() {
    let testbed = waypoints();
    // Without a workload on its machine it takes the usual port, and goes back.
    let moved = Labels {
        workload: "",
        ..BEHIND
    };
    let mesh = moved
        .mesh(1)
        .replace("node = \"edge-2\"", "node = \"edge-1\"");
    testbed.write_mesh_file("labels.toml", &mesh);
    let listens = |port: u16| {
        eventually(&format!("it listens on {port}"), || {
            let status = testbed.status("edge-2").ok_or(None)?;
            let line = &status.waypoints[0];
            match line.listens.first().map(|at| at.port()) {
                Some(at) if at == port => Ok(()),
                _ => Err(Some(status.waypoints)),
            }
        });
    };
    listens(15008);
    enforce(&testbed, &BEHIND);
    listens(15009);
}

#[test]
fn instances_take_turns_and_one_that_cannot_serve_gets_none() {
    let mut testbed = waypoints();
    let answers = testbed.ask("edge-1", Some("web"), SERVICE, 20);
    let both = ["10.77.0.21", "10.77.0.22"].map(|gate| (gate.to_owned(), 10));
    assert_eq!(shares(&answers), BTreeMap::from(both));

    testbed.kill("gate-2");
    let listen = [LATEEN, "sample", "tcp-echo", "--listen", "10.77.0.22:15008"];
    let taken = testbed.session("gate-2", None, &listen);
    testbed.daemon("gate-2");
    testbed.logged(
        "gate-2",
        &[
            "waypoint does not serve",
            "cannot listen on 10.77.0.22:15008",
        ],
    );
    serving(&testbed, "shop/wp.shop.mesh.internal", (1, 2));
    enforce(&testbed, &BEHIND);
    let answers = testbed.ask("edge-1", Some("web"), SERVICE, 8);
    let one = BTreeMap::from([("10.77.0.21".to_owned(), 8)]);
    assert_eq!(shares(&answers), one);
    let status = testbed.lateen("gate-2", &["status"]);
    assert_eq!(status.status.code(), Some(1), "an operator is needed");
    drop(taken);
    serving(&testbed, "shop/wp.shop.mesh.internal", (2, 2));
}

/// Asks again and again while `work` is done, in all `count` times; the answers.
fn under_load(testbed: &mut Testbed, count: usize, work: impl FnOnce(&mut Testbed)) -> Vec<String> {
    let number = count.to_string();
    let load = [
        "sample",
        "http-client",
        SERVICE,
        "--every",
        "5",
        "--count",
        &number,
    ];
    let command = [&[LATEEN], &load[..]].concat();
    let mut client = testbed.session("edge-1", Some("web"), &command);
    let mut answers: Vec<String> = (0..40).map(|_| client.line()).collect();
    work(testbed);
    answers.extend((40..count).map(|_| client.line()));
    answers
}

#[test]
fn when_one_dies_only_what_was_on_its_way_fails() {
    let mut testbed = waypoints();
    let answers = under_load(&mut testbed, 400, |testbed| testbed.kill("gate-2"));
    let failed: Vec<&String> = answers.iter().filter(|a| way(a) != "shop/wp").collect();
    assert!(failed.len() <= 1, "{failed:?}");
    let shares = shares(&answers);
    assert!(
        shares["10.77.0.22"] >= 10,
        "it was used until then: {shares:?}"
    );
    assert_eq!(field(answers.last().unwrap(), "client"), "10.77.0.21");
}

#[test]
fn one_that_is_told_to_stop_fails_nobody() {
    let mut testbed = waypoints();
    let answers = under_load(&mut testbed, 400, |testbed| {
        testbed.stop("gate-2");
        testbed.ended("gate-2");
    });
    let failed: Vec<&String> = answers.iter().filter(|a| way(a) != "shop/wp").collect();
    assert_eq!(failed, Vec::<&String>::new());
    let shares = shares(&answers);
    assert!(
        shares["10.77.0.22"] >= 10,
        "it was used until then: {shares:?}"
    );
    assert_eq!(field(answers.last().unwrap(), "client"), "10.77.0.21");
    testbed.logged("gate-2", &["draining", "shop/wp"]);
    serving(&testbed, "shop/wp.shop.mesh.internal", (1, 2));
}
