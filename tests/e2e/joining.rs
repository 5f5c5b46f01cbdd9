//! Machines join with tokens, and misuse has its answer.

use crate::support::{CONTROL, eventually, testbed, text};

#[test]
fn tokens_are_for_one_machine_once() {
    let testbed = testbed();
    let token = testbed.token("edge-1");
    let elsewhere = "/run/lateen-elsewhere";
    let config = testbed.state().join("outside-lateen.toml");
    std::fs::write(
        &config,
        format!("node = \"edge-1\"\nstate-dir = \"{elsewhere}\"\n"),
    )
    .unwrap();
    let config = config.display().to_string();
    let join = |token: &str, more: &[&str]| {
        let mut words = vec![
            crate::support::LATEEN,
            "join",
            CONTROL,
            "--token-file",
            "-",
            "--config",
            &config,
        ];
        words.extend(more);
        let file = testbed.state().join("token");
        std::fs::write(&file, token).unwrap();
        let path = file.display().to_string();
        words[4] = &path;
        let output = testbed.exec("outside", None, &words);
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = join(&token, &["--node", "edge-2"]);
    assert!(
        code == Some(1) && said.contains("TOKEN_WRONG_NODE"),
        "{code:?} {said}"
    );
    let cut = token.get(..token.len() / 2).unwrap();
    let (code, said) = join(cut, &[]);
    assert!(
        code == Some(2) && said.contains("damaged or cut short"),
        "{code:?} {said}"
    );
    let id = token.split('.').nth(1).unwrap();
    assert!(
        testbed
            .lateen("control", &["token", "revoke", id])
            .status
            .success()
    );
    let (code, said) = join(&token, &[]);
    assert!(
        code == Some(1) && said.contains("TOKEN_REVOKED"),
        "{code:?} {said}"
    );
    let listed = text(&testbed.lateen("control", &["token", "list"]).stdout);
    assert!(
        listed.contains(id) && listed.contains("revoked"),
        "{listed}"
    );
    testbed.logged("control", &["audit", "join", "refused", "edge-2"]);
}

#[test]
fn a_node_that_is_not_declared_gets_no_token() {
    let testbed = testbed();
    let made = testbed.lateen("control", &["token", "create", "edge-9"]);
    let said = text(&made.stderr);
    assert!(
        !made.status.success() && said.contains("edge-9") && said.contains("edge-1"),
        "{said}"
    );
}

#[test]
fn a_wrong_address_is_unreachable_and_not_a_refusal() {
    let testbed = testbed();
    let token = testbed.token("edge-1");
    let words = ["join", "https://10.77.0.99:15012", "--token-file", "-"];
    let output = testbed.lateen_with("edge-1", &words, &token);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn the_control_plane_knows_what_its_nodes_say_of_themselves() {
    let testbed = testbed();
    eventually("version, revision and certificates", || {
        let listed = testbed.lateen("control", &["node", "list", "-o", "json"]);
        let nodes: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        let nodes = nodes.as_array().unwrap().clone();
        let edge = nodes.iter().find(|n| n["name"] == "edge-1").unwrap();
        let told = edge["version"] == env!("CARGO_PKG_VERSION")
            && edge["certificates"].as_u64().is_some_and(|n| n > 0)
            && edge["expires"].as_u64().is_some()
            && edge["clock-ahead"].as_i64().is_some_and(|s| s.abs() < 5)
            && edge["problem"].is_null();
        match told {
            true => Ok(()),
            false => Err(edge.clone()),
        }
    });
}
