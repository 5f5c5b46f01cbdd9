//! Health checks: read, and not yet carried out.

use super::Context;
use crate::config::diagnose::{Code, Diagnostic};

/// Says it once for the whole mesh: on each of a thousand workloads it would bury what else is
/// found. Nobody should believe that an endpoint is left out for failing a check nobody makes.
pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let places = context.written.workloads.iter();
    let mut places = places.filter_map(|workload| Some(&workload.health.as_ref()?.place));
    let Some(first) = places.next() else {
        return;
    };
    let whose = match places.count() {
        0 => "a workload has a health check".to_owned(),
        more => format!("{} workloads have health checks", more + 1),
    };
    let message = format!("{whose}, and this version does not probe yet");
    found.push(
        Diagnostic::new(Code::NotProbed, first.clone(), message)
            .label("not carried out")
            .help("the workload counts as healthy while it exists; the table may stay for later"),
    );
}
