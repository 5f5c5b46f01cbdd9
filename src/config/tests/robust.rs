//! Whatever is in the directory, it is read or told about.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::{Code, loaded};
use crate::config::load;

/// Code, path below the directory, and a part of the message, of each finding.
fn findings(dir: &Path) -> Vec<(Code, String, String)> {
    let report = load(dir).report;
    let findings = report.diagnostics().iter();
    findings
        .map(|d| {
            (
                d.code(),
                d.place().source().relative().to_string(),
                d.message().to_owned(),
            )
        })
        .collect()
}

#[test]
fn a_directory_that_is_not_there_is_an_error_and_an_empty_one_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let found = findings(&dir.path().join("missing"));
    assert!(
        matches!(found.as_slice(), [(Code::Unreadable, path, _)] if path.is_empty()),
        "{found:?}"
    );
    let loaded = load(dir.path());
    assert_eq!(loaded.report.diagnostics()[0].code(), Code::EmptyDirectory);
    assert_eq!((loaded.report.errors(), loaded.report.warnings()), (0, 1));
    let mesh = loaded.mesh.unwrap();
    assert!(mesh.nodes.is_empty() && mesh.workloads.is_empty());
    let file = dir.path().join("a.toml");
    fs::write(&file, "").unwrap();
    assert!(findings(&file)[0].2.contains("is no directory"));
}

#[test]
fn files_that_cannot_be_read_are_told_and_the_others_still_judged() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("binary.toml"), b"# \xff\xfe\n").unwrap();
    symlink("nowhere", path("dangling.toml")).unwrap();
    symlink("/dev/null", path("device.toml")).unwrap();
    fs::write(path("long.toml"), "#".repeat((1 << 20) + 1)).unwrap();
    fs::write(path("longest.toml"), "#".repeat(1 << 20)).unwrap();
    fs::write(path("wrong.toml"), "[[zebra]]\n").unwrap();
    let found = findings(dir.path());
    let want = [
        (Code::Syntax, "binary.toml", "is not UTF-8"),
        (Code::Unreadable, "dangling.toml", "cannot be read"),
        (Code::Unreadable, "device.toml", "is no file"),
        (Code::TooLarge, "long.toml", "longer than 1 MiB"),
        (Code::UnknownKey, "wrong.toml", "zebra"),
    ];
    assert_eq!(found.len(), want.len(), "{found:?}");
    for (got, want) in found.iter().zip(want) {
        assert_eq!((got.0, got.1.as_str()), (want.0, want.1));
        assert!(got.2.contains(want.2), "{got:?}");
    }
}

#[test]
fn a_file_without_permission_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret.toml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser reads it anyway.
    if fs::read(&file).is_err() {
        assert_eq!(findings(dir.path())[0].0, Code::Unreadable);
    }
}

#[test]
fn a_tree_deep_enough_to_overflow_the_stack_is_refused() {
    let key = vec!["a"; 79].join(".");
    let text = format!(
        "[{key}]\nx = {}1{}\n",
        format!("{{{key} = ").repeat(79),
        "}".repeat(79)
    );
    let report = loaded(&[("a.toml", text)]).report;
    assert_eq!(report.diagnostics()[0].code(), Code::TooLarge);
}

/// 10,000 workloads, 1,000 services and twice as many policies; a bound that a slow test machine keeps by far, and that
/// comparing all with all does not.
#[test]
fn a_large_mesh_is_read_in_no_time() {
    let mut files = vec![("nodes.toml", String::new())];
    for node in 0..100 {
        files[0].1 += &format!("[[node]]\nname = \"n{node}\"\naddresses = [\"192.0.2.{node}\"]\n");
    }
    let names = ["a.toml", "b.toml", "c.toml", "d.toml"];
    for (quarter, name) in names.into_iter().enumerate() {
        let mut text = String::new();
        for i in (quarter * 2500)..(quarter * 2500 + 2500) {
            let (high, low, app, node) = (i / 250, i % 250, i % 1000, i % 100);
            text += &format!(
                "[[workload]]\nname = \"w{i}\"\nnode = \"n{node}\"\naddresses = [\"10.1.{high}.{low}\"]\n\
                 labels = {{ app = \"a{app}\", version = \"v1\" }}\ndataplane-mode = \"ambient\"\n\
                 capture = {{ netns = \"w{i}\" }}\n"
            );
        }
        files.push((name, text));
    }
    let mut services = String::new();
    for i in 0..1000 {
        services += &format!(
            "[[service]]\nname = \"s{i}\"\nselector = {{ version = \"v1\", app = \"a{i}\" }}\n\
             addresses = [\"240.240.{}.{}\"]\nports = [{{ port = 80, target-port = 8080 }}]\n",
            i / 250,
            i % 250 + 1
        );
    }
    files.push(("services.toml", services));
    let mut policies = String::new();
    for i in 0..1000 {
        let selector =
            format!("selector = {{ match-labels = {{ version = \"v1\", app = \"a{i}\" }} }}");
        policies += &format!(
            "[[authorization-policy]]\nname = \"p{i}\"\nrules = [{{}}]\n{selector}\n\
             [[peer-authentication]]\nname = \"p{i}\"\n{selector}\n"
        );
    }
    files.push(("policies.toml", policies));
    let begin = Instant::now();
    let loaded = loaded(&files);
    let took = begin.elapsed();
    assert_eq!(loaded.report.diagnostics().len(), 0, "{}", loaded.report);
    assert_eq!(loaded.mesh.unwrap().workloads.len(), 10_000);
    assert!(took.as_secs() < 30, "{took:?}");
    println!("10,000 workloads, 1,000 services and 2,000 policies in {took:?}");
}

