//! Tables of mesh directories and what is found in them. Rows of [`keys`] are one file each,
//! those of [`across`] several.

mod accepted;
mod across;
mod again;
mod bindings;
mod golden;
mod keys;
mod robust;
mod routes;
mod telemetry;
mod virtual_services;

use std::collections::BTreeSet;
use std::fs;

use super::{Code, Loaded, load};

/// A mesh directory by its files, and what is found: file, line, column, code, and a text that
/// must be in the message, its labels or its help.
type Row = (&'static str, Vec<(&'static str, String)>, Vec<Want>);
type Want = (&'static str, u32, u32, Code, &'static str);

/// Loads files from a directory of their own.
fn loaded(files: &[(&str, String)]) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    load(dir.path())
}

/// Loads each row and compares.
fn judge(rows: Vec<Row>) {
    let mut failures = Vec::new();
    for (name, files, want) in rows {
        let report = loaded(&files).report;
        // Beside every mistake in a health check of a workload on no node; two rows are about it.
        let beside = "has a health check, and";
        let meant = want.iter().any(|want| want.3 == Code::NoEffect);
        let got = report.diagnostics().iter();
        let got = got.filter(|found| meant || !found.message().contains(beside));
        let got: Vec<_> = got.collect();
        let matches = got.len() == want.len()
            && got
                .iter()
                .zip(&want)
                .all(|(got, (file, line, column, code, text))| {
                    let place = got.place();
                    let said = format!("{:?} {}", got, got.message());
                    (
                        &**place.source().relative(),
                        place.start().line,
                        place.start().column,
                    ) == (*file, *line, *column)
                        && got.code() == *code
                        && said.contains(text)
                });
        if !matches {
            failures.push(format!("--- {name}\nwant {want:#?}\ngot\n{report}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_code_is_in_some_row() {
    let rows = keys::rows().into_iter().chain(across::rows());
    let rows = rows.chain(bindings::rows()).chain(routes::rows());
    let rows = rows.chain(virtual_services::rows());
    let shown: BTreeSet<_> = rows.flat_map(|row| row.2).map(|want| want.3).collect();
    // These need more than text; `robust` has them.
    let elsewhere = [
        Code::Unreadable,
        Code::EmptyDirectory,
        // Nothing can be of its own namespace alone yet; `model::binding` has it.
        Code::CrossNamespaceWaypointForbidden,
    ];
    let missing: Vec<_> = Code::ALL
        .iter()
        .filter(|code| !shown.contains(code) && !elsewhere.contains(code))
        .collect();
    assert_eq!(missing, Vec::<&Code>::new());
}

#[test]
fn codes_are_distinct_words() {
    let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(words.len(), Code::ALL.len());
    assert!(
        words
            .iter()
            .all(|word| word.chars().all(|c| c.is_ascii_alphabetic() || c == '-'))
    );
}
