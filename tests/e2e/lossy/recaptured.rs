//! What a workload has of QUIC once it is captured another way, while connections of before linger.

use std::fs;

use super::{WEB, begin, by, client};
use crate::support::{Testbed, eventually, testbed, text};

/// Has `web` be captured with its names, or without.
fn capture(testbed: &Testbed, names: bool) {
    let shop = fs::read_to_string(testbed.mesh_dir().join("shop.toml")).unwrap();
    let plain = shop.replace("\ndns-capture = false", "");
    let web = "capture = { netns = \"web\" }";
    assert!(plain.contains(web));
    let without = plain.replace(web, &format!("{web}\ndns-capture = false"));
    testbed.write_mesh_file("shop.toml", if names { &plain } else { &without });
}

#[test]
fn who_is_captured_another_way_keeps_quic() {
    let mut testbed = testbed();
    begin(&mut testbed);
    by(&testbed, "quic");
    let told = |testbed: &Testbed| testbed.log("edge-1").matches("no socket on port").count();
    let before = told(&testbed);
    for names in [false, true, false, true] {
        capture(&testbed, names);
        eventually("captured another way", || {
            let list = ["nft", "list", "table", "inet", "lateen"];
            let rules = text(&testbed.exec(WEB.0, WEB.1, &list).stdout);
            let seen = client(&testbed, &["connect", "1"]);
            match rules.contains("15053") == names && seen.starts_with("0 ") {
                true => Ok(()),
                false => Err((seen, rules)),
            }
        });
        let seen = client(&testbed, &["connect", "20"]);
        assert!(seen.starts_with("0 "), "names {names}: {seen}");
    }
    assert_eq!(told(&testbed), before, "{}", testbed.log("edge-1"));
}
