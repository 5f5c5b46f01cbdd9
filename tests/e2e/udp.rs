//! Programs that know nothing of a mesh, over UDP: each through tunnels over TCP and over QUIC.

mod files;
mod flows;
mod hostile;
mod names;
mod streams;

use lateen::rig::tap::Seen;

use crate::support::{Testbed, eventually, text};

/// Over what tunnels go.
const TRANSPORTS: [&str; 2] = ["tcp", "quic"];

/// Who asks.
const WEB: (&str, Option<&str>) = ("edge-1", Some("web"));
/// Who is asked, and by which addresses.
const LEDGER: (&str, Option<&str>) = ("edge-2", Some("ledger"));
const SERVICE: [&str; 2] = ["10.96.0.77", "fd96::77"];
const OWN: &str = "10.77.2.13";

/// Ports that are in tunnels alone: its own, and its programs'.
const NEVER_IN_CLEAR: [u16; 10] = [7, 53, 69, 443, 514, 5201, 5353, 5514, 7777, 8443];

const MESH: &str = "
[[service]]
name = \"udp\"
namespace = \"shop\"
addresses = [\"10.96.0.77\", \"fd96::77\"]
selector = { app = \"ledger\" }
ports = [
  { port = 7, target-port = 7777, name = \"udp-echo\" },
  { port = 53, target-port = 5353, protocol = \"udp\", app-protocol = \"dns\", name = \"dns\" },
  { port = 53, target-port = 5353, protocol = \"tcp\", app-protocol = \"dns\", name = \"dns-tcp\" },
  { port = 69, protocol = \"udp\", name = \"tftp\" },
  { port = 443, target-port = 8443, app-protocol = \"h3\", name = \"h3\" },
  { port = 514, target-port = 5514, protocol = \"udp\", name = \"syslog\" },
  { port = 5201, protocol = \"udp\", name = \"iperf-udp\" },
  { port = 5201, protocol = \"tcp\", app-protocol = \"tcp\", name = \"iperf-tcp\" },
]
";

/// Echoes what it hears, and tells what it has heard that says of itself that it is forged.
const ECHO: &str = "
import json,socket
s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,8<<20)
s.bind(('::',7777))
forged=[]
while True:
    data,peer=s.recvfrom(65535)
    if data.startswith(b'forged'): forged.append(data[:99].decode())
    s.sendto(json.dumps(forged).encode() if data==b'heard?' else data,peer)
";

/// Has the mesh hold the service, tunnels go so, and `web` ask name servers of its own choice.
fn over(testbed: &Testbed, transport: &str) {
    testbed.write_mesh_file("policy.toml", MESH);
    let mesh = include_str!("../../examples/quickstart/mesh/mesh.toml");
    let shop = include_str!("../../examples/quickstart/mesh/shop.toml");
    for (file, text, line, more) in [
        (
            "mesh.toml",
            mesh,
            "dataplane-mode = \"ambient\"",
            format!("transport = \"{transport}\""),
        ),
        (
            "shop.toml",
            shop,
            "service-account = \"web\"",
            "dns-capture = false".to_owned(),
        ),
    ] {
        assert!(text.contains(line), "{file}");
        let text = text.replacen(line, &format!("{line}\n{more}"), 1);
        testbed.write_mesh_file(file, &text);
    }
    testbed.settled();
    let wanted = format!("\"transport\":\"{transport}\"");
    for host in ["edge-1", "edge-2"] {
        eventually(&format!("tunnels by {transport}"), || {
            let told = testbed.lateen(host, &["status", "-o", "json"]);
            let told = text(&told.stdout).replace(' ', "");
            told.contains(&wanted).then_some(()).ok_or(told)
        });
    }
}

/// What is on the wire meanwhile is tunnels of that transport.
fn tunnelled<T>(testbed: &Testbed, transport: &str, work: impl FnOnce() -> T) -> (T, Seen) {
    let (result, seen) = testbed.tapped(work);
    let count = |kind: &str| seen.kinds.get(kind).copied().unwrap_or_default();
    let (these, others) = match transport {
        "quic" => ("udp/15008", "tcp/15008"),
        _ => ("tcp/15008", "udp/15008"),
    };
    assert!(count(these) > count(others), "{transport}: {seen:?}");
    assert_eq!(seen.marked, 0, "{transport}: {seen:?}");
    for port in NEVER_IN_CLEAR {
        let kind = format!("udp/{port}");
        assert!(!seen.kinds.contains_key(&kind), "{transport}: {seen:?}");
    }
    (result, seen)
}

/// That the programs are there: what cannot be started must not be taken for silence.
fn needs(programs: &[&str]) {
    for program in programs {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .any(|dir| std::path::Path::new(dir).join(program).exists());
        assert!(found, "{program} is not installed: `make test` does it");
    }
}

/// What a command of `web` prints, which must not fail.
fn prints(testbed: &Testbed, command: &[&str]) -> String {
    let output = testbed.exec(WEB.0, WEB.1, command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    text(&output.stdout)
}

/// Starts a program of `ledger` and waits until it is heard from within.
fn serves(testbed: &mut Testbed, command: &[&str], listening: &str) {
    let there = |testbed: &Testbed| {
        let sockets = testbed.exec(LEDGER.0, LEDGER.1, &["ss", "-Hlun"]);
        text(&sockets.stdout)
    };
    if there(testbed).contains(listening) {
        return;
    }
    testbed.program(LEDGER.0, LEDGER.1, command);
    eventually(&format!("{} listens on {listening}", command[0]), || {
        let sockets = there(testbed);
        match sockets.contains(listening) {
            true => Ok(()),
            false => Err(sockets),
        }
    });
}
