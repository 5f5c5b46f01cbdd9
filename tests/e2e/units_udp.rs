//! UDP of units and users, who share their machine's addresses: each is itself to everybody, in and out,
//! by datagrams as by connections.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::sync::Once;

use lateen::rig::RunAs;

use crate::support::{MARKER, Testbed, eventually, text, tunnels};
use crate::units::{INSIDE, Somebody, allows, everybody, guest, settled, units};

/// Answers with its name, who it thinks asked, and what it was sent.
const SERVER: &str = "
import socket,sys
s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0)
s.bind(('::',int(sys.argv[2])))
while True:
    data,peer=s.recvfrom(65535)
    s.sendto(('%s %s '%(sys.argv[1],peer[0])).encode()+data,peer)
";

/// Asks each of `ADDRESS:PORT`, all at once, and tells in their order what each answered; `silence` where
/// that is nothing.
const CLIENT: &str = "
import socket,sys,threading
text,asked=sys.argv[1].encode(),sys.argv[2:]
told={}
def ask(to):
    host,port=to.rsplit(':',1)
    host=host.strip('[]')
    s=socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET,socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        s.connect((host,int(port)))
        s.send(text)
        told[to]=s.recv(65535).decode()
    except Exception as e:
        told[to]='silence '+type(e).__name__
threads=[threading.Thread(target=ask,args=(to,)) for to in asked]
[t.start() for t in threads]
[t.join() for t in threads]
[print(told[to]) for to in asked]
";

/// Two units and a user of either machine.
fn some() -> Vec<Somebody> {
    let all = everybody().into_iter();
    all.filter(|s| [0, 1, 3, 5, 6, 8].contains(&s.number))
        .collect()
}

fn port(server: &Somebody) -> u16 {
    7700 + server.number
}

/// Its service of UDP, in both families.
fn addresses(server: &Somebody) -> [String; 2] {
    let number = 100 + server.number;
    [
        format!("10.96.0.{number}:77"),
        format!("[fd96::{number}]:77"),
    ]
}

fn declared(server: &Somebody) -> String {
    let (name, number, port) = (&server.name, 100 + server.number, port(server));
    format!(
        "[[service]]\nname = \"udp-{name}\"\nnamespace = \"shop\"\n\
         addresses = [\"10.96.0.{number}\", \"fd96::{number}\"]\n\
         ports = [{{ port = 77, target-port = {port}, protocol = \"udp\" }}]\n\
         selector = {{ app = \"{name}\" }}\n"
    )
}

fn serve(testbed: &Testbed, who: &RunAs, host: &str, name: &str, port: u16) -> Child {
    let words = ["python3", "-c", SERVER, name, &port.to_string()];
    testbed.program_as(host, who, &words)
}

fn ask(testbed: &Testbed, host: &str, who: Option<&RunAs>, to: &[String]) -> Vec<String> {
    let mut words = vec!["python3", "-c", CLIENT, MARKER];
    words.extend(to.iter().map(String::as_str));
    let asked = match who {
        Some(who) => testbed.exec_as(host, who, &words),
        None => testbed.exec(host, None, &words),
    };
    let said: Vec<String> = text(&asked.stdout).lines().map(str::to_owned).collect();
    assert_eq!(said.len(), to.len(), "{asked:?}");
    said
}

fn ask_as(testbed: &Testbed, client: &Somebody, to: &[String]) -> Vec<String> {
    ask(testbed, client.host, Some(&client.identity()), to)
}

/// The rig of units with their services of UDP in it, and their servers.
fn begin(testbed: &Testbed) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let servers = some();
        let servers = servers.iter().map(|server| {
            let (who, port) = (server.identity(), port(server));
            serve(testbed, &who, server.host, &server.name, port)
        });
        let _end_with_the_rig: Vec<Child> = servers.collect();
    });
    let mesh: String = some().iter().map(declared).collect();
    testbed.write_mesh_file("udp.toml", &mesh);
    settled(testbed);
    eventually("datagrams are carried", || {
        let carried = some().into_iter().map(|client| {
            let servers = some();
            let server = servers.iter().find(|server| allows(&client, server));
            let answers = ask_as(testbed, &client, &addresses(server.unwrap()));
            answers
                .iter()
                .all(|a| a.starts_with(&server.unwrap().name))
                .then_some(())
                .ok_or(answers)
        });
        carried.collect::<Result<(), _>>()
    });
}

fn host_of(server: &Somebody) -> [&'static str; 2] {
    match server.host {
        "edge-1" => ["10.77.0.11", "[fd77::11]"],
        _ => ["10.77.0.12", "[fd77::12]"],
    }
}

