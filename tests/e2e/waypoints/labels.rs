//! Which way connections take, by the labels of namespace, service and workload
//! (`spec/labels-and-policy.md` §1.5): each row is written as mesh files, and tried by the service's
//! address and by the workload's.

use super::{Labels, SERVICE, WORKLOAD, enforce, numbered, way, waypoints};
use crate::support::{Testbed, eventually};

/// A name, what is written, and the way to the service and to the workload.
type Row = (&'static str, Labels, [&'static str; 2]);

/// What is written of the namespace, the service and the workload.
fn row(
    name: &'static str,
    takes: [&'static str; 2],
    [namespace, service, workload]: [&'static str; 3],
    want: [&'static str; 2],
) -> Row {
    let labels = Labels {
        takes,
        namespace,
        service,
        workload,
    };
    (name, labels, want)
}

/// What `shop/wp` takes and `infra/wp`.
const SERVICES: [&str; 2] = ["service", "service"];
const WORKLOADS: [&str; 2] = ["workload", "workload"];
const ALL: [&str; 2] = ["all", "all"];
const NOTHING: [&str; 2] = ["none", "none"];

const WP: &str = "use-waypoint = \"wp\"";
const NONE: &str = "use-waypoint = \"none\"";
const GHOST: &str = "use-waypoint = \"ghost\"";
const INFRA: &str = "use-waypoint = \"infra/wp\"";

fn rows() -> Vec<Row> {
    let (wp, infra) = ("shop/wp", "infra/wp");
    vec![
        row("nothing", ALL, ["", "", ""], ["direct", "direct"]),
        row("namespace", SERVICES, [WP, "", ""], [wp, "direct"]),
        row(
            "namespace, for workloads",
            WORKLOADS,
            [WP, "", ""],
            ["direct", wp],
        ),
        row("namespace, for all", ALL, [WP, "", ""], [wp, wp]),
        row(
            "namespace, for none",
            NOTHING,
            [WP, "", ""],
            ["direct", "direct"],
        ),
        row("service", SERVICES, ["", WP, ""], [wp, "direct"]),
        row("service, for all", ALL, ["", WP, ""], [wp, "direct"]),
        row("workload", WORKLOADS, ["", "", WP], ["direct", wp]),
        row("workload, for all", ALL, ["", "", WP], ["direct", wp]),
        row("service and workload", ALL, ["", WP, WP], [wp, wp]),
        row(
            "service opts out",
            SERVICES,
            [WP, NONE, ""],
            ["direct", "direct"],
        ),
        row(
            "service opts out of all",
            ALL,
            [WP, NONE, ""],
            ["direct", wp],
        ),
        row("workload opts out", ALL, [WP, "", NONE], [wp, "direct"]),
        row("both opt out", ALL, [WP, NONE, NONE], ["direct", "direct"]),
        row(
            "opts out in the old way",
            ALL,
            [WP, "use-waypoint = \"#none\"", ""],
            ["direct", wp],
        ),
        row(
            "namespace opts out",
            ALL,
            [NONE, "", ""],
            ["direct", "direct"],
        ),
        row(
            "namespace opts out, service in",
            ALL,
            [NONE, WP, ""],
            [wp, "direct"],
        ),
        row(
            "namespace opts out, workload in",
            ALL,
            [NONE, "", WP],
            ["direct", wp],
        ),
        row(
            "with its own namespace",
            ALL,
            ["use-waypoint = \"shop/wp\"", "", ""],
            [wp, wp],
        ),
        row("elsewhere", SERVICES, [INFRA, "", ""], [infra, "direct"]),
        row("elsewhere, for all", ALL, [INFRA, "", ""], [infra, infra]),
        row(
            "elsewhere, by two keys",
            ALL,
            [
                "use-waypoint = \"wp\"\nuse-waypoint-namespace = \"infra\"",
                "",
                "",
            ],
            [infra, infra],
        ),
        row(
            "elsewhere, by two labels",
            ALL,
            [
                "",
                "labels = { \"istio.io/use-waypoint\" = \"wp\", \"istio.io/use-waypoint-namespace\" = \"infra\" }",
                "",
            ],
            [infra, "direct"],
        ),
        row(
            "by label",
            ALL,
            ["labels = { \"istio.io/use-waypoint\" = \"wp\" }", "", ""],
            [wp, wp],
        ),
        row(
            "by label, opting out",
            ALL,
            [WP, "labels = { \"istio.io/use-waypoint\" = \"none\" }", ""],
            ["direct", wp],
        ),
        row(
            "a workload's label",
            ALL,
            ["", "", "labels.\"istio.io/use-waypoint\" = \"infra/wp\""],
            ["direct", infra],
        ),
        row(
            "service before namespace",
            ALL,
            [WP, INFRA, ""],
            [infra, wp],
        ),
        row(
            "workload before namespace",
            ALL,
            [INFRA, "", WP],
            [infra, wp],
        ),
        row(
            "an own name has none of the namespace's",
            ALL,
            [
                "use-waypoint = \"wp\"\nuse-waypoint-namespace = \"infra\"",
                WP,
                "",
            ],
            [wp, infra],
        ),
        row(
            "one for each kind",
            ["workload", "service"],
            ["", INFRA, WP],
            [infra, wp],
        ),
        row(
            "yields to the namespace's",
            ["service", "workload"],
            [WP, INFRA, ""],
            [wp, "direct"],
        ),
        row(
            "a workload's yields, too",
            ["all", "service"],
            [WP, "", INFRA],
            [wp, wp],
        ),
        row(
            "one that nobody serves",
            ALL,
            ["", GHOST, ""],
            ["refused", "direct"],
        ),
        row(
            "the same for all",
            ALL,
            [GHOST, "", ""],
            ["refused", "refused"],
        ),
        row("past it by name", ALL, [GHOST, WP, NONE], [wp, "direct"]),
        row(
            "a canary with all of it",
            ALL,
            [
                "",
                "use-waypoint = \"wp\"\nuse-waypoint-canary = \"infra/wp\"\nuse-waypoint-canary-weight = 100",
                "",
            ],
            [infra, "direct"],
        ),
        row(
            "a canary with nothing",
            ALL,
            [
                "use-waypoint = \"wp\"\nuse-waypoint-canary = \"infra/wp\"\nuse-waypoint-canary-weight = 0",
                "",
                "",
            ],
            [wp, wp],
        ),
    ]
}

/// Which way a request takes, and whether `lateen explain` says that there is a waypoint on it.
fn taken(testbed: &Testbed, to: &str) -> (&'static str, bool) {
    let answer = testbed.ask("edge-1", Some("web"), to, 1).remove(0);
    let explain = ["explain", "--from", "shop/web", "--to", to, "-o", "json"];
    let explained = testbed.lateen("edge-1", &explain);
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    let way = way(&answer);
    if to == SERVICE {
        // Its port is declared to speak HTTP; of a workload's ports nothing is known.
        assert_eq!(numbered(&answer), way.contains('/'), "{answer}");
    }
    (way, said.contains("waypoint"))
}

#[test]
fn each_connection_takes_the_way_that_labels_ask_for() {
    let testbed = waypoints();
    let mut wrong = Vec::new();
    for (name, labels, want) in rows() {
        enforce(&testbed, &labels);
        for (to, want) in [SERVICE, WORKLOAD].into_iter().zip(want) {
            let (took, explained) = taken(&testbed, to);
            if took != want || explained != (want != "direct") {
                wrong.push(format!(
                    "{name}, to {to}: {took}, not {want}; explained: {explained}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_that_nobody_has_changes_nothing() {
    let testbed = waypoints();
    let typo = Labels {
        namespace: "use-waypoint = \"wq\"",
        ..super::BEHIND
    };
    testbed.write_mesh_file("labels.toml", &typo.mesh(1));
    eventually("the control plane says what is wrong", || {
        let control = testbed
            .status("control")
            .and_then(|s| s.control)
            .ok_or(None)?;
        let told = control.problems.contains("WaypointIsNotReady");
        match control.stale && told && control.problems.contains("labels.toml:4") {
            true => Ok(()),
            false => Err(Some(control)),
        }
    });
    let answer = testbed.ask("edge-1", Some("web"), SERVICE, 1).remove(0);
    assert_eq!(way(&answer), "shop/wp", "{answer}");
}
