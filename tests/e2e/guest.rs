//! A node that has not joined: a token names it, as it would to another's control plane.

use std::fs;

use crate::support::{CONTROL, Testbed, eventually, field, testbed, text};

/// Settings of `edge-2` as a guest, with its files beside them.
fn settings(testbed: &Testbed, state_dir: &str) -> String {
    let home = testbed.state().join("edge-2");
    let made = testbed.lateen("control", &["token", "node", "edge-2"]);
    assert!(made.status.success(), "{made:?}");
    // An end of line as an editor leaves it, which is not part of the token.
    let token = text(&made.stdout) + "\n";
    fs::write(home.join("token"), token).unwrap();
    let root = testbed.control_state().join("control/ca/root.pem");
    fs::copy(root, home.join("root.pem")).unwrap();
    for file in ["token", "root.pem"] {
        // The node's proxy runs as another user than this test.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(home.join(file), readable).unwrap();
    }
    let captures = ["cart-2", "ledger"].map(|name| {
        format!(
            "[[capture]]\nnamespace = \"shop\"\nname = \"{name}\"\ncapture = {{ netns = \"{name}\" }}\n"
        )
    });
    format!(
        "node = \"edge-2\"\nuser = 1337\nstate-dir = \"{state_dir}\"\n\n[control]\n\
         addresses = [\"{CONTROL}\"]\ntoken-file = \"{home}/token\"\nroot-file = \"{home}/root.pem\"\n\n{}",
        captures.concat(),
        home = home.display(),
    )
}

#[test]
fn a_token_and_the_root_are_enough_to_follow_a_control_plane() {
    let mut testbed = testbed();
    let joined = fs::read_to_string(testbed.config("edge-2")).unwrap();
    let mesh = fs::read_to_string(testbed.mesh_dir().join("mesh.toml")).unwrap();
    let named = "name = \"edge-2\"\n";
    let declared = mesh.replace(named, &format!("{named}proxy = \"ztunnel\"\n"));
    assert_ne!(mesh, declared);
    testbed.write_mesh_file("mesh.toml", &declared);
    testbed.kill("edge-2");

    let both = settings(&testbed, "/run/lateen-state");
    fs::write(testbed.config("edge-2"), both).unwrap();
    let refused = testbed.lateen("edge-2", &["run", "--node"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(
        said.contains("joined the mesh of `cluster.local`"),
        "{said}"
    );

    let guest = settings(&testbed, "/run/lateen-guest");
    fs::write(testbed.config("edge-2"), guest).unwrap();
    let refused = testbed.lateen("edge-2", &["run", "--waypoint", "shop/wp"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no policy and no route would be in force"),
        "{said}"
    );
    testbed.daemon("edge-2");
    eventually("it follows, captures, and has certificates", || {
        let node = testbed.status("edge-2").and_then(|s| s.node).ok_or(None)?;
        let captured = node.workloads.iter().filter(|w| w.capture == "captured");
        let certified = node.certificates.iter().filter(|c| c.serial.is_some());
        let whole = captured.count() == 2 && certified.count() == 2;
        match whole && node.control.as_deref() == Some(CONTROL) && node.stale_since.is_none() {
            true => Ok(()),
            false => Err(Some(node)),
        }
    });
    eventually("it serves the mesh", || {
        let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 4);
        let serves = answers.iter().filter(|a| field(a, "server") == "cart-2");
        match serves.count() == 2 {
            true => Ok(()),
            false => Err(answers),
        }
    });
    let identity = "src.identity=\"spiffe://cluster.local/ns/shop/sa/web\"";
    testbed.logged("edge-2", &["connection complete", identity]);
    let answers = testbed.ask("edge-2", Some("cart-2"), "10.77.1.12:8080", 1);
    assert_eq!(field(&answers[0], "server"), "cart-1", "{answers:?}");

    testbed.kill("control");
    eventually("it says since when it has been alone", || {
        let node = testbed.status("edge-2").and_then(|s| s.node).ok_or(None)?;
        match node.stale_since.is_some() && node.controls.iter().all(|c| c.error.is_some()) {
            true => Ok(()),
            false => Err(Some(node)),
        }
    });
    let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 4);
    assert!(answers.iter().all(|a| a.contains("server")), "{answers:?}");

    testbed.kill("edge-2");
    fs::write(testbed.config("edge-2"), joined).unwrap();
}
