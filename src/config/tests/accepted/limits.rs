//! Rate limits become what they mean.

use std::sync::Arc;
use std::time::Duration;

use super::mesh;
use crate::model::declaration::{Attachment, Origin, TargetKind, TargetRef};
use crate::model::limit::{Key, Rate, Rule};
use crate::model::route::{Match, PathMatch, TextMatch};

const BOUND: &str = r#"
[[node]]
name = "n"
addresses = ["192.0.2.1"]
[[workload]]
name = "w"
node = "n"
addresses = ["10.1.0.1"]
labels = { app = "a" }
[[gateway]]
name = "wp"
class = "waypoint"
node = "n"
[[service]]
name = "s"
selector = { app = "a" }
ports = [{ port = 80, app-protocol = "http" }]
use-waypoint = "wp"
"#;

const SHOP: &str = "[[namespace]]\nname = \"shop\"\n";

const EVERY_FIELD: &str = r#"
[[rate-limit]]
name = "every.field"
labels = { team = "a" }
target-refs = [{ kind = "Service", name = "s" }, { kind = "Gateway", name = "wp" }]

[[rate-limit.rules]]
match = [
  { path = { type = "Exact", value = "/a" }, method = "POST", headers = [{ name = "X-A", value = "b" }] },
  { path = { value = "/b" } },
]
key = "identity"
requests = 5
per = "1m"
burst = 9

[[rate-limit.rules]]
key = { header = "X-User" }
requests = 100
per = "1s"

[[rate-limit.rules]]
key = "source-ip"
requests = 1000000
per = "1d"
burst = 1

[[rate-limit.rules]]
key = "none"
requests = 1
per = "1h30m"
"#;

fn rule(line: u32, by: Key, requests: u32, per: u64, burst: u32) -> Rule {
    Rule {
        line,
        matches: vec![Match::default()],
        by,
        rate: Rate::new(requests, Duration::from_secs(per), burst).unwrap(),
    }
}

#[test]
fn every_field_of_a_rate_limit_is_taken() {
    let mesh = mesh(&[
        ("a.toml", EVERY_FIELD.to_owned()),
        ("b.toml", BOUND.to_owned()),
    ]);
    let [limit] = mesh.rate_limits.as_slice() else {
        panic!("{:?}", mesh.rate_limits);
    };
    let origin = Origin {
        file: Arc::from("a.toml"),
        line: 2,
    };
    assert_eq!(limit.origin, origin);
    assert_eq!(
        (&*limit.name, &*limit.namespace),
        ("every.field", "default")
    );
    let target = |kind, name: &str| TargetRef {
        kind,
        name: Arc::from(name),
    };
    let targets = vec![
        target(TargetKind::Service, "s"),
        target(TargetKind::Gateway, "wp"),
    ];
    assert_eq!(limit.attachment, Attachment::Targets(targets));
    let text = |text: &str| TextMatch::Exact(Arc::from(text));
    let matches = vec![
        Match {
            path: PathMatch::Exact(Arc::from("/a")),
            method: Some(text("POST")),
            headers: vec![(Arc::from("x-a"), text("b"))],
            ..Match::default()
        },
        Match {
            path: PathMatch::Prefix(Arc::from("/b")),
            ..Match::default()
        },
    ];
    let by_user = Key::Header(Arc::from("x-user"));
    let want = [
        Rule {
            matches,
            ..rule(7, Key::Identity, 5, 60, 9)
        },
        rule(17, by_user, 100, 1, 100),
        rule(22, Key::SourceIp, 1_000_000, 86_400, 1),
        rule(28, Key::None, 1, 5400, 1),
    ];
    assert_eq!(limit.rules, want);
}

#[test]
fn the_limits_of_the_documentation_are_read() {
    let page = include_str!("../../../../docs/limits.md");
    let block = page.split("```toml\n").nth(1).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let around = BOUND.replace("\"s\"", "\"cart\"");
    let files = [
        (
            "a.toml",
            format!("default-namespace = \"shop\"\n{around}{SHOP}"),
        ),
        ("limits.md.toml", block.to_owned()),
    ];
    assert_eq!(mesh(&files).rate_limits[0].rules.len(), 2);
}

#[test]
fn what_is_not_written_counts_everything_together() {
    let text = "[[rate-limit]]\nname = \"l\"\ntarget-refs = [{ kind = \"Service\", name = \"s\" }]\n\
                rules = [{ requests = 3, per = \"1s\" }]\n";
    let mesh = mesh(&[("a.toml", text.to_owned()), ("b.toml", BOUND.to_owned())]);
    let rules = &mesh.rate_limits[0].rules;
    assert_eq!(*rules, [rule(4, Key::None, 3, 1, 3)]);
}
