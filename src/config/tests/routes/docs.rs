//! The routes in the documentation, each in a mesh that has what it names.

use super::super::loaded;
use super::MESH;

const PAGES: [(&str, &str); 2] = [
    (
        "configuration.md",
        include_str!("../../../../docs/configuration.md"),
    ),
    ("routing.md", include_str!("../../../../docs/routing.md")),
];

/// Services of `shop` by name and port, beside those of [`MESH`].
const SERVICES: [(&str, u16); 7] = [
    ("cart-v1", 80),
    ("cart-v2", 80),
    ("redis", 6379),
    ("redis-a", 6379),
    ("redis-b", 6379),
    ("front", 443),
    ("front-b", 443),
];

fn service((name, port): (&str, u16)) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nnamespace = \"shop\"\nselector = {{ app = \"a\" }}\nports = [{{ port = {port} }}]\n"
    )
}

#[test]
fn the_routes_of_the_documentation_do_what_they_say() {
    let mesh: String = MESH.to_owned() + &SERVICES.map(service).concat();
    let mut read = 0;
    for (page, text) in PAGES {
        let blocks = text.split("```toml\n").skip(1);
        let blocks = blocks.filter_map(|block| Some(block.split_once("```")?.0));
        for block in blocks.filter(|block| block.contains("-route]]")) {
            let files = [("a.toml", mesh.clone()), (page, block.to_owned())];
            let report = loaded(&files).report;
            assert!(report.diagnostics().is_empty(), "{block}\n{report}");
            read += 1;
        }
    }
    assert_eq!(read, 6);
}
