//! The demo, run through: as whoever runs the tests, and as an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{LATEEN, text};

#[test]
fn the_demo_runs_through() {
    let output = Command::new(LATEEN)
        .args(["demo", "--once"])
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("All is as it should be") && said.contains("mutual TLS"),
        "{said}"
    );
}

#[test]
fn the_demo_runs_through_as_an_ordinary_user() {
    if !rustix::process::getuid().is_root() {
        // Then the case above has shown it.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("lateen");
    fs::copy(LATEEN, &binary).unwrap();
    let ordinary = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command
        .args(ordinary)
        .arg(&binary)
        .args(["demo", "--once"])
        .current_dir("/");
    let output = command.output().expect("setpriv, of util-linux, runs");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
}
