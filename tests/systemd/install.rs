//! What `make install` puts where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binary under test.
pub(crate) const LATEEN: &str = env!("CARGO_BIN_EXE_lateen");

/// The units there are.
pub(crate) const UNITS: [&str; 5] = [
    "lateen.service",
    "lateen-control.service",
    "lateen-keeper.service",
    "lateen-node.service",
    "lateen-waypoint@.service",
];

/// Runs a target of the makefile.
pub(crate) fn make(target: &str, variables: &[(&str, &Path)]) {
    let mut command = Command::new("make");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(target);
    command.arg(format!("BINARY={LATEEN}"));
    for (name, value) in variables {
        command.arg(format!("{name}={}", value.display()));
    }
    let output = command.output().expect("make runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make {target}: {said}");
}

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn everything_is_installed_below_destdir_and_all_of_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let staged = directory.path().join("staged");
    let variables = [("DESTDIR", &*staged), ("prefix", Path::new("/usr"))];
    make("install-files", &variables);
    let mut want = vec![
        "usr/bin/lateen".to_owned(),
        "usr/lib/sysusers.d/lateen.conf".to_owned(),
        "usr/lib/tmpfiles.d/lateen.conf".to_owned(),
        "usr/share/man/man1/lateen.1".to_owned(),
    ];
    let units = UNITS.map(|unit| format!("usr/lib/systemd/system/{unit}"));
    want.extend(units.iter().cloned());
    want.sort();
    let installed = files(&staged);
    let names = installed.iter().map(|path| path.strip_prefix(&staged));
    let names: Vec<_> = names.map(|n| n.unwrap().display().to_string()).collect();
    assert_eq!(names, want);
    for unit in &units {
        let text = fs::read_to_string(staged.join(unit)).unwrap();
        assert!(text.contains("\nExecStart=/usr/bin/lateen "), "{unit}");
        assert!(!text.contains('@') || !text.contains("@bindir@"), "{unit}");
    }
    make("uninstall", &variables);
    assert_eq!(files(&staged), Vec::<PathBuf>::new());
}
