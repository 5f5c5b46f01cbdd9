//! Whether a waypoint keeps the trace of a request, and who says so (`spec/waypoint-l7.md` §6.4).

use super::request::Read;
use super::{Step, step};
use crate::model::telemetry::{Telemetry, Traces};
use crate::model::waypoint::{Bound, Resources};
use crate::telemetry::trace::Propagation;

/// Tells of the trace, where there is one.
pub(super) fn traced(told: &Resources, bound: &Bound, request: &Read, steps: &mut Vec<Step>) {
    let (Some(set), Some(gateway)) = (told.attached_to(bound), &told.gateway) else {
        return;
    };
    let Some(traces) = told.merged_of(set).traces else {
        return;
    };
    let exporter = gateway.options.telemetry.providers.get(&traces.provider);
    let Some(propagation) = exporter.and_then(Propagation::of) else {
        let text = format!(
            "there is no provider `{}` that takes spans",
            traces.provider
        );
        return steps.push(step("trace", text));
    };
    let decided = propagation.read(&request.headers).decision;
    let kept = match decided.map(|decision| decision.keeps()) {
        Some(true) => "kept, as the request says".to_owned(),
        Some(false) => "not kept, as the request says".to_owned(),
        None => format!("kept in {} % of requests that do not say", percent(&traces)),
    };
    let reports = match traces.reports {
        true => format!("told to `{}`", traces.provider),
        false => "never told".to_owned(),
    };
    let saying = told.telemetry_of(set);
    let saying = saying.filter(|telemetry| !telemetry.says.tracing.is_empty());
    let places: Vec<String> = saying.map(|telemetry| place(telemetry)).collect();
    let by = match &*places {
        [] => "`default-providers` of the mesh".to_owned(),
        places => places.join(", then "),
    };
    steps.push(step("trace", format!("{kept}, {reports}, by {by}")));
}

/// As it was written.
fn percent(traces: &Traces) -> String {
    let hundredths = traces.sampling.0;
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn place(telemetry: &Telemetry) -> String {
    let origin = &telemetry.origin;
    format!(
        "telemetry {} ({}:{})",
        telemetry.key, origin.file, origin.line
    )
}

#[cfg(test)]
mod tests;
