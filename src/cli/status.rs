//! `lateen status` and `lateen connections`: what a running process knows.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::Failure;
use super::output::{NO, Output};
use super::run::config;
use crate::admin::SOCKET;
use crate::admin::client::ask;
use crate::status::{ControlLine, ControlStatus, NodeStatus, ServedLine, Status, WorkloadLine};
use crate::table::table;

/// Show what a running lateen knows.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen status\n  lateen status -o json | jq .control.revision\n\nExit code 1 when something needs an operator."
)]
pub struct StatusArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Show the connections open on this node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lateen connections")]
pub struct ConnectionsArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Asks the process of this host over its socket.
pub(super) fn asked(
    config_path: Option<&Path>,
    method: Method,
    page: &str,
    body: String,
) -> Result<String, Failure> {
    let config = config(config_path)?;
    let socket = config.runtime_dir().join(SOCKET);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))?;
    Ok(runtime.block_on(ask(&socket, method, page, body))?)
}

/// An answer that does not read.
pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::no(
        "the running lateen is of another version; restart it",
        error,
    )
}

/// Prints the status; exit code 1 when something needs an operator.
///
/// # Errors
/// [`Failure`] when no process answers.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let text = asked(
        args.config.as_deref(),
        Method::GET,
        "/status",
        String::new(),
    )?;
    let status: Status = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
    match args.output {
        Output::Json => outln!("{text}"),
        Output::Table => out!("{}", render(&status)),
    }
    let wrong = status.control.as_ref().is_some_and(|c| {
        let failing = c.endpoints.iter().any(|s| s.problem.is_some());
        c.stale || c.mass_loss || failing
    }) || status.node.as_ref().is_some_and(|n| {
        let failed = |w: &WorkloadLine| w.error.is_some() || w.probe.failing();
        n.control.is_none() || n.workloads.iter().any(failed)
    }) || status.waypoints.iter().any(|w| w.error.is_some());
    Ok(if wrong {
        ExitCode::from(NO)
    } else {
        ExitCode::SUCCESS
    })
}

/// A number, or a word where there is none.
fn or_none(number: Option<u64>, none: &str) -> String {
    match number {
        Some(number) => number.to_string(),
        None => none.to_owned(),
    }
}

fn render(status: &Status) -> String {
    let mut text = format!("{}  lateen {}\n", status.host, status.version);
    if let Some(control) = &status.control {
        text.push_str(&render_control(control));
    }
    if let Some(node) = &status.node {
        text.push_str(&render_node(node));
    }
    if !status.waypoints.is_empty() {
        text.push('\n');
        text.push_str(&render_served(&status.waypoints));
    }
    text
}

fn render_served(waypoints: &[ServedLine]) -> String {
    let row = |w: &ServedLine| {
        let listens: Vec<String> = w.listens.iter().map(ToString::to_string).collect();
        let error = w.error.clone().unwrap_or_default();
        vec![w.waypoint.clone(), listens.join(", "), error]
    };
    let rows: Vec<Vec<String>> = waypoints.iter().map(row).collect();
    table(&["WAYPOINT", "LISTENS", "PROBLEM"], &rows)
}

