//! The control plane as a service: readiness, status, reload, the watchdog, the way it stops.

use crate::machine::{Machine, said};

const MESH: &str = r#"
default-namespace = "shop"
[[node]]
name = "edge-1"
addresses = ["192.0.2.11"]
[[namespace]]
name = "shop"
"#;

const SERVICE: &str = r#"
default-namespace = "shop"
[[service]]
name = "cart"
ports = [{ port = 80, target-port = 8080 }]
selector = { app = "cart" }
"#;

/// Shorter than it ships, so that the test is.
const IMPATIENT: &str = "[Service]\nWatchdogSec=2s\n";

#[test]
fn the_control_plane_runs_under_systemd() {
    let Some(machine) = Machine::boot("the_control_plane_runs_under_systemd") else {
        return;
    };
    let unit = "lateen-control.service";
    machine.write("/etc/lateen/mesh/mesh.toml", MESH);
    wrong_settings_are_not_tried_again(&machine, unit);
    machine.write(
        "/etc/systemd/system/lateen-control.service.d/test.conf",
        IMPATIENT,
    );
    machine.ok(&["systemctl", "daemon-reload"]);
    starts_when_it_serves(&machine, unit);
    reloads(&machine, unit);
    is_restarted_when_it_hangs(&machine, unit);
    // So that whoever runs this by name sees it.
    eprintln!(
        "{}",
        said(&machine.run(&["systemctl", "status", "--no-pager", unit]))
    );
    stops(&machine, unit);
    eprintln!("{}", machine.journal());
}

fn wrong_settings_are_not_tried_again(machine: &Machine, unit: &str) {
    machine.write("/etc/lateen/lateen.toml", "workerz = 2\n");
    assert!(!machine.run(&["systemctl", "start", unit]).status.success());
    assert_eq!(machine.property(unit, "ActiveState"), "failed");
    assert_eq!(machine.property(unit, "ExecMainStatus"), "2");
    machine.logged("workerz");
    let told = said(&machine.run(&["lateen", "doctor", "-o", "json"]));
    for code in ["settings-invalid", "unit-failed"] {
        assert!(told.contains(code), "{code}: {told}");
    }
    machine.write("/etc/lateen/lateen.toml", "[log]\nlevel = \"info\"\n");
}

fn starts_when_it_serves(machine: &Machine, unit: &str) {
    machine.ok(&["systemctl", "start", unit]);
    assert_eq!(machine.property(unit, "ActiveState"), "active");
    // Ready means ready: nothing is waited for here.
    let answer = machine.ok(&["lateen", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(status["control"]["revision"].is_u64(), "{answer}");
    machine.eventually(
        "the status tells the revision",
        &["systemctl", "show", "--value", "-p", "StatusText", unit],
        |o| said(o).starts_with("control: revision 1, 0 nodes connected"),
    );
    let user = machine.ok(&["stat", "-c", "%U %a", "/var/lib/lateen", "/run/lateen"]);
    assert_eq!(user, "lateen 700\nlateen 770\n");
}

fn reloads(machine: &Machine, unit: &str) {
    let descriptors = |machine: &Machine| {
        let pid = machine.property(unit, "MainPID");
        let listed = machine.ok(&["ls", &format!("/proc/{pid}/fd")]);
        listed.lines().count()
    };
    let (pid, before) = (machine.property(unit, "MainPID"), descriptors(machine));
    machine.write("/etc/lateen/mesh/shop.toml", SERVICE);
    machine.write(
        "/etc/lateen/lateen.toml",
        "workers = 3\n[log]\nlevel = \"debug\"\n",
    );
    machine.ok(&["systemctl", "reload", unit]);
    for line in [
        "the log has another level",
        "in force only after a restart keys=\"workers\"",
        "mesh directory read workloads=0 services=1",
    ] {
        machine.logged(line);
    }
    machine.write("/etc/lateen/lateen.toml", "workers = \"many\"\n");
    machine.ok(&["systemctl", "reload", unit]);
    machine.logged("the settings in force stay");
    machine.write("/etc/lateen/lateen.toml", "");
    for _ in 0..20 {
        machine.ok(&["systemctl", "reload", unit]);
    }
    assert_eq!(machine.property(unit, "ActiveState"), "active");
    assert_eq!(
        machine.property(unit, "MainPID"),
        pid,
        "it is the same process"
    );
    assert_eq!(descriptors(machine), before, "descriptors");
}

fn is_restarted_when_it_hangs(machine: &Machine, unit: &str) {
    let pid = machine.property(unit, "MainPID");
    machine.ok(&["kill", "-STOP", &pid]);
    machine.eventually(
        "a hung process is taken for one",
        &["systemctl", "show", "--value", "-p", "NRestarts", unit],
        |o| said(o).trim() == "1",
    );
    machine.eventually(
        "and another one serves",
        &["systemctl", "is-active", unit],
        |o| said(o).trim() == "active",
    );
    assert_ne!(machine.property(unit, "MainPID"), pid);
    machine.logged("Watchdog timeout");
}

fn stops(machine: &Machine, unit: &str) {
    machine.ok(&["systemctl", "stop", unit]);
    assert_eq!(machine.property(unit, "ActiveState"), "inactive");
    assert_eq!(machine.property(unit, "Result"), "success");
}
