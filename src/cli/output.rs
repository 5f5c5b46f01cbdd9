//! How verbs end and how they print: failures with their exit code, tables that line up.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use crate::admin::client::AskError;
use crate::causes::chain;

/// The answer is no.
pub const NO: u8 = 1;
/// The command line, or a file it names, is wrong.
pub const USAGE: u8 = 2;
/// Something that should answer does not.
pub const UNREACHABLE: u8 = 3;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The answer is no: exit code 1.
    pub fn no(what: impl Into<String>, error: &dyn Error) -> Self {
        Self::new(NO, what, error)
    }

    /// The usage is wrong: exit code 2.
    pub fn usage(what: impl Into<String>, error: &dyn Error) -> Self {
        Self::new(USAGE, what, error)
    }

    /// Somebody cannot be reached: exit code 3.
    pub fn unreachable(what: impl Into<String>, error: &dyn Error) -> Self {
        Self::new(UNREACHABLE, what, error)
    }

    /// A message of our own with its exit code.
    pub fn plain(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code,
        }
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn new(code: u8, what: impl Into<String>, error: &dyn Error) -> Self {
        Self::plain(code, format!("{}: {}", what.into(), chain(error)))
    }

    /// Prints the message to standard error and gives the exit code.
    #[allow(
        clippy::print_stderr,
        reason = "this is the edge that speaks to people"
    )]
    pub fn report(&self) -> ExitCode {
        eprintln!("lateen: {}", self.message);
        ExitCode::from(self.code)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let code = match &error {
            AskError::Unreachable { .. } | AskError::Broken { .. } => UNREACHABLE,
            AskError::Page { .. } | AskError::Refused { .. } => NO,
        };
        Self::plain(code, chain(&error))
    }
}

/// Whether something could not be printed that somebody waits for.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints to standard output; whether anybody reads. That nobody does any more, as behind `head`, is no
/// failure; else it is said, once, and the verb has failed ([`code`]).
#[allow(
    clippy::print_stderr,
    reason = "this is the edge that speaks to people"
)]
pub(super) fn print(text: fmt::Arguments<'_>) -> bool {
    let mut out = io::stdout().lock();
    let Err(e) = out.write_fmt(text).and_then(|()| out.flush()) else {
        return true;
    };
    let unread = e.kind() == io::ErrorKind::BrokenPipe;
    if !unread && !LOST.swap(true, Ordering::Relaxed) {
        eprintln!("lateen: cannot print: {e}");
    }
    false
}

/// How a verb ends that would end with this code.
pub(super) fn code(code: ExitCode) -> ExitCode {
    match LOST.load(Ordering::Relaxed) && code == ExitCode::SUCCESS {
        true => ExitCode::from(NO),
        false => code,
    }
}

/// `-o`: how a verb prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON value with stable keys.
    Json,
}

/// A moment, in seconds since 1970, as people tell it: `in 7d 11h`, `3m 5s ago`.
pub fn when(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    relative(seconds, now.unwrap_or_default().as_secs())
}

fn relative(at: u64, now: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut apart = at.abs_diff(now);
    let first = units.iter().position(|(_, size)| apart >= *size);
    let Some(first) = first else {
        return "now".to_owned();
    };
    let mut parts = Vec::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        if apart >= *size {
            parts.push(format!("{}{unit}", apart / size));
        }
        apart %= size;
    }
    match at > now {
        true => format!("in {}", parts.join(" ")),
        false => format!("{} ago", parts.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_by_their_two_largest_parts() {
        for (at, want) in [
            (1_000_000, "now"),
            (1_000_005, "in 5s"),
            (999_900, "1m 40s ago"),
            (1_000_000 + 7 * 86_400 + 11 * 3600 + 59, "in 7d 11h"),
            (1_000_000 - 86_400 - 30, "1d ago"),
        ] {
            assert_eq!(relative(at, 1_000_000), want);
        }
    }
}
