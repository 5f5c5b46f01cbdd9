//! The telemetry in the documentation, each in a mesh that has what it names.

use super::loaded;

const PAGES: [(&str, &str); 2] = [
    ("telemetry.md", include_str!("../../../docs/telemetry.md")),
    ("tracing.md", include_str!("../../../docs/tracing.md")),
];

const MESH: &str = r#"
[[node]]
name = "edge"
addresses = ["192.0.2.1"]

[[namespace]]
name = "shop"
dataplane-mode = "ambient"
use-waypoint = "wp"

[[gateway]]
name = "wp"
namespace = "shop"
class = "waypoint"
node = "edge"

[[workload]]
name = "cart-1"
namespace = "shop"
addresses = ["10.1.0.11"]
node = "edge"
capture = { netns = "cart-1" }
labels = { app = "cart" }

[[service]]
name = "cart"
namespace = "shop"
selector = { app = "cart" }
ports = [{ port = 80, app-protocol = "http" }]

[[service]]
name = "checkout"
namespace = "shop"
selector = { app = "cart" }
ports = [{ port = 80, app-protocol = "http" }]
"#;

#[test]
fn the_telemetry_of_the_documentation_does_what_it_says() {
    let mut read = 0;
    for (page, text) in PAGES {
        let blocks = text.split("```toml\n").skip(1);
        let blocks = blocks.filter_map(|block| Some(block.split_once("```")?.0));
        for block in blocks.filter(|block| block.contains("[[telemetry]]")) {
            let files = [("a.toml", MESH.to_owned()), (page, block.to_owned())];
            let report = loaded(&files).report;
            // What is open past the waypoint is not the page's business.
            let mut found = report.diagnostics().iter();
            let wrong = found.any(|found| *found.place().origin().file == *page);
            assert!(!wrong && report.errors() == 0, "{block}\n{report}");
            read += 1;
        }
    }
    assert_eq!(read, 2);
}
