//! Programs that send many datagrams in a row: iperf3, HTTP/3, syslog.

use std::fs;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{ECHO, LEDGER, SERVICE, TRANSPORTS, WEB, needs, over, prints, serves, tunnelled};
use crate::programs::client::Order;
use crate::programs::http3::{Http3, body};
use crate::programs::{Program, until_ready};
use crate::support::{MARKER, eventually, testbed, text};

/// Bytes of a download.
const LENGTH: u32 = 5_000_000;

#[test]
fn iperf3_sends_twenty_megabits_and_its_connection_has_the_same_port() {
    needs(&["iperf3"]);
    let mut testbed = testbed();
    for transport in TRANSPORTS {
        over(&testbed, transport);
        testbed.program(LEDGER.0, LEDGER.1, &["iperf3", "--server", "--one-off"]);
        eventually("iperf3 listens", || {
            let sockets = testbed.exec(LEDGER.0, LEDGER.1, &["ss", "-Hltn"]);
            match text(&sockets.stdout).contains(":5201") {
                true => Ok(()),
                false => Err(sockets),
            }
        });
        let words = [
            "iperf3", "-c", SERVICE[0], "-u", "-b", "20M", "-t", "3", "--json",
        ];
        let (said, seen) = tunnelled(&testbed, transport, || prints(&testbed, &words));
        let said: Value = serde_json::from_str(&said).unwrap();
        let sum = &said["end"]["sum"];
        let lost = sum["lost_percent"].as_f64().unwrap();
        let packets = sum["packets"].as_u64().unwrap();
        eprintln!("{transport}: {packets} datagrams, {lost} % lost");
        assert!(packets > 4_000 && lost < 1.0, "{transport}: {sum}");
        assert!(seen.bytes > 7_000_000, "{transport}: {seen:?}");
    }
}

/// Their QUIC within ours, or within a stream: its packets are as long as a path lets them.
#[test]
fn http3_downloads_whole() {
    let mut testbed = testbed();
    let server = Program::Http3(Http3 { port: 8443 }).command();
    let server: Vec<_> = server.iter().map(String::as_str).collect();
    let client = Program::Client.command();
    let client: Vec<_> = client.iter().map(String::as_str).collect();
    let hash = format!("{:x}", Sha256::digest(body(LENGTH)));
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &server, ":8443");
        let mut session = testbed.session(WEB.0, WEB.1, &client);
        until_ready(&mut session);
        for to in [
            format!("{}:443", SERVICE[0]),
            format!("[{}]:443", SERVICE[1]),
        ] {
            let order = Order::Download { to, length: LENGTH };
            let order = serde_json::to_string(&order).unwrap();
            let (said, _seen) = tunnelled(&testbed, transport, || {
                session.say(&order);
                session.line()
            });
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["status"], 200, "{transport}: {said}");
            assert_eq!(said["bytes"], LENGTH, "{transport}: {said}");
            assert_eq!(said["sha256"], *hash, "{transport}: {said}");
        }
    }
}

/// Sends so many as fast as it can, once it has been answered; prints how many come back.
const BURST: &str = "
import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)
s.connect((sys.argv[1],7)); s.send(b'first'); s.recv(9)
for n in range(300): s.send(b'%d'%n)
s.settimeout(1); heard=set()
try:
    while len(heard)<300: heard.add(s.recv(9))
except OSError: pass
print(len(heard))
";

/// As many as a link holds for a host that is busy for a moment.
#[test]
fn hundreds_in_one_go_are_carried() {
    let mut testbed = testbed();
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &["python3", "-c", ECHO], ":7777");
        let words = ["python3", "-c", BURST, SERVICE[0]];
        let runs = [(); 5].map(|()| prints(&testbed, &words).trim().parse::<usize>().unwrap());
        eprintln!("{transport}: of 300 in one go {runs:?}");
        assert!(
            runs.iter().sum::<usize>() > 5 * 270,
            "{transport}: {runs:?}"
        );
    }
}

/// Writes what it hears, a line each.
const SYSLOG: &str = "
import socket,sys
s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.bind(('::',5514))
with open(sys.argv[1],'w',buffering=1) as out:
    while True:
        out.write(s.recv(65535).decode().rstrip('\\n')+'\\n')
";

/// A thousand messages of logger's, one each 2 ms: those wait that come while the tunnel is opened.
const LOGGER: &str = "
import subprocess,sys,time
l=subprocess.Popen(['logger','--udp','--server',sys.argv[1],'--port','514','--tag','rig'],stdin=subprocess.PIPE)
for n in range(1000):
    l.stdin.write(b'%s message %d\\n'%(sys.argv[2].encode(),n)); l.stdin.flush()
    time.sleep(.002)
l.stdin.close(); sys.exit(l.wait())
";

#[test]
fn syslog_loses_no_message_of_a_thousand() {
    needs(&["logger"]);
    let mut testbed = testbed();
    let heard = testbed.state().join("syslog");
    let server = ["python3", "-c", SYSLOG, heard.to_str().unwrap()];
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &server, ":5514");
        let tag = format!("{MARKER}-{transport}");
        tunnelled(&testbed, transport, || {
            prints(&testbed, &["python3", "-c", LOGGER, SERVICE[0], &tag]);
            eventually(&format!("{transport}: every message"), || {
                let all = fs::read_to_string(&heard).unwrap();
                let mut numbers: Vec<usize> = all
                    .lines()
                    .filter(|line| line.contains(&tag))
                    .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
                    .collect();
                numbers.sort_unstable();
                match numbers.iter().copied().eq(0..1000) {
                    true => Ok(()),
                    false => Err(numbers.len()),
                }
            });
        });
    }
}
