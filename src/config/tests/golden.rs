//! Reports as people and programs see them, kept beside what they are about. After a change that
//! is meant, `UPDATE_GOLDEN=1 cargo test golden` writes them anew.

use std::fs;
use std::path::Path;

use crate::config::diagnose::{Drawing, Style};
use crate::config::{load, report};

const DIR: &str = "src/config/testdata";

fn compare(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIR).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, got).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap();
    assert_eq!(got, want, "{name}");
}

#[test]
fn a_broken_mesh_reads_well() {
    // Tests run in the package's directory, so that the paths are the same everywhere.
    let loaded = load(Path::new(DIR).join("broken").as_path());
    let style = |terminal, no_color| Style::for_stream(terminal, no_color, 80);
    compare("broken.txt", &report::text(&loaded, &style(false, false)));
    compare(
        "broken.unicode.txt",
        &report::text(&loaded, &style(true, true)),
    );
    let drawing = Drawing::Narrated;
    let narrated = Style {
        drawing,
        ..style(false, false)
    };
    compare("broken.narrated.txt", &report::text(&loaded, &narrated));
    let one_finding = Style {
        most: 1,
        ..style(true, false)
    };
    compare("broken.color.txt", &report::text(&loaded, &one_finding));
    compare("broken.json", &format!("{:#}\n", report::json(&loaded)));
}

#[test]
fn a_sound_mesh_is_said_to_be_one() {
    let loaded = load(Path::new(DIR).join("shop").as_path());
    let text = report::text(&loaded, &Style::for_stream(false, false, 80));
    let last = text.lines().last();
    assert_eq!(
        last,
        Some("ok: 1 node, 1 namespace, 2 workloads, 2 services")
    );
    let json = report::json(&loaded);
    assert_eq!(json["valid"], true);
    assert_eq!(json["resources"]["workload"], 2);
}
