//! Requests that try to get past policy: `spec/reliability.md` §2 rows 17 to 31.
//!
//! Each is sent as it is, byte by byte, on a connection of its own that is captured like any other. Whatever the
//! waypoint makes of it, one thing holds: the server never sees what is protected, and it sees as many
//! requests as were answered in its name. What the server has seen is read as a lenient server would
//! read it; what it would have to decode twice, or take parameters out of, is another thing to everybody.

mod fields;
mod framing;
mod h2;
mod paths;

use std::collections::BTreeMap;

use serde_json::Value;

use super::Bench;
use super::authorization::{on_v1, to};
use crate::programs::client::{Order, Raw};

/// The service that is asked, and the one server behind it.
const SERVICE: &str = "10.96.0.21:80";
const SERVER: &str = "v1";
/// What it is asked by, and what nobody may ask it by.
const HOST: &str = "v1.example";
const FORBIDDEN: &str = "admin.example";
/// Stands for the number of the row, which is as long.
const ROW: &[u8] = b"ROWN";

/// Something to send.
struct Row {
    name: String,
    says: Vec<u8>,
    want: Want,
}

/// What has to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Nothing protected is asked of the server.
    Kept,
    /// That, and the server is asked nothing at all.
    Refused,
    /// Its head is well formed and its body breaks: of that one request the server may see the head.
    Broken,
    /// It is answered by the server: it is as good as any.
    Served,
}

impl Row {
    fn new(name: impl Into<String>, says: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            says: says.into(),
            want: Want::Kept,
        }
    }

    fn want(self, want: Want) -> Self {
        Self { want, ..self }
    }

    /// A GET of a target, and no more.
    fn get(target: &str) -> Self {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        Self::new(target, head)
    }
}

/// What is to be kept from the server, as the policies below have it.
fn is_protected(seen: &Value) -> bool {
    let text = |key: &str| seen[key].as_str().unwrap_or_default();
    let host = text("host").to_ascii_lowercase();
    let host = host.rsplit_once('@').map_or(&*host, |(_, host)| host);
    let host = host.split(':').next().unwrap_or_default();
    let fields = seen["headers"].as_array().into_iter().flatten();
    let mut roles = fields.filter(|field| field[0] == "x-role");
    let path = text("path").split('?').next().unwrap_or_default();
    paths::as_a_server_has_it(path).starts_with("/admin")
        || host.trim_end_matches('.') == FORBIDDEN
        || text("method") == "DELETE"
        || roles.any(|role| role[1].as_str().unwrap_or_default().trim() == "guest")
}

/// What no server may be told, whoever asks.
fn is_unclean(seen: &Value) -> Option<String> {
    let fields = seen["headers"].as_array().into_iter().flatten();
    let names: Vec<&str> = fields.filter_map(|field| field[0].as_str()).collect();
    let count = |name: &str| names.iter().filter(|n| **n == name).count();
    let internal = |name: &&&str| {
        name.starts_with("x-envoy-")
            || name.starts_with("x-lateen-")
            || **name == "x-forwarded-client-cert"
    };
    if let Some(name) = names.iter().find(internal) {
        return Some(format!("`{name}` was passed on"));
    }
    let both = count("content-length") > 0 && count("transfer-encoding") > 0;
    let twice = ["host", "content-length", "transfer-encoding"]
        .iter()
        .any(|n| count(n) > 1);
    (both || twice).then(|| format!("framed in two ways: {names:?}"))
}

/// Denies what is protected, and lets all else through.
fn denying() -> String {
    let rules = [
        to("paths = [\"/admin*\"]"),
        to(&format!("hosts = [\"{FORBIDDEN}\", \"{FORBIDDEN}:*\"]")),
        to("methods = [\"DELETE\"]"),
        "{ when = [{ key = \"request.headers[x-role]\", values = [\"guest\"] }] }".to_owned(),
    ];
    on_v1("d", "DENY", &rules.join(", "))
}

/// Lets through what is known to be good, and nothing else.
fn allowing() -> String {
    let rule = format!(
        "{{ to = [{{ operation = {{ paths = [\"/public*\"], hosts = [\"{HOST}\", \"{HOST}:*\"], methods = [\"GET\", \"POST\"] }} }}], \
         when = [{{ key = \"request.headers[x-role]\", not-values = [\"guest\"] }}] }}"
    );
    on_v1("a", "ALLOW", &rule)
}