fn render_control(control: &ControlStatus) -> String {
    let revision = or_none(control.revision, "none");
    let source = control.source.as_deref().unwrap_or("-");
    let mut text = format!(
        "\ncontrol: revision {revision} from {source}, {} workloads, {} services\n",
        control.workloads, control.services
    );
    if control.stale {
        text.push_str("the mesh directory does not pass; this older revision stays in force:\n");
    }
    if !control.problems.is_empty() {
        text.push_str(&control.problems);
        text.push('\n');
    }
    if control.mass_loss {
        text.push_str(
            "most nodes have fallen silent at once: the fault is probably here, their workloads stay as they are\n",
        );
    }
    let rows: Vec<Vec<String>> = control
        .nodes
        .iter()
        .map(|n| {
            vec![
                n.name.clone(),
                n.state.clone(),
                or_none(n.revision, "-"),
                n.captured.to_string(),
                n.address.clone().unwrap_or_else(|| "-".to_owned()),
                n.problem.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let heading = [
        "NODE", "STATE", "REVISION", "CAPTURED", "ADDRESS", "PROBLEM",
    ];
    text.push_str(&table(&heading, &rows));
    let services = control.endpoints.iter();
    let services = services.map(|s| {
        let healthy = format!("{}/{}", s.healthy, s.total);
        vec![
            s.name.clone(),
            healthy,
            s.problem.clone().unwrap_or_default(),
        ]
    });
    let services: Vec<Vec<String>> = services.collect();
    text.push_str(&table(&["SERVICE", "HEALTHY", "PROBLEM"], &services));
    text
}

fn render_node(node: &NodeStatus) -> String {
    let name = node.name.as_deref().unwrap_or("-");
    let link = match (&node.control, &node.control_error) {
        (Some(url), _) => format!("connected to {url}"),
        (None, Some(reason)) => format!("not connected: {reason}"),
        (None, None) => "connecting".to_owned(),
    };
    let since = node.since.map_or(String::new(), |s| format!(" for {s} s"));
    let revision = or_none(node.revision, "none");
    let kept = node
        .kept
        .map_or(String::new(), |k| format!(" from disk, kept {k} s ago"));
    let stale = node.stale_since.map_or(String::new(), |since| {
        format!(", stale since {}", utc(since))
    });
    let mut text = format!(
        "\nnode {name}: {link}{since}, revision {revision}{kept}{stale}, {} connections\n",
        node.connections
    );
    if let Some(apart) = node.clock_apart {
        text.push_str(&format!(
            "the clock and the control plane's are {apart} s apart\n"
        ));
    }
    if let Some(grace) = node.expired_grace {
        let minutes = grace / 60;
        text.push_str(&format!(
            "no control plane is there to renew certificates: those that expire meanwhile are taken for {minutes} min more\n"
        ));
    }
    if let Some(keeper) = &node.keeper
        && !keeper.connected
    {
        let since = keeper.since.map_or_else(|| "-".to_owned(), utc);
        let error = keeper.error.as_deref().unwrap_or("-");
        text.push_str(&format!(
            "the keeper is gone since {since}: {error}; what is open goes on, nothing new is opened\n"
        ));
    }
    // A single one has said all there is in the line above.
    if node.controls.len() > 1 {
        text.push_str(&render_controls(node));
    }
    let workloads: Vec<Vec<String>> = node
        .workloads
        .iter()
        .map(|w| {
            vec![
                w.name.clone(),
                w.capture.clone(),
                w.probe.state.clone(),
                problem(w),
            ]
        })
        .collect();
    let heading = ["WORKLOAD", "CAPTURE", "PROBE", "PROBLEM"];
    text.push_str(&table(&heading, &workloads));
    let certificates: Vec<Vec<String>> = node
        .certificates
        .iter()
        .map(|c| {
            let left = match c.grace {
                Some(grace) => format!("expired, {} min of grace", grace / 60),
                None => or_none(c.left.map(|l| l / 3600), "-") + "h",
            };
            vec![
                c.identity.clone(),
                left,
                c.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    text.push_str(&table(&["CERTIFICATE", "LEFT", "PROBLEM"], &certificates));
    text
}

/// Why it is not captured, else what its probe last found wrong.
fn problem(workload: &WorkloadLine) -> String {
    let probe = &workload.probe;
    match (&workload.error, &probe.reason) {
        (Some(error), _) => error.clone(),
        (None, Some(reason)) if probe.state == "passing" => format!("last: {reason}"),
        (None, Some(reason)) => reason.clone(),
        (None, None) => String::new(),
    }
}

fn render_controls(node: &NodeStatus) -> String {
    let row = |line: &ControlLine| {
        let state = match (line.connected, &line.error) {
            (true, _) => "connected",
            (false, Some(_)) => "failed",
            (false, None) => "in reserve",
        };
        let problem = line.error.clone().unwrap_or_default();
        vec![line.url.clone(), state.to_owned(), problem]
    };
    let rows: Vec<Vec<String>> = node.controls.iter().map(row).collect();
    table(&["CONTROL", "STATE", "PROBLEM"], &rows)
}

/// A time in seconds since 1970 as RFC 3339 writes it.
fn utc(since: u64) -> String {
    let (days, second) = (since / 86_400, since % 86_400);
    // Years begin in March here, so that the leap day is a year's last (Hinnant, `civil_from_days`).
    let day = days + 719_468;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (month, late) = if march < 10 {
        (march + 3, 0)
    } else {
        (march - 9, 1)
    };
    format!(
        "{}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
        day / 146_097 * 400 + year + late,
        of_year - (153 * march + 2) / 5 + 1,
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// Prints the open connections.
///
/// # Errors
/// [`Failure`] when no process answers.
pub fn connections(args: &ConnectionsArgs) -> Result<ExitCode, Failure> {
    let text = asked(
        args.config.as_deref(),
        Method::GET,
        "/connections",
        String::new(),
    )?;
    if args.output == Output::Json {
        outln!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let open: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
    let field = |c: &serde_json::Value, key: &str| {
        let value = c.get(key).and_then(serde_json::Value::as_str);
        value.unwrap_or("-").to_owned()
    };
    let keys = ["direction", "protocol", "source", "destination", "workload"];
    let row = |c: &serde_json::Value| keys.iter().map(|key| field(c, key)).collect();
    let rows: Vec<Vec<String>> = open.iter().map(row).collect();
    let heading = ["DIRECTION", "PROTOCOL", "SOURCE", "DESTINATION", "WORKLOAD"];
    out!("{}", table(&heading, &rows));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{CertificateLine, KeeperLine};

    #[test]
    fn times_are_written_in_utc() {
        for (since, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(since), want);
        }
    }

    #[test]
    fn every_control_plane_is_told_of() {
        let line = |url: &str, connected, error: Option<&str>| ControlLine {
            url: url.to_owned(),
            connected,
            error: error.map(str::to_owned),
        };
        let node = NodeStatus {
            name: Some("edge-1".to_owned()),
            control: Some("https://b:15012".to_owned()),
            control_error: None,
            controls: vec![
                line("https://a:15012", false, Some("cannot connect")),
                line("https://b:15012", true, None),
                line("https://c:15012", false, None),
            ],
            stale_since: None,
            clock_apart: Some(400),
            since: Some(3),
            kept: None,
            expired_grace: None,
            revision: Some(7),
            workloads: Vec::new(),
            certificates: Vec::new(),
            connections: 0,
            keeper: Some(KeeperLine {
                connected: true,
                since: None,
                error: None,
            }),
        };
        let text = render_node(&node);
        assert!(text.contains("400 s apart"), "{text}");
        for (url, words) in [
            ("https://a:15012 ", "failed cannot connect"),
            ("https://b:15012 ", "connected"),
            ("https://c:15012 ", "in reserve"),
        ] {
            let shown = text.lines().find(|l| l.starts_with(url)).unwrap();
            let shown: Vec<&str> = shown.split_whitespace().skip(1).collect();
            assert_eq!(shown.join(" "), words, "{url}");
        }
        let stale = NodeStatus {
            control: None,
            control_error: Some("gone".to_owned()),
            stale_since: Some(0),
            expired_grace: Some(3600),
            certificates: vec![CertificateLine {
                identity: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
                serial: None,
                left: Some(0),
                grace: Some(1800),
                error: None,
            }],
            keeper: Some(KeeperLine {
                connected: false,
                since: Some(60),
                error: Some("connection refused".to_owned()),
            }),
            ..node
        };
        let text = render_node(&stale);
        for words in [
            "stale since 1970-01-01T00:00:00Z",
            "taken for 60 min more",
            "expired, 30 min of grace",
            "the keeper is gone since 1970-01-01T00:01:00Z: connection refused",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
