//! `use-waypoint` and what goes with it, in all the ways it is written
//! (`spec/labels-and-policy.md` §1.1, §1.2).

use std::sync::Arc;

use super::annotations::Annotations;
use super::labels::{
    INGRESS_USE_WAYPOINT, Labels, USE_WAYPOINT, USE_WAYPOINT_CANARY, USE_WAYPOINT_CANARY_NAMESPACE,
    USE_WAYPOINT_NAMESPACE,
};
use super::{either, no_effect};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Canary, CanaryWeight, UseWaypoint};

/// A value of `use-waypoint` by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    None,
    Here(Arc<str>),
    In { namespace: Arc<str>, name: Arc<str> },
}

/// What names one waypoint: a key and its label, and the same for its namespace.
struct Keys {
    name: (&'static str, &'static str),
    namespace: (&'static str, &'static str),
}

const FIRST: Keys = Keys {
    name: ("use-waypoint", USE_WAYPOINT),
    namespace: ("use-waypoint-namespace", USE_WAYPOINT_NAMESPACE),
};

const CANARY: Keys = Keys {
    name: ("use-waypoint-canary", USE_WAYPOINT_CANARY),
    namespace: (
        "use-waypoint-canary-namespace",
        USE_WAYPOINT_CANARY_NAMESPACE,
    ),
};

const WEIGHT: &str = "use-waypoint-canary-weight";
const WEIGHT_ANNOTATION: &str = "istio.io/use-waypoint-canary-weight";

/// The waypoint a resource in `namespace` uses.
pub(super) fn read<'a>(
    table: &Table<'a>,
    labels: &mut Labels<'a>,
    namespace: &Arc<str>,
) -> Option<At<UseWaypoint>> {
    named(table, labels, namespace, &FIRST, form)
}

/// A canary, and where it is written.
#[derive(Default)]
pub(in crate::config) struct WrittenCanary {
    /// What is written.
    pub canary: Canary,
    /// Where its waypoint is named.
    pub place: Option<Place>,
}

/// The canary of a resource in `namespace`.
pub(super) fn canary<'a>(
    table: &Table<'a>,
    labels: &mut Labels<'a>,
    annotations: &mut Annotations<'a>,
    namespace: &Arc<str>,
) -> WrittenCanary {
    // Unlike for the first waypoint, an empty value is one of the ways to say that there is none.
    let or_empty = |value: &Value<'_>| match value.text()? {
        "" => Some(Form::None),
        _ => form(value),
    };
    let waypoint = named(table, labels, namespace, &CANARY, or_empty);
    let (waypoint, place) = waypoint.map(|w| (w.value, w.place)).unzip();
    WrittenCanary {
        canary: Canary {
            waypoint,
            weight: canary_weight(table, annotations),
        },
        place,
    }
}

/// `ingress-use-waypoint`, or the label that means the same. What is neither true nor false is taken
/// for false, and reported (§1.8).
pub(super) fn ingress<'a>(table: &Table<'a>, labels: &mut Labels<'a>) -> Option<bool> {
    let label = INGRESS_USE_WAYPOINT;
    let says = either(table, "ingress-use-waypoint", labels, label, |value| {
        if !value.is_text() {
            return value.boolean();
        }
        let text = value.text()?;
        if scalar::go_bool(text).is_none() {
            let message = format!(
                "{}: `ingress-use-waypoint` is neither true nor false: {text:?}",
                table.what()
            );
            let help = "write `true`, or take it out: ingress gateways do not pass the waypoint";
            no_effect(table, value.place().clone(), message, help);
        }
        Some(scalar::go_bool(text).unwrap_or(false))
    });
    says.map(|says| says.value)
}

fn named<'a>(
    table: &Table<'a>,
    labels: &mut Labels<'a>,
    namespace: &Arc<str>,
    keys: &Keys,
    form: impl Fn(&Value<'a>) -> Option<Form>,
) -> Option<At<UseWaypoint>> {
    let key = keys.name.0;
    let written = either(table, key, labels, keys.name.1, form);
    let beside = either(table, keys.namespace.0, labels, keys.namespace.1, |value| {
        Some(scalar::label(value)?.value)
    });
    let Some(At { value: form, place }) = written else {
        if let Some(beside) = beside {
            let message = format!(
                "{} has a `{}` but no waypoint beside it",
                table.what(),
                keys.namespace.0
            );
            let help = format!("add `{key}`, or take it out");
            no_effect(table, beside.place, message, &help);
        }
        return None;
    };
    let wanted = match (form, beside) {
        (Form::None, _) => UseWaypoint::None,
        (Form::In { namespace, name }, Some(beside)) => {
            if beside.value != namespace {
                let message = format!("{} names two namespaces for its waypoint", table.what());
                table.report(
                    Diagnostic::new(Code::ConflictingKeys, beside.place, message)
                        .label("one here")
                        .related(place.clone(), "the other here")
                        .help(format!("write `{key} = \"{name}\"` and its namespace once")),
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
    Some(At::new(wanted, place))
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

/// The key, or the annotation that means the same. A wrong weight is no error: the canary is left
/// out, and that is reported where it is judged (§1.7).
fn canary_weight<'a>(table: &Table<'a>, annotations: &mut Annotations<'a>) -> Option<CanaryWeight> {
    let read = |value: Value<'a>| Some(At::new(weight(&value)?, value.place().clone()));
    let key = table.value(WEIGHT).and_then(read);
    let annotation = annotations.take(WEIGHT_ANNOTATION).and_then(read);
    if let (Some(key), Some(annotation)) = (&key, &annotation)
        && key.value != annotation.value
    {
        let message = format!(
            "{}: key `{WEIGHT}` and annotation `{WEIGHT_ANNOTATION}` disagree",
            table.what()
        );
        table.report(
            Diagnostic::new(Code::ConflictingKeys, annotation.place.clone(), message)
                .label("the annotation says this")
                .related(key.place.clone(), "the key says this")
                .help(format!(
                    "they mean the same; keep `{WEIGHT}` and drop the annotation"
                )),
        );
    }
    key.or(annotation).map(|weight| weight.value)
}

fn weight(value: &Value<'_>) -> Option<CanaryWeight> {
    let text = match value.is_integer() {
        true => value.integer(0..=u64::MAX)?.to_string(),
        false => value.text()?.to_owned(),
    };
    let percent = text.parse().ok().filter(|percent: &u8| *percent <= 100);
    Some(match percent {
        Some(percent) => CanaryWeight::Percent(percent),
        None => CanaryWeight::Invalid(Arc::from(text)),
    })
}
