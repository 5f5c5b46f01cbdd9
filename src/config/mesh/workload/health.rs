//! `health`: how a workload is probed (`spec/control-plane.md` §7.1).

use std::sync::Arc;
use std::time::Duration;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::{HealthCheck, Probe};

const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const RISE: u32 = 2;
const FALL: u32 = 2;
const START_TIMEOUT: Duration = Duration::from_secs(60);

const FAST: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);

/// Arguments of an `exec` probe, its program included.
const MOST_ARGUMENTS: usize = 64;

const EXAMPLE: &str =
    "write one of `http = \"/healthz\"` with `port`, `tcp = 8080` or `exec = [\"program\"]`";

pub(super) fn read(value: &Value<'_>) -> Option<HealthCheck> {
    let table = value.nested()?;
    let probe = probe(&table, value);
    let within = |low, high| move |value: &Value<'_>| scalar::duration(value, low..=high);
    let count = |value: &Value<'_>| value.count(1..=100);
    let interval = table.optional("interval", within(FAST, HOUR));
    let timeout = table.optional("timeout", within(Duration::from_millis(10), HOUR));
    let rise = table.optional("rise", count);
    let fall = table.optional("fall", count);
    let start_timeout = table.optional("start-timeout", within(Duration::ZERO, 24 * HOUR));
    table.finish();
    Some(HealthCheck {
        probe: probe?,
        interval: interval.unwrap_or(INTERVAL),
        timeout: timeout.unwrap_or(TIMEOUT),
        rise: rise.unwrap_or(RISE),
        fall: fall.unwrap_or(FALL),
        start_timeout: start_timeout.unwrap_or(START_TIMEOUT),
    })
}

fn probe<'a>(table: &Table<'a>, whole: &Value<'a>) -> Option<Probe> {
    let (http, tcp, exec) = (table.value("http"), table.value("tcp"), table.value("exec"));
    let port = table.value("port");
    let given: Vec<_> = [&http, &tcp, &exec].into_iter().flatten().collect();
    match given.as_slice() {
        [] => {
            let message = format!("{} does not say what to ask", table.what());
            let finding = Diagnostic::new(Code::MissingKey, whole.place().clone(), message);
            let finding = finding.label("no probe").help(EXAMPLE);
            table.missing(vec!["http", "tcp", "exec"], finding);
            return None;
        }
        [_, second, ..] => {
            second.reject(
                Code::ConflictingKeys,
                "is a second probe",
                "one too many",
                EXAMPLE,
            );
            return None;
        }
        [_] => {}
    }
    if let (None, Some(port)) = (&http, &port) {
        port.reject(
            Code::ConflictingKeys,
            "belongs to an `http` probe",
            "not with this probe",
            "write the port as the value of `tcp`; `exec` has none",
        );
    }
    if let Some(http) = &http {
        let path = path(http);
        let port = match &port {
            Some(port) => scalar::port(port),
            None => table.required("port", "port = 8080", scalar::port),
        };
        return Some(Probe::Http {
            path: path?,
            port: port?,
        });
    }
    if let Some(tcp) = &tcp {
        return Some(Probe::Tcp {
            port: scalar::port(tcp)?,
        });
    }
    command(exec.as_ref()?)
}

fn path(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let legal = |b: u8| b.is_ascii_graphic() && b != b'#';
    if !text.starts_with('/') || !text.bytes().all(legal) {
        value.bad(
            &format!("is not a path: {text:?}"),
            "not a path",
            "begin it with `/` and escape what a URL does not allow, as in `\"/healthz\"`",
        );
        return None;
    }
    Some(Arc::from(text))
}

fn command(value: &Value<'_>) -> Option<Probe> {
    let argument = |value: &Value<'_>| {
        let text = value.text()?;
        if text.contains('\0') {
            value.bad(
                "has a NUL in it",
                "not an argument",
                "no program can be given one",
            );
            return None;
        }
        Some(Arc::from(text))
    };
    let command: Vec<Arc<str>> = value.list(argument)?;
    let program = command.first().is_some_and(|program| !program.is_empty());
    if !program || command.len() > MOST_ARGUMENTS {
        value.bad(
            "is not a command",
            "not a command",
            format!("write a program and its arguments, at most {MOST_ARGUMENTS} in all"),
        );
        return None;
    }
    Some(Probe::Exec { command })
}
