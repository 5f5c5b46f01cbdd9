//! `lateen explain` and `lateen policies`: what policies come to, and why.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::Failure;
use super::output::{NO, Output, USAGE};
use super::status::{asked, unreadable};
use crate::config::diagnose::Style;
use crate::config::{self, report};
use crate::explain::{
    Explanation, Intended, Judgement, Question, RequestAsked, Step, Way, explain, intended,
};
use crate::model::declaration::Mesh;
use crate::status::policy::{PolicyLine, declared_lines};
use crate::table::table;

/// Endpoints that are shown.
const MOST_SHOWN: usize = 16;

/// Say whether a connection is let in, and what makes it so.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lateen explain --from shop/web-1 --to cart.shop.mesh.internal:80\n  lateen explain --dir ./mesh --from shop/web-1 --to cart:80    # before merging\n  lateen explain --dir ./mesh --from shop/web-1 --to cart:80 --path /v2 --header x-user:ann\n  lateen explain --from shop/web-1 --to boot.shop.mesh.internal:69 --udp\n\nWith --dir every enrolled workload is taken to be captured and healthy; without it the view of\nthe node of this host is asked. Exit code 0 allowed, 1 refused, 2 the question does not read,\n3 no running node."
)]
pub struct ExplainArgs {
    /// The client
    #[arg(long, value_name = "NAMESPACE/WORKLOAD")]
    from: String,
    /// Where it connects to: a service by any of its names, or an address
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Answer from this mesh directory, and not from the running node
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// It sends datagrams there, and does not connect
    #[arg(long, conflicts_with_all = ["method", "path", "host", "header"])]
    udp: bool,
    /// The method of a request, GET if another part of one is given: then a waypoint's routes are asked
    #[arg(long)]
    method: Option<String>,
    /// Its path, with a query perhaps [default: /]
    #[arg(long)]
    path: Option<String>,
    /// Its `Host` [default: what is connected to]
    #[arg(long)]
    host: Option<String>,
    /// A header field of it, any number of times
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Show the policies of the mesh, and how far each is in force.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen policies\n  lateen policies --dir ./mesh -o json\n\nOn a control plane's host, and with --dir, these are the policies as they are written, with what\nbecame of them; on other nodes, what the node evaluates and what waypoints on it are told.\nExit code 1 when a policy is not in force, or could not be read and so denies everything."
)]
pub struct PoliciesArgs {
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

impl ExplainArgs {
    /// The request, if any part of one is given.
    fn request(&self) -> Result<Option<RequestAsked>, Failure> {
        let given = self.method.is_some() || self.path.is_some() || self.host.is_some();
        if !given && self.header.is_empty() {
            return Ok(None);
        }
        let field = |text: &String| {
            let parts = text.split_once(':').or_else(|| text.split_once('='));
            let (name, value) = parts.ok_or_else(|| {
                Failure::plain(USAGE, format!("`{text}` is no header; write NAME:VALUE"))
            })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        };
        let headers: Result<Vec<_>, Failure> = self.header.iter().map(field).collect();
        Ok(Some(RequestAsked {
            method: self.method.clone().unwrap_or_else(|| "GET".to_owned()),
            path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: self.host.clone(),
            headers: headers?,
        }))
    }
}

/// Runs `lateen explain`.
///
/// # Errors
/// [`Failure`].
pub fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let question = Question {
        from: args.from.clone(),
        to: args.to.clone(),
        request: args.request()?,
        udp: args.udp,
    };
    let explanation = match &args.dir {
        Some(dir) => {
            let mesh = mesh(dir)?;
            explain(&mesh.view, &mesh.names, &mesh.waypoints, &question)
                .map_err(|e| Failure::plain(USAGE, e.to_string()))?
        }
        None => live(args.config.as_deref(), &question)?,
    };
    match args.output {
        Output::Json => outln!("{}", json(&explanation)?),
        Output::Table => {
            out!("{}", render(&explanation));
        }
    }
    Ok(match explanation.allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NO),
    })
}

