use std::sync::Arc;

use super::*;
use crate::config::source::Source;

fn source(name: &str, text: &str) -> Arc<Source> {
    Source::new(name, name, text.to_owned())
}

fn plain() -> Style {
    Style::for_stream(false, true, 80)
}

#[test]
fn findings_are_sorted_by_file_and_place_and_errors_come_first() {
    let (a, b) = (source("a", "xyz"), source("b", "xyz"));
    let found = [
        (Code::Syntax, b.place(0..1)),
        (Code::NoEffect, a.place(1..2)),
        (Code::BadValue, a.place(1..2)),
        (Code::NoEffect, a.place(0..1)),
    ];
    let report: Report = found
        .map(|(code, place)| Diagnostic::new(code, place, "m"))
        .into_iter()
        .collect();
    let order: Vec<_> = report
        .diagnostics()
        .iter()
        .map(|d| (d.place().to_string(), d.code()))
        .collect();
    let want = [
        ("a:1:1", Code::NoEffect),
        ("a:1:2", Code::BadValue),
        ("a:1:2", Code::NoEffect),
        ("b:1:1", Code::Syntax),
    ];
    assert_eq!(order, want.map(|(place, code)| (place.to_owned(), code)));
    assert_eq!((report.errors(), report.warnings()), (2, 2));
}

#[test]
fn a_report_without_findings_says_so() {
    assert_eq!(Report::default().text(&plain()), "no findings\n");
    assert_eq!(
        Report::default().to_json()["diagnostics"],
        serde_json::json!([])
    );
}

#[test]
fn what_would_steer_a_terminal_is_not_printed() {
    let file = source("a\x1b[2J", "x = \"\x1b[31m\u{9b}\"\n");
    let finding = Diagnostic::new(Code::BadValue, file.place(4..9), "\x07 is bad")
        .label("\x08")
        .help("\x7f");
    let report = Report::from_iter([finding]);
    for style in [
        plain(),
        Style {
            drawing: Drawing::Narrated,
            ..plain()
        },
        Style {
            drawing: Drawing::Unicode,
            ..plain()
        },
    ] {
        let text = report.text(&style);
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{text:?}"
        );
        assert!(text.contains("x = \"?[31m??\""), "{text:?}");
    }
}

#[test]
fn lines_too_long_to_show_leave_the_headline() {
    let file = source("a", &format!("x = 1\ny = {}\n", "1".repeat(10_000)));
    let text = Report::from_iter([Diagnostic::new(
        Code::BadValue,
        file.place(10..20),
        "is bad",
    )])
    .text(&plain());
    assert_eq!(text, "a:2:5: error: is bad [bad-value]\n\n1 error\n");
}

#[test]
fn a_finding_about_a_whole_file_has_no_line() {
    let finding =
        Diagnostic::new(Code::Unreadable, source("a", "").whole(), "cannot be read").help("chmod");
    let text = Report::from_iter([finding]).text(&plain());
    assert_eq!(
        text,
        "a: error: cannot be read [unreadable]\n  help: chmod\n\n1 error\n"
    );
}

#[test]
fn more_findings_than_are_shown_are_counted() {
    let file = source("a", "x");
    let many = (0..5).map(|_| Diagnostic::new(Code::BadValue, file.place(0..1), "is bad"));
    let text = Report::from_iter(many).text(&Style { most: 2, ..plain() });
    assert_eq!(text.matches(": error: ").count(), 2);
    assert!(text.ends_with("5 errors, the first 2 of them shown\n"));
}