#[test]
fn each_is_itself_to_each_in_both_families_and_nobody_reads_it() {
    let Some(testbed) = units() else { return };
    begin(&testbed);
    let mut refused = BTreeSet::new();
    let ((), tapped) = testbed.tapped(|| {
        for client in some() {
            for server in some() {
                let service = addresses(&server);
                let own = host_of(&server).map(|ip| format!("{ip}:{}", port(&server)));
                let to = [service, own].concat();
                for (to, answer) in to.iter().zip(ask_as(&testbed, &client, &to)) {
                    let what = format!("{} to {} at {to}: {answer}", client.name, server.name);
                    // By the address of its machine it reaches itself, whatever policies say.
                    let itself = client.number == server.number && !to.ends_with(":77");
                    if !allows(&client, &server) && !itself {
                        assert!(answer.starts_with("silence"), "{what}");
                        refused.insert((client.name.clone(), server.name.clone(), server.host));
                        continue;
                    }
                    let [v4, v6] = host_of(&client);
                    let from = match to.starts_with('[') {
                        true => v6.trim_matches(['[', ']']).to_owned(),
                        false => format!("::ffff:{v4}"),
                    };
                    let want = format!("{} {from} {MARKER}", server.name);
                    assert_eq!(answer, want, "{what}");
                }
            }
        }
    });
    assert_eq!(tapped.marked, 0, "{tapped:?}");
    assert!(tapped.kinds.contains_key(tunnels()), "{tapped:?}");
    // Of flows that are let in the log tells at their end; who may call whom is another's for each.
    for (client, server, host) in refused {
        let words = [
            "inbound",
            &format!("src.identity=\"spiffe://cluster.local/ns/shop/sa/{client}\""),
            &format!("dst.identity=\"spiffe://cluster.local/ns/shop/sa/{server}\""),
            &format!("dst.workload=\"{server}\""),
        ];
        testbed.logged(host, &words);
    }
}

