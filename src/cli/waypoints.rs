//! `lateen waypoints`: each waypoint, what is behind it, and what is not that asks for one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::Failure;
use super::explain::{declared, json};
use super::output::{NO, Output};
use super::status::{asked, unreadable};
use crate::status::binding::{
    BindingLine, RouteLine, RoutedLine, WaypointLine, WaypointPage, declared_page,
};
use crate::status::policy::ConditionLine;
use crate::table::table;

/// Show the waypoints of the mesh, and what is behind each.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen waypoints\n  lateen waypoints --dir ./mesh -o json\n\nOn a control plane's host, and with --dir, these are the waypoints as they are written; exit\ncode 1 says that something asks for a waypoint and is behind none, or that a route is not in\nforce as it is written. Elsewhere they are those that the node knows of."
)]
pub struct WaypointsArgs {
    /// Show those of this mesh directory, and not of the running node
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs `lateen waypoints`.
///
/// # Errors
/// [`Failure`].
pub fn run(args: &WaypointsArgs) -> Result<ExitCode, Failure> {
    let known: WaypointPage = match &args.dir {
        Some(dir) => declared_page(&declared(dir)?),
        None => {
            let config = args.config.as_deref();
            let text = asked(config, Method::GET, "/waypoints", String::new())?;
            serde_json::from_str(&text).map_err(|e| unreadable(&e))?
        }
    };
    match args.output {
        Output::Json => outln!("{}", json(&known)?),
        Output::Table => out!("{}", listed(&known)),
    }
    let unbound = |b: &BindingLine| b.condition.as_ref().is_some_and(|c| !c.status);
    let idle = |r: &RouteLine| r.faults().next().is_some();
    Ok(
        match known.bindings.iter().any(unbound) || known.routes.iter().any(idle) {
            true => ExitCode::from(NO),
            false => ExitCode::SUCCESS,
        },
    )
}

fn listed(page: &WaypointPage) -> String {
    let waypoint = |w: &WaypointLine| {
        vec![
            w.waypoint.clone(),
            w.waypoint_for.clone(),
            w.nodes.join(", "),
            w.port.to_string(),
            w.services.to_string(),
            w.workloads.to_string(),
            w.place.clone(),
        ]
    };
    let binding = |b: &BindingLine| {
        let waypoint = b.waypoint.clone().unwrap_or_else(|| "-".to_owned());
        let condition = b.condition.as_ref();
        vec![
            format!("{} {}", b.kind, b.object),
            waypoint,
            condition.map_or_else(String::new, |c| c.reason.clone()),
            b.place.clone(),
            condition.map_or_else(String::new, |c| c.message.clone()),
        ]
    };
    let waypoints: Vec<Vec<String>> = page.waypoints.iter().map(waypoint).collect();
    let heading = [
        "WAYPOINT",
        "FOR",
        "NODES",
        "PORT",
        "SERVICES",
        "WORKLOADS",
        "WRITTEN",
    ];
    let mut text = table(&heading, &waypoints);
    if !page.bindings.is_empty() {
        let bindings: Vec<Vec<String>> = page.bindings.iter().map(binding).collect();
        let heading = ["BOUND", "WAYPOINT", "REASON", "WRITTEN", "NOTE"];
        text.push('\n');
        text += &table(&heading, &bindings);
    }
    text += &routed(page);
    text
}

/// What is tried where there is something to try, and every route.
fn routed(page: &WaypointPage) -> String {
    let port = |p: &RoutedLine| {
        vec![
            format!("{}:{}", p.service, p.port),
            p.waypoint.clone(),
            p.routes.join(", "),
        ]
    };
    let ports = page.routed.iter().filter(|p| !p.routes.is_empty());
    let ports: Vec<Vec<String>> = ports.map(port).collect();
    let mut text = String::new();
    if !ports.is_empty() {
        text.push('\n');
        text += &table(&["ROUTED", "WAYPOINT", "ROUTES, IN ORDER"], &ports);
    }
    let routes: Vec<Vec<String>> = page.routes.iter().flat_map(lines).collect();
    if !routes.is_empty() {
        text.push('\n');
        text += &table(&["ROUTE", "OF", "REASON", "WRITTEN", "NOTE"], &routes);
    }
    text
}

/// A line for each parent of a route.
fn lines(route: &RouteLine) -> Vec<Vec<String>> {
    let unresolved = route.resolved.as_ref().filter(|resolved| !resolved.status);
    let line = |parent: &str, accepted: Option<&ConditionLine>| {
        let fault = accepted.filter(|accepted| !accepted.status).or(unresolved);
        let shown = fault.or(accepted);
        vec![
            route.route.clone(),
            parent.to_owned(),
            shown.map_or_else(String::new, |c| c.reason.clone()),
            route.place.clone(),
            shown.map_or_else(String::new, |c| c.message.clone()),
        ]
    };
    match &*route.parents {
        [] => vec![line("-", None)],
        parents => {
            let parents = parents.iter();
            let lines = parents.map(|p| line(&p.parent, Some(&p.accepted)));
            lines.collect()
        }
    }
}
