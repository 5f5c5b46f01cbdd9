//! Peer-authentications of one reach: of the mesh, a namespace, a workload. The oldest counts, the
//! others say nothing (`spec/labels-and-policy.md` §4.1).

use std::collections::{HashMap, HashSet};
use std::ptr;

use crate::config::check::Context;
use crate::config::check::carriers::Carriers;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenAuthentication, WrittenWorkload};

pub(super) fn check<'a>(
    context: &Context<'a>,
    carriers: &Carriers<'a>,
    found: &mut Vec<Diagnostic>,
) {
    let policies = &context.written.peer_authentications;
    let (selecting, wide): (Vec<_>, Vec<_>) = policies.iter().partition(|p| p.selector.is_some());
    namespaces(context, &wide, found);
    workloads(context, carriers, &selecting, found);
}

fn namespaces(context: &Context<'_>, wide: &[&WrittenAuthentication], found: &mut Vec<Diagnostic>) {
    let mut first: HashMap<&str, &WrittenAuthentication> = HashMap::new();
    for policy in wide {
        let namespace = &policy.namespace.value;
        let Some(winner) = first.get(&**namespace) else {
            first.insert(namespace, policy);
            continue;
        };
        let reach = match *namespace == context.settings.root_namespace {
            true => "the whole mesh".to_owned(),
            false => format!("namespace `{namespace}`"),
        };
        found.push(superseded(policy, winner, &reach));
    }
}

/// Reports a policy once for each that takes its place, at one of the workloads where it does.
fn workloads<'a>(
    context: &Context<'a>,
    carriers: &Carriers<'a>,
    selecting: &[&'a WrittenAuthentication],
    found: &mut Vec<Diagnostic>,
) {
    let mut first: HashMap<*const WrittenWorkload, &WrittenAuthentication> = HashMap::new();
    let mut reported = HashSet::new();
    for policy in selecting {
        let (Some(selector), namespace) = (&policy.selector, &policy.namespace.value) else {
            continue;
        };
        // In the root namespace it is ignored, and so takes nobody's place.
        if *namespace == context.settings.root_namespace {
            continue;
        }
        for workload in carriers.of(Some(namespace), &selector.value) {
            let Some(winner) = first.get(&ptr::from_ref(workload)) else {
                first.insert(workload, policy);
                continue;
            };
            if reported.insert((ptr::from_ref(*policy), ptr::from_ref(*winner))) {
                let reach = format!("workload `{}`", workload.name.value);
                found.push(superseded(policy, winner, &reach));
            }
        }
    }
}

fn superseded(
    policy: &WrittenAuthentication,
    winner: &WrittenAuthentication,
    reach: &str,
) -> Diagnostic {
    let (name, other) = (&policy.name, &winner.name);
    let message = format!(
        "peer-authentication `{}` says nothing about {reach}: `{}` stands before it",
        name.value, other.value
    );
    Diagnostic::new(Code::Superseded, name.place.clone(), message)
        .label("says nothing here")
        .related(other.place.clone(), "this one counts")
        .help("keep one of the two: of several, the first by file and line counts, its ports included")
}
