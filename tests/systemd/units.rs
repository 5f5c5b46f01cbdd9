//! What systemd-analyze says of the units.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::install::{UNITS, make};

/// The most exposure allowed, in tenths (`spec/reliability.md` §6).
const LIMITS: [(&str, u32); 5] = [
    ("lateen.service", 12),
    ("lateen-control.service", 12),
    ("lateen-keeper.service", 22),
    ("lateen-node.service", 12),
    ("lateen-waypoint@.service", 12),
];

/// systemd-analyze on the units installed below `prefix`, unless there is none.
fn analyze(case: &str, arguments: &[&str], units: &[PathBuf]) -> Option<Output> {
    let mut command = Command::new("systemd-analyze");
    let output = command
        .args(arguments)
        .args(units)
        .env("LC_ALL", "C")
        .output();
    match output {
        Ok(output) => Some(output),
        Err(e) => {
            eprintln!("{case}: skipped, systemd-analyze does not run: {e}");
            None
        }
    }
}

fn installed(prefix: &Path) -> PathBuf {
    make("install-files", &[("prefix", prefix)]);
    prefix.join("lib/systemd/system")
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let prefix = tempfile::tempdir().unwrap();
    let directory = installed(prefix.path());
    let units = UNITS.map(|unit| directory.join(unit));
    let Some(output) = analyze("units", &["verify", "--man=no"], &units) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|l| l.contains("lateen")).collect();
    assert!(ours.is_empty() && output.status.success(), "{said}");
}

#[test]
fn units_expose_no_more_than_they_may() {
    let prefix = tempfile::tempdir().unwrap();
    let directory = installed(prefix.path());
    for (unit, limit) in LIMITS {
        let threshold = format!("--threshold={limit}");
        let arguments = ["security", "--offline=true", "--no-pager", &threshold];
        let Some(output) = analyze(unit, &arguments, &[directory.join(unit)]) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{unit} above {limit}: {said}");
    }
}
