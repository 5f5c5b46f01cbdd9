//! One family of routes to a service port (§2.1): of several the most particular one, others are not
//! accepted there.

use std::collections::HashMap;

use super::attached::{Attached, Name};
use super::{ports, title};
use crate::config::diagnose::{Code, Diagnostic};

/// Takes from routes the ports that are another family's, and says so.
pub(super) fn check(attached: &mut [Attached<'_>], found: &mut Vec<Diagnostic>) {
    let mut first: HashMap<(Name<'_>, u16), usize> = HashMap::new();
    for (at, one) in attached.iter().enumerate() {
        for port in &one.ports {
            let holder = first.entry((one.to, *port)).or_insert(at);
            if attached
                .get(*holder)
                .is_some_and(|held| one.route.kind.family() < held.route.kind.family())
            {
                *holder = at;
            }
        }
    }
    let lost: Vec<_> = attached
        .iter()
        .map(|one| lost(one, attached, &first))
        .collect();
    for (one, lost) in attached.iter_mut().zip(lost) {
        let Some((lost, finding)) = lost else {
            continue;
        };
        one.ports.retain(|port| !lost.contains(port));
        found.push(finding);
    }
}

/// The ports at which another family is in place of this route.
fn lost(
    one: &Attached<'_>,
    attached: &[Attached<'_>],
    first: &HashMap<(Name<'_>, u16), usize>,
) -> Option<(Vec<u16>, Diagnostic)> {
    let holder = |port: &u16| {
        let holder = attached.get(*first.get(&(one.to, *port))?)?;
        (holder.route.kind.family() != one.route.kind.family()).then_some(holder)
    };
    let lost: Vec<u16> = one
        .ports
        .iter()
        .copied()
        .filter(|port| holder(port).is_some())
        .collect();
    let holder = holder(lost.first()?)?;
    let message = format!(
        "{} is not accepted for {} of {}: {} is there, and goes first",
        title(one.route),
        ports(&lost),
        one.to,
        title(holder.route)
    );
    let finding = Diagnostic::new(Code::Superseded, one.parent.place.clone(), message)
        .label("has no effect there")
        .related(holder.parent.place.clone(), "this one has")
        .help(
            "write all that is for one port as one kind of route, or give them ports of their own",
        );
    Some((lost, finding))
}
