//! Why a connection is let in, or is not: the whole way from a workload to an address, told step by
//! step.
//!
//! Nothing is decided here. Each step asks the function that a node asks when a program connects:
//! [`outbound::decide`](crate::model::outbound::decide), at a waypoint
//! [`admit`](crate::model::waypoint::admit) and [`onward`](crate::model::waypoint::onward),
//! [`guarded`](crate::model::inbound::guarded), [`tunnelled`](crate::model::inbound::tunnelled)
//! and [`plaintext`](crate::model::inbound::plaintext), and the workload's
//! [`Guard`](crate::model::policy::Guard).

mod name;
mod walk;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::compile::{Assignments, CompileError, Observed, Reported, compile};
use crate::model::declaration::Mesh;
use crate::model::policy::Policies;
use crate::model::view::View;
use crate::model::workload::Workload;
use walk::Explaining;

pub use name::{Destination, QuestionError};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The client: `namespace/workload`.
    pub from: String,
    /// Where it connects to: `host:port`, the host a name or an address.
    pub to: String,
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
    /// What happens before an endpoint is chosen.
    pub steps: Vec<Step>,
    /// One for each endpoint that may be chosen; none when it gets to no workload of the mesh.
    pub ways: Vec<Way>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// Which: `capture`, `name`, `route`, `waypoint`, `transport`, `arrival`.
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

/// Answers a question by a view of the mesh.
///
/// # Errors
/// [`QuestionError`], when the question names something that does not exist.
pub fn explain(view: &View, question: &Question) -> Result<Explanation, QuestionError> {
    let source = name::workload(view, &question.from)?;
    let destination = name::destination(view, source, &question.to)?;
    let explained = Explaining {
        view,
        source,
        to: destination.address,
    };
    let mut explanation = Explanation {
        from: label(source),
        to: question.to.clone(),
        allowed: false,
        reason: String::new(),
        steps: vec![explained.captured()],
        ways: Vec::new(),
    };
    explanation.steps.extend(destination.step());
    explained.routes(&mut explanation);
    explanation.settle();
    Ok(explanation)
}

/// The mesh as it is meant to be: every enrolled workload captured, and healthy.
///
/// # Errors
/// [`CompileError`], when it does not compile.
pub fn intended(mesh: &Mesh) -> Result<View, CompileError> {
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
    Ok(View::new(whole.workloads, whole.services).under(policies))
}

impl Explanation {
    /// Open when all ways are; what is said is said by the first that is not.
    fn settle(&mut self) {
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
