//! `route`, `mirror` and `mirrors`: where requests go, in which shares, and who gets copies.

use std::sync::Arc;

use super::{headers, share};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::no_effect;
use crate::config::mesh::route::scope::{Role, Scope};
use crate::config::read::{Table, Value, scalar};
use crate::model::route::{Backend, BackendKind, BackendRef, Filter, Fraction, Mirror};

/// Gateway API's limit on a share.
const GREATEST_WEIGHT: u32 = 1_000_000;

/// `route`. A single destination has it all, whatever its weight; among several one without a weight
/// has none.
pub(super) fn shares(value: &Value<'_>, scope: &Scope) -> Option<Vec<Backend<BackendRef>>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "goes nowhere",
            "name where requests go, as in `[{ destination = { host = \"cart-v2\" } }]`",
        );
        return None;
    }
    let mut count = 0;
    let shares = value.list(|item| {
        count += 1;
        share_of(item, scope)
    })?;
    if count == 1 {
        let alone = |(share, _): (Backend<_>, _)| Backend { weight: 1, ..share };
        return Some(shares.into_iter().map(alone).collect());
    }
    let whole = shares.len() == count;
    if whole && shares.iter().all(|(share, _)| share.weight == 0) {
        value.bad(
            "gives nobody a share",
            "who of them?",
            "give each a `weight`, as in `weight = 50`",
        );
    } else {
        for (_, table) in shares
            .iter()
            .filter(|(_, table)| table.value("weight").is_none())
        {
            let message = format!("{} has no `weight` beside others, which is 0", table.what());
            let help = "give it a `weight`, or take it out";
            no_effect(table, table.place().clone(), message, help);
        }
    }
    Some(shares.into_iter().map(|(share, _)| share).collect())
}

fn share_of<'a>(value: &Value<'a>, scope: &Scope) -> Option<(Backend<BackendRef>, Table<'a>)> {
    let table = value.nested()?;
    let example = "destination = { host = \"cart-v2\" }";
    let to = table.required("destination", example, |value| {
        reference(value, scope, Role::Share)
    });
    let weight = table.optional("weight", |value| value.count(0..=GREATEST_WEIGHT));
    let filters = table.optional("headers", headers::read);
    table.finish();
    let share = Backend {
        to: to?,
        weight: weight.unwrap_or(0),
        filters: filters.unwrap_or_default(),
    };
    Some((share, table))
}

/// `{ host, subset, port }`. Whether it is there is asked once all files are read.
fn reference(value: &Value<'_>, scope: &Scope, role: Role) -> Option<BackendRef> {
    let table = value.nested()?;
    let host = table.required("host", "host = \"cart-v2\"", scalar::name);
    let subset = table.optional("subset", scalar::label);
    let port = table.optional("port", number);
    table.finish();
    let backend = BackendRef {
        kind: BackendKind::Hostname,
        name: host?.value,
        namespace: Arc::clone(&scope.namespace),
        port,
        subset: subset.map(|subset| subset.value),
        origin: table.place().origin(),
    };
    scope.ask(table.place(), &backend, role);
    Some(backend)
}

/// `{ number }`.
fn number(value: &Value<'_>) -> Option<u16> {
    if value.is_integer() {
        let number = value.place().text();
        value.wrong_type("a table", format!("write `{{ number = {number} }}`"));
        return None;
    }
    let table = value.nested()?;
    let number = table.required("number", "number = 80", scalar::port);
    table.finish();
    number
}

/// Everybody who gets copies.
pub(super) fn mirrors(table: &Table<'_>, scope: &Scope) -> Vec<Filter<BackendRef>> {
    table.unsupported(
        "mirror-percent",
        "write `mirror-percentage = { value = 50 }`",
    );
    let share = table.optional("mirror-percentage", share::read);
    let one = table.optional("mirror", |value| reference(value, scope, Role::Mirror));
    let several = table.value("mirrors");
    match (
        table.value("mirror"),
        &several,
        table.value("mirror-percentage"),
    ) {
        (Some(_), Some(several), _) => {
            let message = format!("{} has `mirrors` beside `mirror`", table.what());
            table.report(
                Diagnostic::new(Code::ConflictingKeys, several.place().clone(), message)
                    .label("one of the two")
                    .help("write all of them under `mirrors`"),
            );
        }
        (None, _, Some(share)) => {
            let message = format!("{} has `mirror-percentage` without `mirror`", table.what());
            let help = "add `mirror`, or write a `percentage` in each of `mirrors`";
            no_effect(table, share.place().clone(), message, help);
        }
        _ => {}
    }
    let one = one.map(|to| Mirror {
        to,
        share: share.unwrap_or(Fraction::ALL),
    });
    let several = several.and_then(|value| value.list(|item| mirror(item, scope)));
    let all = one.into_iter().chain(several.into_iter().flatten());
    all.map(Filter::Mirror).collect()
}

/// `{ destination, percentage }`.
fn mirror(value: &Value<'_>, scope: &Scope) -> Option<Mirror<BackendRef>> {
    let table = value.nested()?;
    let example = "destination = { host = \"cart-v2\" }";
    let to = table.required("destination", example, |value| {
        reference(value, scope, Role::Mirror)
    });
    let share = table.optional("percentage", share::read);
    table.finish();
    Some(Mirror {
        to: to?,
        share: share.unwrap_or(Fraction::ALL),
    })
}
