//! What a waypoint tells of a request or a connection, as telemetry resources have it
//! (`spec/labels-and-policy.md` §5.2), merged by the function that waypoints merge by.

use super::{Step, step};
use crate::model::telemetry::{Log, Metric, MetricChange, TagChange};
use crate::model::waypoint::{Bound, Resources};

/// Tells what is told, unless that is no more than usual. Of traces there is more to say of a request.
pub(super) fn telling(told: &Resources, bound: &Bound, steps: &mut Vec<Step>) {
    let Some(set) = told.attached_to(bound) else {
        return;
    };
    for telemetry in told.telemetry_of(set) {
        let (file, line) = (&telemetry.origin.file, telemetry.origin.line);
        let text = format!("telemetry {} holds ({file}:{line})", telemetry.key);
        steps.push(step("telemetry", text));
    }
    let merged = told.merged_of(set);
    let logs = merged.logs.iter();
    steps.extend(logs.map(|log| step("access log", written(log))));
    let changes = merged.metering.changes.iter();
    steps.extend(changes.map(|(metric, change)| step("metric", changed(*metric, change))));
}

fn written(log: &Log) -> String {
    match &log.filter {
        None => format!("written by `{}`", log.provider),
        Some(filter) => format!("written by `{}` if `{}`", log.provider, filter.source()),
    }
}

fn changed(metric: Metric, change: &MetricChange) -> String {
    let name = metric.as_str();
    if change.disabled {
        return format!("{name} is not counted");
    }
    let tags = change.tags.iter().map(|(label, tag)| match tag {
        TagChange::Remove => format!("without `{label}`"),
        TagChange::Upsert(expression) => format!("`{label}` is `{}`", expression.source()),
    });
    format!("{name}: {}", tags.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config;
    use crate::explain::request::RequestAsked;
    use crate::explain::{Question, explain, intended};

    const MESH: &str = r#"
default-namespace = "shop"

[mesh]
access-log-file = "/dev/stdout"

[[node]]
name = "edge-1"
addresses = ["192.0.2.1"]

[[namespace]]
name = "shop"
dataplane-mode = "ambient"

[[workload]]
name = "web"
node = "edge-1"
addresses = ["10.1.0.21"]
capture = { netns = "web" }
[[workload]]
name = "cart"
node = "edge-1"
addresses = ["10.1.0.31"]
labels = { app = "cart" }
capture = { netns = "cart" }

[[gateway]]
name = "wp"
class = "waypoint"
node = "edge-1"

[[service]]
name = "cart"
selector = { app = "cart" }
ports = [{ port = 80, app-protocol = "http" }]
use-waypoint = "wp"

[[telemetry]]
name = "errors"
target-refs = [{ kind = "Service", name = "cart" }]
access-logging = [{ filter = { expression = "response.code >= 400" } }]
metrics = [{ overrides = [
  { match = { metric = "REQUEST_COUNT" }, tag-overrides = { source_app = { operation = "REMOVE" }, host = { value = "request.host" } } },
  { match = { metric = "REQUEST_SIZE" }, disabled = true },
] }]
"#;

    #[test]
    fn what_is_told_of_a_request_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mesh.toml"), MESH).unwrap();
        let loaded = config::load(dir.path());
        assert_eq!(loaded.report.errors(), 0, "{}", loaded.report);
        let compiled = intended(&loaded.mesh.unwrap()).unwrap();
        let question = Question {
            from: "shop/web".to_owned(),
            to: "cart:80".to_owned(),
            request: Some(RequestAsked {
                method: "GET".to_owned(),
                path: "/".to_owned(),
                ..RequestAsked::default()
            }),
            udp: false,
        };
        let explained = explain(
            &compiled.view,
            &compiled.names,
            &compiled.waypoints,
            &question,
        );
        let explained = explained.unwrap();
        let steps = explained.steps.iter();
        let told: Vec<String> = steps
            .filter(|s| ["telemetry", "access log", "metric"].contains(&&*s.stage))
            .map(|s| format!("{}: {}", s.stage, s.text))
            .collect();
        assert_eq!(
            told,
            [
                "telemetry: telemetry shop/errors holds (mesh.toml:38)",
                "access log: written by `envoy` if `response.code >= 400`",
                "metric: REQUEST_COUNT: `host` is `request.host`, without `source_app`",
                "metric: REQUEST_SIZE is not counted",
            ]
        );
    }
}