/// Every workload names an account that its namespace of many does not have.
#[test]
fn thousands_of_unknown_names_are_not_compared_with_thousands_of_known_ones() {
    let known: Vec<_> = (0..5000).map(|i| format!("\"account-{i}\"")).collect();
    let mut text = format!(
        "[[namespace]]\nname = \"default\"\nservice-accounts = [{}]\n",
        known.join(", ")
    );
    for i in 0..5000 {
        let (high, low) = (i / 250, i % 250);
        text += &format!(
            "[[workload]]\nname = \"w{i}\"\naddresses = [\"10.1.{high}.{low}\"]\nservice-account = \"acount-{i}\"\n"
        );
    }
    let begin = Instant::now();
    let report = loaded(&[("a.toml", text)]).report;
    let took = begin.elapsed();
    let first = &report.diagnostics()[0];
    assert_eq!(first.code(), Code::UnknownServiceAccount);
    assert!(format!("{first:?}").contains("did you mean `account-0`?"));
    assert_eq!(report.errors(), 5000);
    assert!(took.as_secs() < 30, "{took:?}");
}

/// Every policy names a service that its namespace of many does not have.
#[test]
fn thousands_of_unknown_targets_are_not_compared_with_thousands_of_services() {
    let mut text =
        "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\nlabels.app = \"a\"\n".to_owned();
    for i in 0..3000 {
        text += &format!(
            "[[service]]\nname = \"service-{i}\"\nselector.app = \"a\"\nports = [{{ port = 80 }}]\n\
             [[authorization-policy]]\nname = \"p{i}\"\nrules = []\n\
             target-refs = [{{ kind = \"Service\", name = \"sevice-{i}\" }}]\n"
        );
    }
    let begin = Instant::now();
    let report = loaded(&[("a.toml", text)]).report;
    let took = begin.elapsed();
    let found = report.diagnostics().iter();
    let unknown: Vec<_> = found.filter(|d| d.code() == Code::TargetNotFound).collect();
    assert_eq!((unknown.len(), report.errors()), (3000, 0));
    assert!(format!("{:?}", unknown[0]).contains("did you mean `service-0`?"));
    assert!(took.as_secs() < 30, "{took:?}");
}

/// Words that mesh files are made of, so that random texts get past the first line.
fn fragment() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "[[",
        "]]",
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "\n",
        " ",
        "\"",
        "'",
        "#",
        "\"\"\"",
        "node",
        "workload",
        "service",
        "namespace",
        "mesh",
        "name",
        "addresses",
        "labels",
        "capture",
        "health",
        "ports",
        "selector",
        "port",
        "\"a\"",
        "\"10.0.0.1\"",
        "\"240.240.0.0/16\"",
        "\"2s\"",
        "1",
        "-1",
        "0x1F",
        "1.5",
        "true",
        "1979-05-27",
        "[[node]]\nname = \"a\"\n",
        "[[workload]]\nname = \"a\"\naddresses = [\"10.1.0.1\"]\n",
        "[[service]]\n",
        "ports = [{ port = 80 }]\n",
        "selector = { app = \"a\" }\n",
        "labels = {",
        "[[authorization-policy]]\nname = \"a\"\n",
        "[[peer-authentication]]\nname = \"a\"\n",
        "action = \"DENY\"\n",
        "rules = [{",
        "from = [{ source = {",
        "to = [{ operation = {",
        "when = [{ key = \"source.ip\",",
        "values = [\"a*b\"]",
        "principals = [\"spiffe://\"]",
        "target-ref = { kind = \"Service\", name = \"a\" }\n",
        "selector = { match-labels = {",
        "port-level-mtls = { 80 = {",
        "mode = \"STRICT\"",
        "default-namespace",
        "\u{feff}",
        "ä",
        "\r\n",
        "\r",
        "\0",
        "\u{1b}[31m",
    ]);
    prop_oneof![
        9 => prop::collection::vec(words, 0..40).prop_map(|words| words.concat()),
        1 => ".{0,60}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_breaks_the_reader_or_its_report(text in fragment()) {
        use crate::config::diagnose::Style;
        use crate::config::mesh::{self, Written};
        use crate::config::{Report, Source, check, read};

        let source = Source::new("mesh/a.toml", "a.toml", text);
        let mut written = Written::default();
        let outcome = read::document(&source, "this file", |root| mesh::read(root, &mut written));
        let (_mesh, across) = check::check(&[Arc::new(written)], outcome.whole, &mut check::Memory::default());
        prop_assert!(outcome.whole || !outcome.findings.is_empty());
        let report: Report = outcome.findings.into_iter().chain(across).collect();
        for style in [Style::for_stream(true, false, 80), Style::for_stream(false, true, 0)] {
            let text = report.text(&style);
            prop_assert!(style.color || !text.contains('\x1b'));
        }
        let _json = report.to_json().to_string();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_bytes_break_loading(first in prop::collection::vec(any::<u8>(), 0..200), second in fragment()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.toml"), first).unwrap();
        fs::write(dir.path().join("b.toml"), second).unwrap();
        let loaded = load(dir.path());
        prop_assert_eq!(loaded.mesh.is_some(), loaded.report.errors() == 0);
    }
}
