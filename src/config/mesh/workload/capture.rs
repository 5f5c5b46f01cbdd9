//! `capture`: how a workload's traffic is taken over (DESIGN §7).

use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::Capture;

/// The ways there are; the first is the one this version has.
const WAYS: [&str; 5] = ["netns", "unit", "cgroup", "user", "interface"];

const SUPPORTED: &str = "this version captures network namespaces: write `{ netns = \"NAME\" }`";

pub(in crate::config) fn read(value: &Value<'_>) -> Option<Capture> {
    let table = value.nested()?;
    let written: Vec<_> = WAYS
        .into_iter()
        .filter_map(|way| Some((way, table.value(way)?)))
        .collect();
    let way = only(value, &table, &written);
    table.finish();
    let (way, named) = way?;
    let name: Arc<str> = Arc::from(scalar::plain(named)?);
    if *way != "netns" {
        named.unsupported(SUPPORTED);
    }
    match *way {
        "netns" => is_netns(&name).then_some(Capture::Netns(name)).or_else(|| {
            named.bad(
                "is no network namespace",
                "not a namespace's name",
                "write its name under /run/netns, or an absolute path",
            );
            None
        }),
        "unit" => Some(Capture::Unit(name)),
        "cgroup" => Some(Capture::Cgroup(name)),
        "user" => Some(Capture::User(name)),
        _ => Some(Capture::Interface(name)),
    }
}

fn only<'w, 'a>(
    value: &Value<'_>,
    table: &Table<'_>,
    written: &'w [(&'static str, Value<'a>)],
) -> Option<&'w (&'static str, Value<'a>)> {
    match written {
        [way] => Some(way),
        [] => {
            let message = format!("{} names no way of capture", table.what());
            let finding = Diagnostic::new(Code::MissingKey, value.place().clone(), message);
            table.missing(WAYS.to_vec(), finding.label("which way?").help(SUPPORTED));
            None
        }
        [_, (_, second), ..] => {
            let message = "is a second way of capture";
            second.reject(Code::ConflictingKeys, message, "one too many", SUPPORTED);
            None
        }
    }
}

/// A name that is one file under `/run/netns`, or an absolute path.
fn is_netns(name: &str) -> bool {
    let dots = matches!(name, "." | "..");
    name.len() <= 4096 && (name.starts_with('/') || (!name.contains('/') && !dots))
}
