//! `lateen status` and `lateen connections`: what a running process knows.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::Failure;
use super::output::{NO, Output};
use super::run::{SOCKET, config};
use crate::admin::client::ask;
use crate::status::{ControlStatus, NodeStatus, Status, WorkloadLine};
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
#[allow(clippy::print_stdout, reason = "the verb's answer")]
pub fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let text = asked(
        args.config.as_deref(),
        Method::GET,
        "/status",
        String::new(),
    )?;
    let status: Status = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
    match args.output {
        Output::Json => println!("{text}"),
        Output::Table => print!("{}", render(&status)),
    }
    let wrong = status.control.as_ref().is_some_and(|c| {
        let failing = c.endpoints.iter().any(|s| s.problem.is_some());
        c.stale || c.mass_loss || failing
    }) || status.node.as_ref().is_some_and(|n| {
        let failed = |w: &WorkloadLine| w.error.is_some() || w.probe.failing();
        n.control.is_none() || n.workloads.iter().any(failed)
    });
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
    text
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
    let mut text = format!(
        "\nnode {name}: {link}{since}, revision {revision}{kept}, {} connections\n",
        node.connections
    );
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
            let left = or_none(c.left.map(|l| l / 3600), "-") + "h";
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

/// Prints the open connections.
///
/// # Errors
/// [`Failure`] when no process answers.
#[allow(clippy::print_stdout, reason = "the verb's answer")]
pub fn connections(args: &ConnectionsArgs) -> Result<ExitCode, Failure> {
    let text = asked(
        args.config.as_deref(),
        Method::GET,
        "/connections",
        String::new(),
    )?;
    if args.output == Output::Json {
        println!("{text}");
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
    print!("{}", table(&heading, &rows));
    Ok(ExitCode::SUCCESS)
}
