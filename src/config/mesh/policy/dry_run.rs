//! Dry run: the key `dry-run`, and Istio's annotation that means the same
//! (`spec/labels-and-policy.md` §3.7).

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::config::suggest;

const ANNOTATION: &str = "istio.io/dry-run";

pub(super) fn read(table: &Table<'_>) -> bool {
    let key = table.optional("dry-run", |value| {
        Some(At::new(value.boolean()?, value.place().clone()))
    });
    let annotation = table.optional("annotations", annotations);
    match (key, annotation) {
        (Some(key), Some(annotation)) if key.value != annotation.value => {
            let message = format!(
                "{}: key `dry-run` and annotation `{ANNOTATION}` disagree",
                table.what()
            );
            table.report(
                Diagnostic::new(Code::ConflictingKeys, annotation.place, message)
                    .label("the annotation says this")
                    .related(key.place, "the key says this")
                    .help("they mean the same; keep `dry-run` and drop the annotation"),
            );
            key.value
        }
        (key, annotation) => key.or(annotation).is_some_and(|dry_run| dry_run.value),
    }
}

/// What the annotation says, if it is there. Others are the operator's own.
fn annotations(value: &Value<'_>) -> Option<At<bool>> {
    let table = value.nested()?;
    let mut says = None;
    for (key, value) in table.entries() {
        if key.value == ANNOTATION {
            says = go_bool(&value).map(|says| At::new(says, value.place().clone()));
        } else if value.text().is_some() && key.value.starts_with("istio.io/") {
            reject_unknown(&table, &key);
        }
    }
    says
}

fn go_bool(value: &Value<'_>) -> Option<bool> {
    let text = value.text()?;
    let says = scalar::go_bool(text);
    if says.is_none() {
        value.bad(
            &format!("is neither true nor false: {text:?}"),
            "not a boolean",
            "write `\"true\"` or `\"false\"`",
        );
    }
    says
}

fn reject_unknown(table: &Table<'_>, key: &At<&str>) {
    let message = format!(
        "{} has one that policies do not have: `{}`",
        table.what(),
        key.value
    );
    let finding = Diagnostic::new(Code::UnknownKey, key.place.clone(), message);
    table.report(match suggest::closest(key.value, [ANNOTATION]) {
        Some(meant) => finding
            .label(format!("did you mean `{meant}`?"))
            .help(format!("write `{meant}` instead")),
        None => finding.label("no such annotation").help("take it out"),
    });
}