/// Runs `lateen policies`.
///
/// # Errors
/// [`Failure`].
pub fn policies(args: &PoliciesArgs) -> Result<ExitCode, Failure> {
    let known: Vec<PolicyLine> = match &args.dir {
        Some(dir) => declared_lines(&declared(dir)?),
        None => {
            let config = args.config.as_deref();
            let text = asked(config, Method::GET, "/policies", String::new())?;
            serde_json::from_str(&text).map_err(|e| unreadable(&e))?
        }
    };
    match args.output {
        Output::Json => outln!("{}", json(&known)?),
        Output::Table => out!("{}", listed(&known)),
    }
    let idle = |p: &PolicyLine| p.condition.as_ref().is_some_and(|c| !c.status);
    let failing = |p: &PolicyLine| p.unreadable.is_some() || idle(p);
    Ok(match known.iter().any(failing) {
        true => ExitCode::from(NO),
        false => ExitCode::SUCCESS,
    })
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::no("cannot write JSON", &e))
}

fn live(config: Option<&Path>, question: &Question) -> Result<Explanation, Failure> {
    let body = json(question)?;
    let text = asked(config, Method::POST, "/explain", body)?;
    serde_json::from_str(&text).map_err(|e| unreadable(&e))
}

/// The mesh of a directory, everything in it as it is meant to be.
fn mesh(dir: &Path) -> Result<Intended, Failure> {
    let mesh = declared(dir)?;
    intended(&mesh).map_err(|e| Failure::usage("the mesh does not compile", &e))
}

pub(super) fn declared(dir: &Path) -> Result<Mesh, Failure> {
    let mut loaded = config::load(dir);
    let Some(mesh) = loaded.mesh.take() else {
        let text = report::text(&loaded, &Style::for_stream(false, true, 100));
        return Err(Failure::plain(
            USAGE,
            format!("the mesh directory does not pass:\n{text}"),
        ));
    };
    Ok(mesh)
}

fn render(explanation: &Explanation) -> String {
    let mut text = format!("{} -> {}\n", explanation.from, explanation.to);
    steps(&mut text, "  ", &explanation.steps);
    // The closed ones are what is looked for.
    let mut ways: Vec<&Way> = explanation.ways.iter().collect();
    ways.sort_by_key(|way| way.allowed);
    let shown = ways.iter().take(MOST_SHOWN);
    shown.for_each(|way| one_way(&mut text, way));
    if ways.len() > MOST_SHOWN {
        let more = ways.len() - MOST_SHOWN;
        let _infallible = writeln!(text, "\n  and {more} more endpoints; -o json has them all");
    }
    let verdict = match explanation.allowed {
        true => "ALLOWED",
        false => "REFUSED",
    };
    // Writing to a string cannot fail.
    let _infallible = writeln!(text, "\n{verdict}: {}", explanation.reason);
    text
}

fn steps(text: &mut String, indent: &str, steps: &[Step]) {
    for step in steps {
        let _infallible = writeln!(text, "{indent}{:<10} {}", step.stage, step.text);
    }
}

fn one_way(text: &mut String, way: &Way) {
    let _infallible = writeln!(text, "\n  endpoint   {} at {}", way.workload, way.address);
    steps(text, "    ", &way.steps);
    for judged in &way.policies {
        let _infallible = writeln!(text, "    policy     {}", judgement(judged));
    }
    let verdict = if way.allowed { "allowed" } else { "refused" };
    let _infallible = writeln!(text, "    {verdict}    {}", way.reason);
}

fn judgement(judged: &Judgement) -> String {
    let matches = if judged.matches {
        "matches"
    } else {
        "does not match"
    };
    let tried = if judged.dry_run { ", dry run" } else { "" };
    let place = match judged.place.as_str() {
        "" => String::new(),
        place => format!(" ({place})"),
    };
    format!(
        "{} {}{tried} {matches}{place}",
        judged.action, judged.policy
    )
}

fn listed(policies: &[PolicyLine]) -> String {
    let row = |p: &PolicyLine| {
        let action = match (p.dry_run, &p.unreadable) {
            (_, Some(_)) => "DENY, unreadable".to_owned(),
            (true, None) => format!("{}, dry run", p.action),
            (false, None) => p.action.clone(),
        };
        let note = p.condition.as_ref().map(|c| c.message.clone());
        vec![
            p.policy.clone(),
            action,
            p.scope.clone(),
            p.workloads.to_string(),
            p.rules.to_string(),
            p.place.clone(),
            note.or_else(|| p.unreadable.clone()).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = policies.iter().map(row).collect();
    let heading = [
        "POLICY",
        "ACTION",
        "SCOPE",
        "WORKLOADS",
        "RULES",
        "WRITTEN",
        "NOTE",
    ];
    table(&heading, &rows)
}
