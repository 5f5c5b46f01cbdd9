//! What is spoken on a port, and over what: `app-protocol` and `protocol`, else the port's name, else its
//! number (`spec/waypoint-l7.md` §1.4).

use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::service::AppProtocol;

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// TCP, with what is spoken over it where that is said.
    Tcp(Option<AppProtocol>),
    /// UDP.
    Udp,
}

/// What carries what programs speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    /// TCP.
    Tcp(AppProtocol),
    /// UDP.
    Udp,
    /// Either of them: the port has to say.
    Either,
}

/// Every spelling, as Istio and Kubernetes know them, and what goes over UDP. What a waypoint does with
/// `https` and `tls` is one thing, and so with the other pairs.
const SPELLINGS: [(&str, Spoken); 18] = [
    ("http", Spoken::Tcp(AppProtocol::Http11)),
    ("http2", Spoken::Tcp(AppProtocol::Http2)),
    ("grpc", Spoken::Tcp(AppProtocol::Grpc)),
    ("tcp", Spoken::Tcp(AppProtocol::Tcp)),
    ("tls", Spoken::Tcp(AppProtocol::Tls)),
    ("https", Spoken::Tcp(AppProtocol::Tls)),
    ("grpc-web", Spoken::Tcp(AppProtocol::Http2)),
    ("kubernetes.io/h2c", Spoken::Tcp(AppProtocol::Http2)),
    ("kubernetes.io/ws", Spoken::Tcp(AppProtocol::Http11)),
    ("kubernetes.io/wss", Spoken::Tcp(AppProtocol::Tls)),
    ("http_proxy", Spoken::Tcp(AppProtocol::Http11)),
    ("mongo", Spoken::Tcp(AppProtocol::Tcp)),
    ("mysql", Spoken::Tcp(AppProtocol::Tcp)),
    ("redis", Spoken::Tcp(AppProtocol::Tcp)),
    ("udp", Spoken::Udp),
    ("h3", Spoken::Udp),
    ("quic", Spoken::Udp),
    ("dns", Spoken::Either),
];

/// Ports whose servers speak first, or whose protocol a waypoint would only guess at.
const OPAQUE: [u16; 4] = [25, 53, 3306, 27017];

/// One of the words on a port that say whether it is of UDP.
struct Word {
    /// As it is quoted.
    text: String,
    said: At<bool>,
    /// What to write in its place.
    remedy: &'static str,
}

/// `protocol` and `app-protocol` of a service's port, and what its name says in their place.
pub(super) fn of_port(table: &Table<'_>, name: Option<&At<Arc<str>>>) -> Option<Protocol> {
    let layer = table.optional("protocol", |value| {
        Some(At::new(is_udp(value)?, value.place().clone()))
    });
    let spoken = table.optional("app-protocol", |value| {
        Some(At::new(spoken(value)?, value.place().clone()))
    });
    let named = name.filter(|name| prefix(&name.value) == "udp");
    let words = [
        layer.map(by_protocol),
        spoken.as_ref().and_then(by_app_protocol),
        named.map(by_name),
    ];
    let udp = agreed(table, words.into_iter().flatten())?;
    match (udp, spoken.map(|spoken| spoken.value.1)) {
        (Some(true), _) => Some(Protocol::Udp),
        (_, Some(Spoken::Tcp(app))) => Some(Protocol::Tcp(Some(app))),
        (Some(false), Some(Spoken::Either)) => Some(Protocol::Tcp(Some(AppProtocol::Tcp))),
        (None, Some(Spoken::Either)) => {
            over_which(table);
            None
        }
        (_, None | Some(Spoken::Udp)) => Some(Protocol::Tcp(None)),
    }
}

/// `protocol`, in the words of Kubernetes.
fn is_udp(value: &Value<'_>) -> Option<bool> {
    let known = [("tcp", false), ("udp", true)];
    let lower = value.text()?.to_ascii_lowercase();
    let meant = known.iter().find(|(word, _)| *word == lower);
    let meant = meant.map(|(_, udp)| *udp);
    meant.or_else(|| scalar::choice(value, &known))
}

fn by_protocol(said: At<bool>) -> Word {
    let word = if said.value { "udp" } else { "tcp" };
    Word {
        text: format!("`protocol = \"{word}\"`"),
        remedy: "leave `protocol` out",
        said,
    }
}

