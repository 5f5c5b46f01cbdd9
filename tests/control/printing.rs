//! What verbs print when nobody reads it, or it cannot be written.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::LATEEN;

/// Verbs that print a page each, and need nothing of a mesh.
const VERBS: [&[&str]; 3] = [
    &["man"],
    &["completions", "bash"],
    &["check", "examples/quickstart/mesh"],
];

fn lateen(words: &[&str]) -> Command {
    let mut command = Command::new(LATEEN);
    command.args(words).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

#[test]
fn that_nobody_reads_on_is_no_failure() {
    for verb in VERBS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = lateen(verb).stdout(writer).output().unwrap();
        assert!(ended.status.success(), "{verb:?}: {ended:?}");
        assert!(ended.stderr.is_empty(), "{verb:?}: {ended:?}");
    }
}

#[test]
fn what_cannot_be_written_is_a_failure_and_says_so() {
    for verb in VERBS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = lateen(verb).stdout(Stdio::from(full)).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{verb:?}: {ended:?}");
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(
            said.starts_with("lateen: cannot print: "),
            "{verb:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{verb:?}: {said}");
    }
}