/// In plain text nobody is anybody: who declares a port is called there if its policies let everybody in.
#[test]
fn a_declared_port_is_called_in_plain_text_as_policy_has_it() {
    let Some(testbed) = units() else { return };
    begin(&testbed);
    let who = RunAs::unit("open.service");
    let mut server = serve(&testbed, &who, "edge-1", "open", 7799);
    let open = "[[workload]]\nname = \"open\"\nnamespace = \"shop\"\nservice-account = \"open\"\n\
        node = \"edge-1\"\nlabels = { app = \"open\" }\ncapture = { unit = \"open.service\" }\n\
        [[service]]\nname = \"open\"\nnamespace = \"shop\"\naddresses = [\"10.96.0.199\"]\n\
        ports = [{ port = 77, target-port = 7799, protocol = \"udp\" }]\nselector = { app = \"open\" }\n";
    let strict = "[[peer-authentication]]\nname = \"open\"\nnamespace = \"shop\"\n\
        selector = { match-labels = { app = \"open\" } }\nmtls = { mode = \"STRICT\" }\n";
    let to = ["10.77.0.11:7799".to_owned(), "[fd77::11]:7799".to_owned()];
    testbed.write_mesh_file("open.toml", open);
    let plainly = |host: &str| ask(&testbed, host, None, &to);
    let client = &some()[3];
    eventually("it is known by its service", || {
        let answers = ask_as(&testbed, client, &["10.96.0.199:77".to_owned()]);
        let known = answers[0].starts_with("open ");
        known.then_some(()).ok_or(answers)
    });
    let outside = plainly("outside");
    assert!(
        outside[0].starts_with("open ::ffff:10.77.0.99 "),
        "{outside:?}"
    );
    assert!(outside[1].starts_with("open fd77::99 "), "{outside:?}");
    let flows = testbed.lateen("edge-1", &["connections", "-o", "json"]);
    let flows = text(&flows.stdout);
    let told = flows.contains("10.77.0.99:") && flows.contains("10.77.0.11:7799");
    assert!(told, "{flows}");
    let local = plainly("edge-1");
    assert!(
        local.iter().all(|answer| answer.starts_with("open ")),
        "{local:?}"
    );
    testbed.write_mesh_file("open.toml", &format!("{open}{strict}"));
    for host in ["outside", "edge-1"] {
        eventually("strict keeps it out", || {
            let answers = plainly(host);
            let out = answers.iter().all(|answer| answer.starts_with("silence"));
            out.then_some(()).ok_or((host, answers))
        });
    }
    let answers = ask_as(&testbed, client, &["10.96.0.199:77".to_owned()]);
    assert!(
        answers[0].starts_with("open "),
        "tunnels are let in: {answers:?}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
    fs::remove_file(testbed.mesh_dir().join("open.toml")).unwrap();
    settled(&testbed);
}

#[test]
fn while_the_proxy_is_dead_no_datagram_gets_anywhere() {
    let Some(mut testbed) = units() else { return };
    begin(&testbed);
    let clients: Vec<_> = some().into_iter().filter(|s| s.host == "edge-1").collect();
    let to: Vec<String> = some()
        .iter()
        .filter(|server| server.host == "edge-2")
        .flat_map(|server| {
            let own = host_of(server).map(|ip| format!("{ip}:{}", port(server)));
            [addresses(server), own].concat()
        })
        .collect();
    testbed.kill("edge-1");
    let (answers, seen) = testbed.tapped(|| {
        let asked = clients.iter().map(|client| ask_as(&testbed, client, &to));
        asked.collect::<Vec<_>>().concat()
    });
    testbed.daemon("edge-1");
    assert!(
        answers.iter().all(|a| a.starts_with("silence")),
        "{answers:?}"
    );
    assert_eq!(seen.marked, 0, "{seen:?}");
    begin(&testbed);
}

/// As a virtual machine on `edge-1` is, with a service of UDP.
const VM: &str = "
[[workload]]
name = \"vm-1\"
namespace = \"shop\"
service-account = \"unit-1\"
node = \"edge-1\"
addresses = [\"10.88.0.2\"]
labels = { app = \"vm\" }
capture = { interface = \"tap3\" }

[[service]]
name = \"udp-vm\"
namespace = \"shop\"
addresses = [\"10.96.0.150\"]
ports = [{ port = 77, target-port = 7750, protocol = \"udp\" }]
selector = { app = \"vm\" }
";

/// A service of names.
const NAMES: &str = "10.96.0.151:53";

/// Who is nobody is kept out, and one of the machine.
const STRICT: &str = "
[[authorization-policy]]
name = \"not-unit-0\"
namespace = \"shop\"
action = \"DENY\"
selector = { match-labels = { app = \"vm\" } }
rules = [{ from = [{ source = { principals = [\"cluster.local/ns/shop/sa/unit-0\"] } }] }]

[[peer-authentication]]
name = \"vm\"
namespace = \"shop\"
selector = { match-labels = { app = \"vm\" } }
mtls = { mode = \"STRICT\" }
";

#[test]
fn a_guest_behind_an_interface_is_itself_by_datagrams_too() {
    let Some(testbed) = units() else { return };
    begin(&testbed);
    guest(&testbed);
    let server = ["python3", "-c", SERVER, "vm-1", "7750"];
    // On a network of its own, which the end of the rig does not reach.
    let _guest = testbed.session("edge-1", None, &[&INSIDE[..], &server[..]].concat());
    testbed.write_mesh_file("vm.toml", VM);
    let to = ["10.96.0.150:77".to_owned(), "10.88.0.2:7750".to_owned()];
    let clients = some();
    for client in [&clients[0], &clients[3]] {
        eventually("the guest is asked", || {
            let answers = ask_as(&testbed, client, &to);
            let good = answers
                .iter()
                .all(|said| said.starts_with("vm-1 ::ffff:10."));
            if good { Ok(()) } else { Err(answers) }
        });
    }
    let outside = || ask(&testbed, "outside", None, &to[1..]);
    let way = [
        "ip",
        "route",
        "replace",
        "10.88.0.0/24",
        "via",
        "10.77.0.11",
    ];
    assert!(testbed.exec("outside", None, &way).status.success());
    assert!(
        outside()[0].starts_with("vm-1 ::ffff:10.77.0.99 "),
        "{:?}",
        outside()
    );
    let far = |s: &&Somebody| s.host != "edge-1" && allows(&everybody()[1], s);
    let servers = some();
    let server = servers.iter().find(far).unwrap();
    let names = format!(
        "[[service]]\nname = \"names\"\nnamespace = \"shop\"\naddresses = [\"{}\"]\n\
         ports = [{{ port = 53, target-port = {}, protocol = \"udp\" }}]\n\
         selector = {{ app = \"{}\" }}\n",
        NAMES.trim_end_matches(":53"),
        port(server),
        server.name,
    );
    testbed.write_mesh_file("vm.toml", &format!("{VM}{STRICT}{names}"));
    eventually("strict keeps who is nobody out", || {
        let said = outside();
        if said[0].starts_with("silence") {
            Ok(())
        } else {
            Err(said)
        }
    });
    // It has the account of a unit, and gets where that one gets, by the port of names too.
    let [v4, _] = addresses(server);
    let client = ["python3", "-c", CLIENT, MARKER, &v4, NAMES];
    let ((), tapped) = testbed.tapped(|| {
        let asked = testbed.exec("edge-1", None, &[&INSIDE[..], &client[..]].concat());
        let answer = format!("{} ::ffff:10.77.0.11 {MARKER}", server.name);
        let said = text(&asked.stdout);
        assert!(said.lines().eq([&*answer, &answer]), "{asked:?}");
        let answers = ask_as(&testbed, &clients[3], &to);
        assert!(
            answers.iter().all(|said| said.contains(MARKER)),
            "{answers:?}"
        );
    });
    assert_eq!(tapped.marked, 0, "{tapped:?}");
    assert!(tapped.kinds.contains_key(tunnels()), "{tapped:?}");
    fs::remove_file(testbed.mesh_dir().join("vm.toml")).unwrap();
    settled(&testbed);
}
