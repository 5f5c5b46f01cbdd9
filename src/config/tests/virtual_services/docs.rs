//! The virtual services in the documentation, each in a mesh that has what it names.

use super::super::loaded;
use super::mesh;

const PAGES: [(&str, &str); 2] = [
    (
        "configuration.md",
        include_str!("../../../../docs/configuration.md"),
    ),
    ("routing.md", include_str!("../../../../docs/routing.md")),
];

/// What the pages name beside that mesh.
const BESIDE: &str = r#"
[[service]]
name = "shipping"
namespace = "shop"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }]
[[service]]
name = "cart-v2"
namespace = "shop"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }]
[[destination-rule]]
name = "cart"
namespace = "shop"
host = "cart"
subsets = [{ name = "v1", labels = { app = "a" } }, { name = "v2", labels = { app = "a" } }]
"#;

#[test]
fn the_virtual_services_of_the_documentation_do_what_they_say() {
    let mut read = 0;
    for (page, text) in PAGES {
        let blocks = text.split("```toml\n").skip(1);
        let blocks = blocks.filter_map(|block| Some(block.split_once("```")?.0));
        for block in blocks.filter(|block| block.contains("[[virtual-service]]")) {
            let files = [("a.toml", mesh() + BESIDE), (page, block.to_owned())];
            let report = loaded(&files).report;
            assert!(report.diagnostics().is_empty(), "{block}\n{report}");
            read += 1;
        }
    }
    assert_eq!(read, 2);
}