/// All there is to send.
fn rows() -> Vec<Row> {
    let mut rows = paths::rows();
    rows.extend(fields::rows());
    rows.extend(framing::rows());
    rows.extend(h2::rows());
    rows
}

/// What became of the rows: the answers to each, and what the server has seen of each.
struct Outcome {
    answers: Vec<String>,
    seen: BTreeMap<usize, Vec<Value>>,
}

/// Sends all rows; `pass` tells them from those of before.
fn sent(bench: &Bench, rows: &[Row], pass: char) -> Outcome {
    let mark = |at: usize| format!("{pass}{at:03}");
    let says = rows.iter().enumerate();
    let says = says.map(|(at, row)| replaced(&row.says, mark(at).as_bytes()));
    let answers = bench.order(&Order::Raw(Raw {
        to: SERVICE.to_owned(),
        says: says.collect(),
    }));
    let mut seen: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for one in bench.received(SERVER, "latest") {
        let path = one["path"].as_str().unwrap_or_default();
        let mut at = (0..rows.len()).filter(|at| path.contains(&mark(*at)));
        if let Some(at) = at.next() {
            seen.entry(at).or_default().push(one);
        }
    }
    Outcome { answers, seen }
}

/// The same with the number of a row in its place, wherever that is.
fn replaced(says: &[u8], number: &[u8]) -> Vec<u8> {
    let mut made = says.to_vec();
    while let Some(at) = made.windows(ROW.len()).position(|w| w == ROW) {
        made[at..at + ROW.len()].copy_from_slice(number);
    }
    made
}

/// How many of the answers are the server's own.
fn served(answer: &str) -> usize {
    let told = answer.matches("\"name\":\"v1\"").count();
    told + answer.matches("HTTP/1.1 101 ").count()
}

/// All that is not as it has to be.
fn complaints(rows: &[Row], outcome: &Outcome) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let (answer, nothing) = (&outcome.answers[at], Vec::new());
        let seen = outcome.seen.get(&at).unwrap_or(&nothing);
        let mut complain = |what: String| {
            let answer = answer.get(..300).unwrap_or(answer);
            complaints.push(format!(
                "{}: {what}\n  seen {seen:?}\n  answered {answer:?}",
                row.name
            ));
        };
        if let Some(one) = seen.iter().find(|one| is_protected(one)) {
            complain(format!("got through as {} {}", one["method"], one["path"]));
        }
        if let Some(what) = seen.iter().find_map(is_unclean) {
            complain(what);
        }
        let broken = row.want == Want::Broken && seen.len() <= 1;
        if seen.len() != served(answer) && !broken {
            complain(format!("{} seen, {} answered", seen.len(), served(answer)));
        }
        match row.want {
            Want::Kept | Want::Broken => {}
            Want::Refused if seen.is_empty() => {}
            Want::Served if seen.len() == 1 => {}
            want => complain(format!("is not {want:?}")),
        }
    }
    complaints
}

#[test]
fn nothing_gets_past_policy_by_its_form() {
    let bench = Bench::new();
    let gateway = "nodes = [\"gate-1\"]";
    let strict = "path-normalization = \"DECODE_AND_MERGE_SLASHES\"";
    let rows = rows();
    assert!((60..1000).contains(&rows.len()), "{}", rows.len());
    // That there is something to keep from it, and that it would be seen.
    bench.enforce("", gateway, strict).unwrap();
    let open = sent(&bench, &rows, 'A');
    let through = open.seen.values().flatten().filter(|one| is_protected(one));
    let through = through.count();
    assert!(through >= 40, "{through} would get through");
    let mut all = Vec::new();
    for (name, policies, pass) in [("DENY", denying(), 'B'), ("ALLOW", allowing(), 'C')] {
        bench.enforce(&policies, gateway, strict).unwrap();
        let complaints = complaints(&rows, &sent(&bench, &rows, pass));
        all.extend(complaints.iter().map(|c| format!("{name}: {c}")));
    }
    assert!(
        all.is_empty(),
        "{} complaints:\n{}",
        all.len(),
        all.join("\n")
    );
}
