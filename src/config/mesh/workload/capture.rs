//! `capture`: how a workload's traffic is taken over (DESIGN §7).

use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::Capture;

const WAYS: [&str; 5] = ["netns", "unit", "cgroup", "user", "interface"];
const HOW: &str = "write one of `{ netns = \"NAME\" }`, `{ unit = \"NAME.service\" }`, \
    `{ cgroup = \"PATH\" }`, `{ user = \"NAME\" }` and `{ interface = \"NAME\" }`";
/// Kinds of units that have a cgroup of their own.
const UNITS: [&str; 3] = [".service", ".scope", ".slice"];
/// Longest name of a unit (`UNIT_NAME_MAX` of systemd).
const LONGEST_UNIT: usize = 255;
/// Longest path the kernel takes.
const LONGEST_PATH: usize = 4096;
/// Longest name of an interface (`IFNAMSIZ`, less its zero).
const LONGEST_INTERFACE: usize = 15;
/// Where cgroups are, to everybody who names one by its whole path.
const CGROUPS: &str = "/sys/fs/cgroup/";

pub(in crate::config) fn read(value: &Value<'_>) -> Option<Capture> {
    let table = value.nested()?;
    let written: Vec<_> = WAYS
        .into_iter()
        .filter_map(|way| Some((way, table.value(way)?)))
        .collect();
    let way = only(value, &table, &written);
    table.finish();
    let (way, named) = way?;
    match *way {
        "netns" => netns(named).map(Capture::Netns),
        "unit" => unit(named).map(Capture::Unit),
        "cgroup" => cgroup(named).map(Capture::Cgroup),
        "user" => user(named).map(Capture::User),
        _ => interface(named).map(Capture::Interface),
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
            table.missing(WAYS.to_vec(), finding.label("which way?").help(HOW));
            None
        }
        [_, (_, second), ..] => {
            let message = "is a second way of capture";
            second.reject(Code::ConflictingKeys, message, "one too many", HOW);
            None
        }
    }
}

/// A text that `fault` finds nothing wrong with; else what is wrong, and what to write.
fn checked(
    value: &Value<'_>,
    message: &str,
    label: &str,
    fault: impl FnOnce(&str) -> Option<String>,
) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    if let Some(help) = fault(text) {
        value.bad(message, label, help);
        return None;
    }
    Some(Arc::from(text))
}

/// A name that is one file under `/run/netns`, or an absolute path.
fn netns(value: &Value<'_>) -> Option<Arc<str>> {
    let label = "not a namespace's name";
    checked(value, "is no network namespace", label, |name| {
        let dots = matches!(name, "." | "..");
        let named = name.starts_with('/') || (!name.contains('/') && !dots);
        let help = "write its name under /run/netns, or an absolute path";
        (name.len() > LONGEST_PATH || !named).then(|| help.to_owned())
    })
}

/// A unit of the system's manager that has a cgroup.
fn unit(value: &Value<'_>) -> Option<Arc<str>> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    checked(value, "is no unit", "not a unit's name", |name| {
        let stem = UNITS.iter().find_map(|kind| name.strip_suffix(kind));
        match stem {
            _ if !name.bytes().all(legal) || name.len() > LONGEST_UNIT => {
                Some("write the unit's name as `systemctl` lists it".to_owned())
            }
            None if name.contains('.') => Some(format!(
                "write a unit whose programs have a cgroup of their own: one of {}",
                UNITS.join(", ")
            )),
            None => Some(format!("write `{name}.service`")),
            Some("") => Some("write a name before the dot".to_owned()),
            Some(stem) if stem.ends_with('@') => Some(format!(
                "that is a template; write an instance of it, as `{stem}1.service`"
            )),
            Some(_) => None,
        }
    })
}

/// A path below the root of the cgroups.
fn cgroup(value: &Value<'_>) -> Option<Arc<str>> {
    let message = "is no path of a cgroup";
    let path = checked(value, message, "not a cgroup", |path| {
        if let Some(rest) = path.strip_prefix(CGROUPS) {
            return Some(format!("write it below {CGROUPS}: `{rest}`"));
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let odd = |part: &str| matches!(part, "" | "." | "..");
        // The rules name it in quotes, in which nothing can be escaped.
        let foul = path.contains(['"', '*']) || path.split('/').any(odd);
        let help = format!("write its path below {CGROUPS}, as in `system.slice/cart.service`");
        (foul || path.len() > LONGEST_PATH).then_some(help)
    })?;
    Some(Arc::from(path.strip_prefix('/').unwrap_or(&path)))
}

/// A user by name, or by number where no name is to be had.
fn user(value: &Value<'_>) -> Option<Arc<str>> {
    const ROOT: &str = "root's programs are all over the host, the node's own among them; run the \
        workload as a user of its own";
    if value.is_integer() {
        let number = value.count(0..=u32::MAX - 1)?;
        if number == 0 {
            value.bad("is root", "everybody's user", ROOT);
            return None;
        }
        return Some(Arc::from(number.to_string()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.$".contains(&b);
    checked(value, "is no user to capture", "not a user", |name| {
        if name.bytes().all(|b| b.is_ascii_digit()) {
            return Some(format!("write a number unquoted: `{name}`"));
        }
        if name == "root" {
            return Some(ROOT.to_owned());
        }
        let foul = name.len() > 32 || name.starts_with('-') || !name.bytes().all(legal);
        foul.then(|| "write a name of /etc/passwd, or a number".to_owned())
    })
}

/// An interface of the host.
fn interface(value: &Value<'_>) -> Option<Arc<str>> {
    let foul = |c: char| !c.is_ascii_graphic() || "/:*\"\\%".contains(c);
    let label = "not an interface";
    checked(value, "is no interface of a guest", label, |name| {
        if name == "lo" {
            return Some("everything on the host is behind `lo`; name the guest's own".to_owned());
        }
        let odd = name.len() > LONGEST_INTERFACE || matches!(name, "." | "..");
        let help = format!(
            "write the host's end of the guest's link as `ip link` names it, at most \
             {LONGEST_INTERFACE} characters"
        );
        (odd || name.contains(foul)).then_some(help)
    })
}
