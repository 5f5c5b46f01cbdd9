//! Whether what is to be captured can be (`spec/labels-and-policy.md` §1.3).

use super::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenWorkload;
use crate::model::declaration::{DataplaneMode, Proxy};

const HOW: &str = "add `capture = { netns = \"NAME\" }`, or leave it out of the mesh with `dataplane-mode = \"none\"`";

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let workloads = context.doubtful.iter();
    found.extend(workloads.filter_map(|workload| judge(context, workload)));
}

/// Whether a workload is to be captured, by its own word or its namespace's (§1.3).
pub(super) fn is_enrolled(context: &Context<'_>, workload: &WrittenWorkload) -> bool {
    let inherited = || context.namespace_of(workload)?.dataplane_mode.as_ref();
    let mode = workload.dataplane_mode.as_ref().or_else(inherited);
    mode.is_some_and(|mode| mode.value == DataplaneMode::Ambient)
}

fn judge(context: &Context<'_>, workload: &WrittenWorkload) -> Option<Diagnostic> {
    let name = &workload.name.value;
    let own = workload.dataplane_mode.as_ref();
    let inherited = || context.namespace_of(workload)?.dataplane_mode.as_ref();
    let mode = own.or_else(inherited);
    let ambient = mode.filter(|mode| mode.value == DataplaneMode::Ambient);
    let capture = workload.capture.as_ref();
    if workload.node.is_none() {
        // Enrolled by its namespace alone it is an outsider among insiders, which is allowed.
        let own = own.filter(|mode| mode.value == DataplaneMode::Ambient);
        let place = capture
            .map(|capture| &capture.place)
            .or_else(|| own.map(|mode| &mode.place))?;
        let message = format!("workload `{name}` is to be captured, and is on no node");
        return Some(
            Diagnostic::new(Code::WithoutNode, place.clone(), message)
                .label("captured by whom?")
                .help("add `node = \"NAME\"`, the machine it runs on"),
        );
    }
    let node = context.node_of(workload);
    if node.is_some_and(|node| node.proxy == Proxy::Ztunnel) {
        // Whoever set that proxy up captures too.
        return None;
    }
    match (ambient, capture) {
        (Some(mode), None) => {
            let message =
                format!("workload `{name}` is enrolled, and does not say how it is captured");
            let finding =
                Diagnostic::new(Code::WithoutCapture, workload.name.place.clone(), message);
            Some(
                finding
                    .label("no `capture`")
                    .related(mode.place.clone(), "enrolled here")
                    .help(HOW),
            )
        }
        (None, Some(capture)) if mode.is_none() => {
            let message = format!("workload `{name}` says how it is captured, and is not enrolled");
            Some(
                Diagnostic::new(Code::NoEffect, capture.place.clone(), message)
                    .label("has no effect")
                    .help("add `dataplane-mode = \"ambient\"` to it or to its namespace"),
            )
        }
        _ => None,
    }
}
