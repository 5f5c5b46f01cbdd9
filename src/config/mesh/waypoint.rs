//! `use-waypoint`, in all the ways it is written (`spec/labels-and-policy.md` §1.2).

use std::sync::Arc;

use super::labels::{Labels, USE_WAYPOINT, USE_WAYPOINT_NAMESPACE};
use super::{either, no_effect};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::UseWaypoint;

/// A value of `use-waypoint` by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    None,
    Here(Arc<str>),
    In { namespace: Arc<str>, name: Arc<str> },
}

/// The waypoint a resource in `namespace` uses. Since no waypoint can be declared yet, any but
/// `none` is reported.
pub(super) fn read<'a>(
    table: &Table<'a>,
    labels: &mut Labels<'a>,
    namespace: &Arc<str>,
) -> Option<UseWaypoint> {
    let form = either(table, "use-waypoint", labels, USE_WAYPOINT, form);
    let beside = either(
        table,
        "use-waypoint-namespace",
        labels,
        USE_WAYPOINT_NAMESPACE,
        |value| Some(scalar::label(value)?.value),
    );
    let Some(form) = form else {
        if let Some(beside) = beside {
            let message = format!(
                "{} names a waypoint's namespace but no waypoint",
                table.what()
            );
            let help = "add `use-waypoint`, or take it out";
            no_effect(table, beside.place, message, help);
        }
        return None;
    };
    let wanted = match (form.value, beside) {
        (Form::None, _) => return Some(UseWaypoint::None),
        (Form::In { namespace, name }, Some(beside)) => {
            if beside.value != namespace {
                let message = format!("{} names two namespaces for its waypoint", table.what());
                table.report(
                    Diagnostic::new(Code::ConflictingKeys, beside.place, message)
                        .label("one here")
                        .related(form.place.clone(), "the other here")
                        .help(format!(
                            "write `use-waypoint = \"{name}\"` and its namespace once"
                        )),
                );
            }
            UseWaypoint::Named { namespace, name }
        }
        (Form::In { namespace, name }, None) => UseWaypoint::Named { namespace, name },
        (Form::Here(name), beside) => UseWaypoint::Named {
            namespace: beside.map_or_else(|| Arc::clone(namespace), |beside| beside.value),
            name,
        },
    };
    if let UseWaypoint::Named { namespace, name } = &wanted {
        let message = format!(
            "{} names a waypoint that is not declared: `{namespace}/{name}`",
            table.what()
        );
        table.report(
            Diagnostic::new(Code::WaypointIsNotReady, form.place, message)
                .label("no such waypoint")
                .help("this version serves no waypoints; write `use-waypoint = \"none\"`, or take it out"),
        );
    }
    Some(wanted)
}

fn form(value: &Value<'_>) -> Option<Form> {
    let text = value.text()?;
    if matches!(text, "none" | "#none") {
        return Some(Form::None);
    }
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    let bad = [namespace, Some(name)];
    if bad
        .into_iter()
        .flatten()
        .any(|part| scalar::name_fault(part).is_some())
    {
        value.bad(
            &format!("is not a waypoint's name: {text:?}"),
            "not a waypoint",
            "write a name, or `none`; a waypoint of another namespace as `namespace/name`",
        );
        return None;
    }
    Some(match namespace {
        Some(namespace) => Form::In {
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        },
        None => Form::Here(Arc::from(name)),
    })
}
