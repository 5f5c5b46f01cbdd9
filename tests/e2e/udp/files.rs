//! TFTP, whose servers answer from a port of their own choice unless they are told not to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::{LEDGER, MESH, SERVICE, TRANSPORTS, WEB, needs, over, serves, tunnelled};
use crate::support::{MARKER, Testbed, eventually, testbed, text};

const OTHERS: &str = "
[[service]]
name = \"boot\"
namespace = \"shop\"
addresses = [\"10.96.0.69\"]
selector = { app = \"cart\" }
ports = [{ port = 69, protocol = \"udp\" }]
";

/// A file that is served, and what serves it.
fn server(testbed: &Testbed) -> (PathBuf, Vec<String>) {
    let root = testbed.state().join("tftp");
    let file = root.join("image");
    fs::create_dir_all(&root).unwrap();
    fs::write(&file, MARKER.repeat(10_000)).unwrap();
    for (path, mode) in [(&root, 0o755), (&file, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let root = format!("--tftp-root={}", root.display());
    let words = [
        "dnsmasq",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--enable-tftp",
        &root,
    ];
    (file, words.map(str::to_owned).into())
}

fn fetched(testbed: &Testbed, at: &str, seconds: &str) -> std::process::Output {
    let url = format!("tftp://{at}/image");
    testbed.exec(WEB.0, WEB.1, &["curl", "-sS", "-m", seconds, &url])
}

#[test]
fn a_file_comes_whole_from_a_server_that_answers_where_it_is_asked() {
    needs(&["dnsmasq", "curl"]);
    let mut testbed = testbed();
    let (file, mut command) = server(&testbed);
    command.push("--tftp-single-port".to_owned());
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    for transport in TRANSPORTS {
        over(&testbed, transport);
        serves(&mut testbed, &command, ":69");
        for at in [SERVICE[0].to_owned(), format!("[{}]", SERVICE[1])] {
            let (output, _seen) = tunnelled(&testbed, transport, || fetched(&testbed, &at, "20"));
            assert!(
                output.status.success(),
                "{transport} {at}: {:?}",
                text(&output.stderr)
            );
            assert!(
                output.stdout == fs::read(&file).unwrap(),
                "{transport} {at}"
            );
        }
    }
}

/// As behind any translation of addresses without a helper that reads TFTP (docs/configuration.md).
#[test]
fn a_server_that_answers_from_another_port_is_not_heard() {
    needs(&["dnsmasq", "curl"]);
    let mut testbed = testbed();
    let (_file, command) = server(&testbed);
    let cart = ("edge-2", Some("cart-2"));
    assert_ne!(cart, LEDGER);
    let words: Vec<_> = command.iter().map(String::as_str).collect();
    testbed.program(cart.0, cart.1, &words);
    let outside = || {
        testbed.exec(
            cart.0,
            cart.1,
            &["curl", "-sS", "-m", "1", "tftp://127.0.0.1/image"],
        )
    };
    eventually("dnsmasq serves files", || match outside() {
        output if output.status.success() => Ok(()),
        output => Err(output),
    });
    over(&testbed, TRANSPORTS[0]);
    testbed.write_mesh_file("policy.toml", &format!("{MESH}{OTHERS}"));
    testbed.settled();
    let output = fetched(&testbed, "10.77.2.12", "2");
    assert_eq!(output.status.code(), Some(28), "a timeout: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}
