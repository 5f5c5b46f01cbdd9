//! Health checks that nobody would make (`spec/control-plane.md` §7.1).

use super::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenWorkload;
use crate::model::declaration::Proxy;

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let workloads = context.doubtful.iter();
    found.extend(workloads.filter_map(|workload| judge(context, workload)));
}

/// Nobody should believe that an endpoint is left out for failing a check that is not made.
fn judge(context: &Context<'_>, workload: &WrittenWorkload) -> Option<Diagnostic> {
    let health = workload.health.as_ref()?;
    let node = context.node_of(workload);
    let why = match (&workload.node, node) {
        (None, _) => "is on no node".to_owned(),
        (Some(_), Some(node)) if node.proxy == Proxy::Ztunnel => {
            let name = &node.name.value;
            format!("node `{name}` runs a ztunnel, which makes none")
        }
        _ => return None,
    };
    let name = &workload.name.value;
    let message = format!("workload `{name}` has a health check, and {why}");
    Some(
        Diagnostic::new(Code::NoEffect, health.place.clone(), message)
            .label("has no effect")
            .help("the workload counts as healthy; a check is made by the lateen on its node"),
    )
}
