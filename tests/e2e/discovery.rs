//! The mesh directory changes, for better and for worse.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{LATEEN, eventually, field, testbed, text};

#[test]
fn an_edit_takes_effect_within_a_second() {
    let testbed = testbed();
    let shop = fs::read_to_string(testbed.mesh_dir().join("shop.toml")).unwrap();
    let moved = shop.replace(
        "port = 80, target-port = 8080",
        "port = 8888, target-port = 8080",
    );
    assert_ne!(shop, moved);
    let begun = Instant::now();
    testbed.write_mesh_file("shop.toml", &moved);
    eventually("the new port answers", || {
        let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:8888", 1);
        if answers[0].contains("server") {
            Ok(())
        } else {
            Err(answers)
        }
    });
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 1);
    assert!(
        answers[0].contains("error"),
        "the old port is gone: {answers:?}"
    );
}

#[test]
fn a_broken_file_changes_nothing_and_is_shown_at_its_line() {
    let testbed = testbed();
    let before = testbed.status("control").unwrap().control.unwrap().revision;
    let shop = fs::read_to_string(testbed.mesh_dir().join("shop.toml")).unwrap();
    let broken = shop.replacen("service-account = \"web\"", "service-acount = \"web\"", 1);
    let line = 1 + broken
        .lines()
        .position(|l| l.contains("service-acount"))
        .unwrap();
    testbed.write_mesh_file("shop.toml", &broken);
    eventually("the control plane says so", || {
        let control = testbed.status("control").unwrap().control.unwrap();
        match control.stale && control.problems.contains("service-acount") {
            true => Ok(()),
            false => Err(control),
        }
    });
    let control = testbed.status("control").unwrap().control.unwrap();
    assert_eq!(control.revision, before, "the revision in force stays");
    let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 2);
    assert!(answers.iter().all(|a| a.contains("server")), "{answers:?}");
    let directory = testbed.mesh_dir().display().to_string();
    let checked = testbed.exec("control", None, &[LATEEN, "check", &directory]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("shop.toml:{line}:")), "{said}");
    assert!(
        said.contains("service-account"),
        "it suggests the right key: {said}"
    );
    testbed.write_mesh_file("shop.toml", &shop);
    let begun = Instant::now();
    eventually("the mend is in force", || {
        let control = testbed.status("control").unwrap().control.unwrap();
        if control.stale { Err(control) } else { Ok(()) }
    });
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_control_plane_that_starts_beside_a_broken_directory_serves_the_last_good_revision() {
    let mut testbed = testbed();
    testbed.kill("control");
    testbed.write_mesh_file("shop.toml", "[[workload]\n");
    testbed.daemon("control");
    eventually("it serves all the same", || {
        let control = testbed.status("control").and_then(|s| s.control);
        match control {
            Some(c)
                if c.stale
                    && c.workloads == 4
                    && c.nodes.iter().all(|n| n.state == "connected") =>
            {
                Ok(())
            }
            other => Err(other),
        }
    });
    let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 2);
    assert!(
        answers.iter().all(|a| !field(a, "server").is_empty()),
        "{answers:?}"
    );
}
