//! A command as a probe: exit 0 passes (`spec/control-plane.md` §7.1).
//!
//! It runs in the workload's network, without any of the node's powers, and nothing that stays in
//! its process group outlives it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::ask::{Failure, timed_out};
use crate::capture::{Place, Sockets};
use crate::causes::chain;

/// Runs a command once, for `timeout` at most.
pub(super) async fn run(
    sockets: &Sockets,
    place: &Place,
    command: &[Arc<str>],
    timeout: Duration,
) -> Result<(), Failure> {
    let ran = sockets.run(place, command, timeout).await;
    match ran.map_err(|e| cannot(&e))? {
        None => Err(timed_out(timeout)),
        Some(ran) if ran.success => Ok(()),
        Some(ran) => {
            let detail = match &*ran.said {
                "" => ran.status,
                said => format!("{}: {said}", ran.status),
            };
            Err(Failure::new("exit-status", detail))
        }
    }
}

/// A program that is not there is the fault of whoever names it; for whatever else keeps one from
/// being started, it is this node's.
fn cannot(error: &io::Error) -> Failure {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied};
    let named = [InvalidInput, NotADirectory, NotFound, PermissionDenied];
    let named =
        named.contains(&error.kind()) || error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error());
    match named {
        true => Failure::new("exec-failed", chain(error)),
        false => Failure::of_node("exec-failed", chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Exemption;
    use crate::node::probe::ask::Side;

    async fn asked(command: &[Arc<str>], timeout: Duration) -> Result<(), Failure> {
        let sockets = Sockets::own(Exemption::Mark);
        let here = sockets.host().await.unwrap();
        run(&sockets, &here, command, timeout).await
    }

    async fn sh(script: &str, timeout: Duration) -> Result<(), Failure> {
        asked(&["sh", "-c", script].map(Arc::from), timeout).await
    }

    #[tokio::test]
    async fn exit_codes_and_what_was_said() {
        let long = Duration::from_secs(20);
        for (name, script, want) in [
            ("passes", "true", None),
            ("passes, talking", "seq 100000", None),
            (
                "a status",
                "exit 3",
                Some(("exit-status", "exit status: 3")),
            ),
            (
                "with a reason, in order",
                "echo out; echo err >&2; exit 1",
                Some(("exit-status", "exit status: 1: out\nerr")),
            ),
            ("a signal", "kill -9 $$", Some(("exit-status", "signal: 9"))),
            (
                "no powers",
                "! grep -E 'Cap(Inh|Prm|Eff|Amb):.*[1-9a-f]' /proc/self/status",
                None,
            ),
            (
                "no environment",
                "test \"$(env | grep -v '^_=' | grep -v '^PWD=')\" = \"PATH=$PATH\"",
                None,
            ),
        ] {
            let got = sh(script, long).await.err();
            let got = got.as_ref().map(|f| (f.code, f.detail.as_str()));
            let same = match (got, want) {
                (Some(got), Some(want)) => got.0 == want.0 && got.1.starts_with(want.1),
                (got, want) => got == want,
            };
            assert!(same, "{name}: {got:?}");
        }
    }

    #[tokio::test]
    async fn output_is_cut() {
        let failure = sh("seq 100000; exit 1", Duration::from_secs(20)).await;
        let detail = failure.unwrap_err().detail;
        assert!(detail.len() <= (4 << 10) + 20, "{}", detail.len());
        assert!(detail.contains("\n1000\n"));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there() {
        let command = ["/nonexistent/program"].map(Arc::from);
        let failure = asked(&command, Duration::from_secs(9)).await.unwrap_err();
        assert_eq!(
            (failure.code, failure.side),
            ("exec-failed", Side::Workload)
        );
        let busy = cannot(&io::Error::from_raw_os_error(24));
        assert_eq!((busy.code, busy.side), ("exec-failed", Side::Node));
    }

    #[tokio::test]
    async fn to_start_takes_of_the_time_too() {
        let command = ["/nonexistent/program"].map(Arc::from);
        let mut codes = Vec::new();
        // It may be faster than to look once, but not always.
        for _attempt in 0..50 {
            let failure = asked(&command, Duration::ZERO).await.unwrap_err();
            codes.push(failure.code);
        }
        assert!(codes.contains(&"timeout"));
    }

    /// Runs a script that starts a child and reports once no process of it is left: each holds a
    /// pipe open that is read to its end.
    async fn until_nobody_is_left(script: &str, timeout: Duration) -> Result<(), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let script = format!("exec 9>{}; {script}", fifo.display());
        let reading = tokio::task::spawn_blocking(move || std::fs::read(fifo).unwrap());
        let result = sh(&script, timeout).await;
        let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert!(ended.expect("no process is left").unwrap().is_empty());
        result
    }

    #[tokio::test]
    async fn nothing_outlives_the_command() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(20));
        for (name, script, timeout, want) in [
            ("in time", "sleep 60 & exit 0", long, None),
            ("failing", "sleep 60 & exit 1", long, Some("exit-status")),
            ("too slow", "sleep 60 & sleep 60", short, Some("timeout")),
        ] {
            let result = until_nobody_is_left(script, timeout).await;
            assert_eq!(result.err().map(|f| f.code), want, "{name}");
        }
    }
}
