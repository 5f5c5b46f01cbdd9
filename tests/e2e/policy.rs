//! Who may connect to whom: the vectors of `spec/labels-and-policy.md` §7 that node proxies decide,
//! tried with real connections, and explained from both ends as they turn out.

use std::time::{Duration, Instant};

use crate::support::{LATEEN, Session, Testbed, eventually, testbed, text};

mod vectors;

/// A service whose port is not its workloads', a client outside the mesh, and a namespace for marks.
const AROUND: &str = r#"
[[namespace]]
name = "other"

[[service]]
name = "till"
namespace = "shop"
addresses = ["10.96.0.12"]
ports = [{ port = 70, target-port = 7000 }]
selector = { app = "ledger" }

[[workload]]
name = "outside"
namespace = "shop"
addresses = ["10.77.0.99"]
dataplane-mode = "none"
"#;

/// Connects to each address it is told and says whether a line came back.
const TRY: &str = "
import socket, sys
print('open', flush=True)
for line in sys.stdin:
    host, port = line.split()
    try:
        s = socket.create_connection((host, int(port)), 5)
        s.sendall(b'hello\\n')
        print('+' if s.recv(100) else '-', flush=True)
        s.close()
    except OSError:
        print('-', flush=True)
";

/// Opens connections and, whenever it is told to, counts those that still answer.
pub(crate) const HOLD_MANY: &str = "
import socket, sys
held = [socket.create_connection(('10.96.0.12', 70)) for _ in range(int(sys.argv[1]))]
def answers(s):
    try:
        s.settimeout(5)
        s.sendall(b'x\\n')
        return bool(s.recv(10))
    except OSError:
        return False
print(sum(answers(s) for s in held), flush=True)
for _ in sys.stdin:
    held = [s for s in held if answers(s)]
    print(len(held), flush=True)
";

/// Whom connections are tried from, and how `lateen explain` calls them.
struct Clients {
    web: Session,
    cart: Session,
    outside: Session,
    /// A second port of the ledger.
    _server: Session,
}