fn by_app_protocol(spoken: &At<(&'static str, Spoken)>) -> Option<Word> {
    let (word, over) = spoken.value;
    let udp = match over {
        Spoken::Tcp(_) => false,
        Spoken::Udp => true,
        Spoken::Either => return None,
    };
    Some(Word {
        text: format!("`app-protocol = \"{word}\"`"),
        remedy: match udp {
            true => "write what the port speaks over TCP for `app-protocol`",
            false => "leave `app-protocol` out; HTTP/3 is `h3`",
        },
        said: At::new(udp, spoken.place.clone()),
    })
}

fn by_name(name: &At<Arc<str>>) -> Word {
    Word {
        text: format!("the name `{}`", name.value),
        remedy: "give the port another name: one that begins with `udp` says UDP",
        said: At::new(true, name.place.clone()),
    }
}

/// What all words say; the inner none where there are none.
fn agreed(table: &Table<'_>, words: impl Iterator<Item = Word>) -> Option<Option<bool>> {
    let words: Vec<_> = words.collect();
    let [first, rest @ ..] = words.as_slice() else {
        return Some(None);
    };
    let udp = first.said.value;
    let Some(other) = rest.iter().find(|word| word.said.value != udp) else {
        return Some(Some(udp));
    };
    let says = |word: &Word| match word.said.value {
        true => "this says UDP",
        false => "this says TCP",
    };
    let message = format!(
        "{}: {} and {} contradict each other",
        table.what(),
        first.text,
        other.text
    );
    let remedies = format!("{}, or {}", first.remedy, other.remedy);
    table.report(
        Diagnostic::new(Code::ConflictingKeys, other.said.place.clone(), message)
            .label(says(other))
            .related(first.said.place.clone(), says(first))
            .help(remedies),
    );
    None
}

fn over_which(table: &Table<'_>) {
    let message = format!("{}: DNS is spoken over UDP and over TCP", table.what());
    table.report(
        Diagnostic::new(Code::MissingKey, table.place().clone(), message)
            .label("which of them?")
            .help("add `protocol = \"udp\"` or `protocol = \"tcp\"`, or declare the port once for each"),
    );
}

/// `app-protocol`, with its word.
fn spoken(value: &Value<'_>) -> Option<(&'static str, Spoken)> {
    let lower = value.text()?.to_ascii_lowercase();
    spelled(&lower).or_else(|| {
        let words = SPELLINGS.map(|known| (known.0, known));
        scalar::choice(value, &words)
    })
}

/// `protocol` of a service-entry, to whose hosts only connections go.
pub(super) fn read(value: &Value<'_>) -> Option<AppProtocol> {
    let lower = value.text()?.to_ascii_lowercase();
    let over_tcp = |(word, spoken)| match spoken {
        Spoken::Tcp(app) => Some((word, app)),
        Spoken::Udp | Spoken::Either => None,
    };
    match spelled(&lower) {
        Some((_, Spoken::Tcp(app))) => Some(app),
        Some((_, Spoken::Udp)) => {
            not_carried(value);
            None
        }
        Some((_, Spoken::Either)) | None => {
            let words: Vec<_> = SPELLINGS.into_iter().filter_map(over_tcp).collect();
            scalar::choice(value, &words)
        }
    }
}

/// Refuses the name of a service-entry's port that says what is not carried there.
pub(super) fn named(value: &Value<'_>, name: &str) -> Option<()> {
    if prefix(name) == "udp" {
        not_carried(value);
        return None;
    }
    Some(())
}

/// What a port speaks that does not say so.
pub(super) fn guessed(name: Option<&str>, port: u16) -> AppProtocol {
    let by_name = name.and_then(|name| match spelled(prefix(name))? {
        (_, Spoken::Tcp(app)) => Some(app),
        (_, Spoken::Udp | Spoken::Either) => None,
    });
    let by_number = || match OPAQUE.contains(&port) {
        true => AppProtocol::Tcp,
        false => AppProtocol::Unknown,
    };
    by_name.unwrap_or_else(by_number)
}

/// What a port's name says of its protocol: all before the first hyphen, `grpc-web` excepted.
fn prefix(name: &str) -> &str {
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return "grpc-web";
    }
    name.split('-').next().unwrap_or_default()
}

fn spelled(text: &str) -> Option<(&'static str, Spoken)> {
    let mut spellings = SPELLINGS.iter();
    spellings.find(|(spelling, _)| *spelling == text).copied()
}

fn not_carried(value: &Value<'_>) {
    value.bad(
        "says UDP, and what is outside the mesh is reached through it over TCP only",
        "not carried by the mesh",
        "leave this port out: UDP to hosts outside goes past the mesh as it is",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_declares_nothing_is_guessed_by_name_then_by_number() {
        for (name, port, want) in [
            (None, 80, AppProtocol::Unknown),
            (Some("web"), 80, AppProtocol::Unknown),
            (Some("http"), 80, AppProtocol::Http11),
            (Some("http-metrics"), 9090, AppProtocol::Http11),
            (Some("httpmetrics"), 9090, AppProtocol::Unknown),
            (Some("http2-api"), 80, AppProtocol::Http2),
            (Some("grpc-api"), 80, AppProtocol::Grpc),
            (Some("grpc-web"), 80, AppProtocol::Http2),
            (Some("grpc-web-ui"), 80, AppProtocol::Http2),
            (Some("grpc-website"), 80, AppProtocol::Grpc),
            (Some("https"), 443, AppProtocol::Tls),
            (Some("tcp-admin"), 80, AppProtocol::Tcp),
            (Some("redis-cache"), 6379, AppProtocol::Tcp),
            (Some("db"), 3306, AppProtocol::Tcp),
            (Some("http-mail"), 25, AppProtocol::Http11),
            (Some("dns"), 5353, AppProtocol::Unknown),
            (Some("h3"), 443, AppProtocol::Unknown),
            (None, 25, AppProtocol::Tcp),
            (None, 53, AppProtocol::Tcp),
            (None, 27017, AppProtocol::Tcp),
            (None, 5432, AppProtocol::Unknown),
        ] {
            assert_eq!(guessed(name, port), want, "{name:?} {port}");
        }
    }
}
