//! Runs a keeper, and another whenever it is killed. It stays root to be able to, and does nothing
//! else: it listens to nobody.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Failure, config, start_log};

/// Wait before the first start after a death, doubled with each that follows soon.
const FIRST: Duration = Duration::from_millis(20);
/// Longest such wait: whatever kills it again and again, it is there again within a second.
const LAST: Duration = Duration::from_millis(250);
/// One that lived for so long was well.
const WELL: Duration = Duration::from_secs(2);
/// What a panic exits with.
const PANIC: i32 = 101;

pub(super) fn run(path: Option<&Path>) -> Result<ExitCode, Failure> {
    let _log = start_log(&config(path)?)?;
    let mut wait = FIRST;
    loop {
        let begun = Instant::now();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("lateen").args(["keeper", "--until-eof"]);
        if let Some(path) = path {
            command.arg("--config").arg(path);
        }
        let status = command.status();
        let status = status.map_err(|e| Failure::no("cannot start the keeper", &e))?;
        if !died(status) {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
        warn!(%status, "the keeper died, starting another");
        if begun.elapsed() > WELL {
            wait = FIRST;
        }
        sleep(wait);
        wait = (wait * 2).min(LAST);
    }
}

/// Whether it did not end by itself.
fn died(status: ExitStatus) -> bool {
    status.signal().is_some() || status.code() == Some(PANIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_did_not_end_by_itself_is_started_again() {
        for (name, raw, want) in [
            ("done", 0, false),
            ("refused", 1 << 8, false),
            ("wrong usage", 2 << 8, false),
            ("a panic", 101 << 8, true),
            ("killed", 9, true),
            ("aborted, with a core", 6 | 0x80, true),
        ] {
            assert_eq!(died(ExitStatus::from_raw(raw)), want, "{name}");
        }
    }
}