impl Clients {
    /// Clients of a ledger that lets everybody in.
    fn start(testbed: &Testbed) -> Self {
        let mut clients = Self::connect(testbed);
        eventually("both ports of the ledger answer", || {
            match clients.outcome().as_str() {
                "+++ +++" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        clients
    }

    fn connect(testbed: &Testbed) -> Self {
        let listen = ["sample", "tcp-echo", "--listen", "[::]:9090"];
        let server = testbed.session("edge-2", Some("ledger"), &[&[LATEEN], &listen[..]].concat());
        let client = |host, namespace| {
            let mut client = testbed.session(host, namespace, &["python3", "-c", TRY]);
            assert_eq!(client.line(), "open");
            client
        };
        Self {
            web: client("edge-1", Some("web")),
            cart: client("edge-1", Some("cart-1")),
            outside: client("outside", None),
            _server: server,
        }
    }

    /// `+` or `-` for web, cart-1 and outside, to port 7000 and then to port 9090.
    fn outcome(&mut self) -> String {
        let clients = [&mut self.web, &mut self.cart, &mut self.outside];
        let mut first = String::new();
        let mut second = String::new();
        for (client, to) in clients.into_iter().zip(TO_7000) {
            client.say(&to.replace(':', " "));
            first += &client.line();
            client.say(&TO_9090.replace(':', " "));
            second += &client.line();
        }
        format!("{first} {second}")
    }
}

const FROM: [&str; 3] = ["shop/web", "shop/cart-1", "shop/outside"];
/// By the service where there is somebody who knows it.
const TO_7000: [&str; 3] = ["10.96.0.12:70", "10.96.0.12:70", "10.77.2.13:7000"];
const TO_9090: &str = "10.77.2.13:9090";

/// What `lateen explain` says of the same six connections.
fn explained(testbed: &Testbed, host: &str, more: &[&str]) -> (String, String) {
    let mut said = String::new();
    let mut ask = |from: &str, to: &str| {
        let words = [&["explain", "--from", from, "--to", to], more].concat();
        let output = testbed.lateen(host, &words);
        said += &text(&output.stdout);
        said += &text(&output.stderr);
        match output.status.code() {
            Some(0) => "+",
            Some(1) => "-",
            _ => "?",
        }
    };
    let first: String = FROM.iter().zip(TO_7000).map(|(f, to)| ask(f, to)).collect();
    let second: String = FROM.iter().map(|from| ask(from, TO_9090)).collect();
    (format!("{first} {second}"), said)
}

/// Puts policies in force on both nodes; a mark shows when they are.
fn enforce(testbed: &Testbed, number: usize, policies: &str) {
    let mark = format!("mark-{number}");
    let marked = format!(
        "{AROUND}\n[[authorization-policy]]\nname = \"{mark}\"\nnamespace = \"other\"\naction = \"DENY\"\n\
         dry-run = true\nrules = [{{}}]\n{policies}"
    );
    testbed.write_mesh_file("policy.toml", &marked);
    for host in ["edge-1", "edge-2"] {
        eventually(&format!("{mark} in force on {host}"), || {
            let output = testbed.lateen(host, &["policies", "-o", "json"]);
            let listed = text(&output.stdout);
            match listed.contains(&format!("\"other/{mark}\"")) {
                true => Ok(()),
                false => {
                    let control = testbed.status("control").and_then(|s| s.control);
                    Err((listed, control.map(|c| c.problems)))
                }
            }
        });
    }
}

#[test]
fn every_vector_comes_out_as_specified_and_is_explained_so_from_both_ends() {
    let testbed = testbed();
    enforce(&testbed, 0, "");
    let mut clients = Clients::start(&testbed);
    let directory = testbed.mesh_dir().display().to_string();
    for (number, vector) in vectors::ALL.iter().enumerate() {
        let name = vector.name;
        enforce(&testbed, number + 1, vector.policies);
        assert_eq!(clients.outcome(), vector.want, "{name}");
        for (host, more) in [
            ("edge-1", &[][..]),
            ("edge-2", &[]),
            ("control", &["--dir", &directory]),
        ] {
            let (outcome, said) = explained(&testbed, host, more);
            assert_eq!(outcome, vector.want, "{name}, explained on {host}: {said}");
            for word in vector.said {
                assert!(said.contains(word), "{name}: no {word:?} in {said}");
            }
        }
        for words in vector.logged {
            testbed.logged("edge-2", words);
        }
    }
}

#[test]
fn of_a_thousand_open_connections_those_and_only_those_that_are_denied_close() {
    const EACH: usize = 500;
    let testbed = testbed();
    enforce(&testbed, 100, "");
    let each = EACH.to_string();
    let hold = ["python3", "-c", HOLD_MANY, &each];
    let mut web = testbed.session("edge-1", Some("web"), &hold);
    let mut cart = testbed.session("edge-1", Some("cart-1"), &hold);
    assert_eq!((web.line(), cart.line()), (each.clone(), each.clone()));
    let open = || {
        let listed = testbed.lateen("edge-2", &["connections", "-o", "json"]);
        let open: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
        open.iter().filter(|c| c["direction"] == "inbound").count()
    };
    assert_eq!(open(), 2 * EACH);
    let denies = "[[authorization-policy]]\nname = \"no-web\"\nnamespace = \"shop\"\naction = \"DENY\"\n\
        selector = { match-labels = { app = \"ledger\" } }\n\
        rules = [{ from = [{ source = { principals = [\"cluster.local/ns/shop/sa/web\"] } }] }]\n";
    enforce(&testbed, 101, denies);
    let begun = Instant::now();
    eventually("the denied ones are closed", || match open() {
        EACH => Ok(()),
        other => Err(other),
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "closed after {took:?}");
    web.say("count");
    cart.say("count");
    assert_eq!((web.line(), cart.line()), ("0".to_owned(), each));
    testbed.logged(
        "edge-2",
        &[
            "policy has changed: denied by policy shop/no-web (policy.toml:",
            "/sa/web",
        ],
    );
}

#[test]
fn a_plain_connection_is_closed_when_its_namespace_turns_strict() {
    let testbed = testbed();
    enforce(&testbed, 200, "");
    let hold = HOLD_MANY.replace("'10.96.0.12', 70", "'10.77.2.13', 7000");
    let mut outside = testbed.session("outside", None, &["python3", "-c", &hold, "3"]);
    let mut web = testbed.session("edge-1", Some("web"), &["python3", "-c", &hold, "3"]);
    assert_eq!(
        (outside.line(), web.line()),
        ("3".to_owned(), "3".to_owned())
    );
    let strict = "[[peer-authentication]]\nname = \"strict\"\nnamespace = \"shop\"\nmtls = { mode = \"STRICT\" }\n";
    enforce(&testbed, 201, strict);
    eventually("those in plain text are closed", || {
        outside.say("count");
        match outside.line().as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    web.say("count");
    assert_eq!(web.line(), "3", "those in tunnels are not");
    testbed.logged(
        "edge-2",
        &["istio_converted_static_strict", "src.addr=10.77.0.99"],
    );
}

#[test]
fn what_is_closed_stays_closed_after_a_start_without_a_control_plane() {
    let mut testbed = testbed();
    let denies = "[[authorization-policy]]\nname = \"no-web\"\nnamespace = \"shop\"\naction = \"DENY\"\n\
        selector = { match-labels = { app = \"ledger\" } }\n\
        rules = [{ from = [{ source = { service-accounts = [\"web\"] } }] }]\n";
    enforce(&testbed, 300, denies);
    let mut clients = Clients::connect(&testbed);
    testbed.kill("control");
    testbed.kill("edge-2");
    testbed.daemon("edge-2");
    eventually(
        "the node serves again, from what it kept",
        || match clients.outcome().as_str() {
            "-++ -++" => Ok(()),
            other => Err(other.to_owned()),
        },
    );
    testbed.logged("edge-2", &["denied by policy shop/no-web (policy.toml:"]);
}

#[test]
fn no_denied_connection_gets_through_once_its_policy_is_in_force() {
    let testbed = testbed();
    let denies = "[[authorization-policy]]\nname = \"no-web\"\nnamespace = \"shop\"\naction = \"DENY\"\n\
        selector = { match-labels = { app = \"ledger\" } }\n\
        rules = [{ from = [{ source = { service-accounts = [\"web\"] } }] }]\n";
    enforce(&testbed, 399, "");
    let mut clients = Clients::start(&testbed);
    for round in 0..3 {
        enforce(&testbed, 400 + 2 * round, "");
        assert_eq!(clients.outcome(), "+++ +++", "round {round}");
        enforce(&testbed, 401 + 2 * round, denies);
        for _ in 0..20 {
            assert_eq!(clients.outcome(), "-++ -++", "round {round}");
        }
    }
}
