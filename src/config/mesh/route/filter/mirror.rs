//! `request-mirror`.

use crate::config::diagnose::Code;
use crate::config::mesh::route::backends;
use crate::config::mesh::route::scope::{Role, Scope};
use crate::config::read::Value;
use crate::model::route::{BackendRef, Fraction, Mirror};

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Mirror<BackendRef>> {
    let table = value.nested()?;
    let example = "backend-ref = { name = \"cart-v2\", port = 80 }";
    let to = table.required("backend-ref", example, |value| {
        let table = value.nested()?;
        let to = backends::reference(&table, scope, Role::Mirror);
        table.finish();
        to
    });
    let percent = table.optional("percent", |value| value.count(0..=100));
    let fraction = table.value("fraction");
    if let Some(fraction) = fraction.as_ref().filter(|_| percent.is_some()) {
        fraction.reject(
            Code::ConflictingKeys,
            "stands beside `percent`",
            "one of the two",
            "keep the one that is meant",
        );
    }
    let fraction = fraction.and_then(|value| share(&value));
    table.finish();
    let percent = percent.map(|numerator| Fraction {
        numerator,
        denominator: 100,
    });
    Some(Mirror {
        to: to?,
        share: percent.or(fraction).unwrap_or(Fraction::ALL),
    })
}

/// `{ numerator, denominator }`.
fn share(value: &Value<'_>) -> Option<Fraction> {
    let table = value.nested()?;
    let most = i32::MAX.unsigned_abs();
    let numerator = table.required("numerator", "numerator = 5", |v| v.count(0..=most));
    let denominator = table.value("denominator");
    table.finish();
    let denominator = match denominator {
        Some(value) => value.count(1..=most)?,
        None => 100,
    };
    let numerator = numerator?;
    if numerator > denominator {
        value.bad(
            &format!("is more than all: {numerator} of {denominator}"),
            "more than all",
            "write a numerator that is at most the denominator, which is 100 unless given",
        );
        return None;
    }
    Some(Fraction {
        numerator,
        denominator,
    })
}
