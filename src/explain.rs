//! Why a connection is let in, or is not: the whole way from a workload to an address, told step by
//! step.
//!
//! Nothing is decided here. Each step asks the function that a node asks when a program connects:
//! [`outbound::decide`](crate::model::outbound::decide), at a waypoint
//! [`admit`](crate::model::waypoint::admit) and [`onward`](crate::model::waypoint::onward),
//! [`guarded`](crate::model::inbound::guarded), [`tunnelled`](crate::model::inbound::tunnelled)
//! and [`plaintext`](crate::model::inbound::plaintext), for datagrams [`decide`](crate::model::udp::decide) and
//! [`arrive`](crate::model::udp::arrive), and the workload's [`Guard`](crate::model::policy::Guard).

mod datagrams;
mod filtered;
mod limited;
mod name;
mod request;
mod told;
mod traced;
mod walk;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::compile::{Assignments, CompileError, Observed, Reported, Waypoints, compile};
use crate::model::declaration::Mesh;
use crate::model::names::Names;
use crate::model::policy::Policies;
use crate::model::view::View;
use crate::model::workload::Workload;
use request::Read;
use walk::Explaining;

pub use name::{Destination, QuestionError};
pub use request::RequestAsked;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The client: `namespace/workload`.
    pub from: String,
    /// Where it connects to: `host:port`, the host a name or an address.
    pub to: String,
    /// What it asks for there; without it only the connection is looked at.
    #[serde(default)]
    pub request: Option<RequestAsked>,
    /// It sends datagrams there, and does not connect.
    #[serde(default)]
    pub udp: bool,
}

/// The way of a connection and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The client, as `namespace/workload`.
    pub from: String,
    /// What was asked for.
    pub to: String,
    /// Whether every way it may take is open.
    pub allowed: bool,
    /// What made it so, in words.
    pub reason: String,
    /// The status that a waypoint answers a request with by itself, where it may.
    #[serde(default)]
    pub status: Option<u16>,
    /// What happens before an endpoint is chosen.
    pub steps: Vec<Step>,
    /// One for each endpoint that may be chosen; none when it gets to no workload of the mesh.
    pub ways: Vec<Way>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// Which: `capture`, `name`, `route`, `waypoint`, `mark`, `policy`, `limit`, `transport`, `arrival`; of a request
    /// `request`, `trace`, `rule`, `match`, `filter`, `backend`, `answer`.
    pub stage: String,
    /// What happens.
    pub text: String,
}

/// The way to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Way {
    /// The workload, as `namespace/workload`.
    pub workload: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether it is open.
    pub allowed: bool,
    /// What made it so, in words.
    pub reason: String,
    /// What happens on it.
    pub steps: Vec<Step>,
    /// Every policy that holds for the workload, in the order in which they count.
    pub policies: Vec<Judgement>,
}

/// What a policy has to say of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Judgement {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW` or `DENY`.
    pub action: String,
    /// It is only tried.
    pub dry_run: bool,
    /// Whether it matches.
    pub matches: bool,
    /// Where it is written, the rule if one matches, as `file:line`; empty when unknown.
    pub place: String,
}

/// The mesh, by which questions are answered.
pub struct Intended {
    /// Who is in it.
    pub view: View,
    /// What names mean in it.
    pub names: Names,
    /// What its waypoints are told.
    pub waypoints: Waypoints,
}

/// Answers a question by a view of the mesh, by what names mean in it, and by what waypoints are told as far as that is known here.
///
/// # Errors
/// [`QuestionError`], when the question names something that does not exist.
pub fn explain(
    view: &View,
    names: &Names,
    waypoints: &Waypoints,
    question: &Question,
) -> Result<Explanation, QuestionError> {
    let source = name::workload(view, &question.from)?;
    let destination = name::destination((view, names), source, &question.to)?;
    let request = question.request.as_ref();
    let request = request.map(|asked| Read::new(asked, &question.to));
    let explained = Explaining {
        view,
        source,
        to: destination.address,
        waypoints,
        request: request.transpose()?,
    };
    let mut explanation = Explanation {
        from: label(source),
        to: question.to.clone(),
        allowed: false,
        reason: String::new(),
        status: None,
        steps: vec![explained.captured()],
        ways: Vec::new(),
    };
    explanation.steps.extend(destination.step());
    match question.udp {
        true => explained.datagrams(&mut explanation),
        false => explained.routes(&mut explanation),
    }
    explanation.settle();
    Ok(explanation)
}

/// The mesh as it is meant to be: every enrolled workload captured, and healthy.
///
/// # Errors
/// [`CompileError`], when it does not compile.
pub fn intended(mesh: &Mesh) -> Result<Intended, CompileError> {
    let bare = compile(mesh, &Reported::default(), &Assignments::default())?;
    let placed = bare.placements.values().flat_map(|placed| &**placed);
    let captured = placed
        .filter(|placement| placement.enrolled)
        .map(|placement| {
            let captured = Observed {
                captured: true,
                ..Observed::default()
            };
            (Arc::clone(&placement.uid), captured)
        });
    let whole = compile(mesh, &captured.collect(), &bare.assignments)?;
    let policies = Arc::new(Policies::new(whole.policies));
    Ok(Intended {
        names: Names::new(Arc::clone(&mesh.settings.domain), None),
        view: View::new(whole.workloads, whole.services).under(policies),
        waypoints: whole.waypoints,
    })
}

impl Explanation {
    /// Open when all ways are; what is said is said by the first that is not.
    fn settle(&mut self) {
        // What a waypoint answers for some share of the requests has been told.
        if self.status.is_some() {
            return;
        }
        let closed = self.ways.iter().find(|way| !way.allowed);
        let Some(telling) = closed.or_else(|| self.ways.first()) else {
            return;
        };
        let open = self.ways.iter().filter(|way| way.allowed).count();
        self.allowed = telling.allowed;
        self.reason = match (open, self.ways.len()) {
            (0, _) | (_, 1) => telling.reason.clone(),
            (open, all) if open == all => telling.reason.clone(),
            (open, all) => format!(
                "it depends on the endpoint: {open} of {all} let it in, and {} does not: {}",
                telling.workload, telling.reason
            ),
        };
    }
}

fn label(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

fn step(stage: &str, text: impl Into<String>) -> Step {
    Step {
        stage: stage.to_owned(),
        text: text.into(),
    }
}

#[cfg(test)]
mod tests;
