//! `--confirm`: rules that go again by themselves unless somebody says in time that he still gets
//! through. Who takes them back is a process of its own, which outlives the terminal that armed it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::place::open;
use super::runtime;
use crate::capture::Netns;
use crate::capture::rollback::{self, Before};
use crate::cli::Failure;
use crate::cli::output::NO;
use crate::config::daemon::Config;

/// In the runtime directory: what was there before rules that nobody has confirmed yet.
const FILE: &str = "capture-unconfirmed.json";
/// Between looks at whether they were confirmed.
const LOOK: Duration = Duration::from_millis(100);
/// What the process says once nothing can keep it from taking the rules back.
const READY: &str = "ready";

/// What to take back, and when.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Unconfirmed {
    network: String,
    before: Before,
    after: Duration,
    /// When it was armed: two are never the same.
    armed: Duration,
    /// Who takes it back; 0 until there is somebody.
    pid: u32,
}

/// Rules that are taken back unless confirmed.
pub(super) struct Pending(PathBuf);

impl Pending {
    /// To be called once the rules were applied, or were not: then there is nothing to take back.
    pub(super) fn settle(self, applied: bool) {
        if !applied {
            // Gone already: so much the better.
            let _gone = fs::remove_file(&self.0);
        }
    }
}

/// Has what is in `ns` now put back after a time.
pub(super) async fn arm(
    config: &Config,
    network: &str,
    ns: &Netns,
    after: Duration,
) -> Result<Pending, Failure> {
    let file = config.runtime_dir().join(FILE);
    unless_armed(&file)?;
    let before = rollback::before(ns).await;
    let armed = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut unconfirmed = Unconfirmed {
        network: network.to_owned(),
        before: before.map_err(|e| Failure::no(network, &e))?,
        after,
        armed: armed.unwrap_or_default(),
        pid: 0,
    };
    let written = write(&file, &unconfirmed).and_then(|()| start(&file, &unconfirmed));
    let armed = written.and_then(|pid| {
        unconfirmed.pid = pid;
        write(&file, &unconfirmed)
    });
    let told = |e| Failure::no(file.display().to_string(), &e);
    armed.map_err(told)?;
    Ok(Pending(file))
}

fn unless_armed(file: &Path) -> Result<(), Failure> {
    let Ok(there) = read(file) else {
        return Ok(());
    };
    if !Path::new(&format!("/proc/{}", there.pid)).exists() {
        return Ok(());
    }
    let message = format!(
        "rules of {} wait to be confirmed still: lateen capture confirm, or wait until they are \
         taken back",
        there.network
    );
    Err(Failure::plain(NO, message))
}

fn read(file: &Path) -> io::Result<Unconfirmed> {
    serde_json::from_slice(&fs::read(file)?).map_err(io::Error::from)
}

/// As a whole or not at all: somebody may be reading. The directory is the proxy's, which may have put
/// there what leads elsewhere.
fn write(file: &Path, unconfirmed: &Unconfirmed) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = file.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let text = serde_json::to_vec(unconfirmed)?;
    File::create_new(&fresh)?.write_all(&text)?;
    fs::rename(fresh, file)
}

/// Starts who takes it back, and waits until it is ready to. What it takes back it is told, and does not
/// read from a file that the proxy could change: that would be to make the proxy's rules.
fn start(file: &Path, unconfirmed: &Unconfirmed) -> io::Result<u32> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["capture", "revert"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(unconfirmed)?)?;
    }
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    match said.trim() == READY {
        true => Ok(child.id()),
        false => Err(io::Error::other(
            "the process that takes rules back does not start",
        )),
    }
}

/// Waits, and takes back what was not confirmed.
#[allow(clippy::print_stdout, reason = "whoever started it waits for it")]
pub(super) fn revert(file: &Path) -> Result<(), Failure> {
    let told = |e: io::Error| Failure::no(file.display().to_string(), &e);
    // The end of the terminal is not its own.
    rustix::process::setsid().map_err(|e| told(e.into()))?;
    let mine: Unconfirmed = serde_json::from_reader(io::stdin()).map_err(|e| told(e.into()))?;
    let deadline = Instant::now() + mine.after;
    println!("{READY}");
    while Instant::now() < deadline {
        thread::sleep(LOOK);
        if !is_there(file, &mine) {
            return Ok(());
        }
    }
    // Whoever confirms at this instant finds the file or does not.
    let taken = file.with_extension("reverting");
    if !is_there(file, &mine) || fs::rename(file, &taken).is_err() {
        return Ok(());
    }
    let ns = open(&mine.network)?;
    let restored = runtime()?.block_on(rollback::restore(&ns, &mine.before));
    let _left = fs::remove_file(taken);
    restored.map_err(|e| Failure::no(mine.network, &e))
}

fn is_there(file: &Path, mine: &Unconfirmed) -> bool {
    read(file).is_ok_and(|there| there.armed == mine.armed)
}

/// Keeps what was applied.
#[allow(clippy::print_stdout, reason = "the verb's answer")]
pub(super) fn confirm(config: &Config) -> Result<ExitCode, Failure> {
    let file = config.runtime_dir().join(FILE);
    match fs::remove_file(&file) {
        Ok(()) => {
            println!("kept");
            Ok(ExitCode::SUCCESS)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let message = "nothing waits to be confirmed: it was confirmed, or taken back";
            Err(Failure::plain(NO, message))
        }
        Err(e) => Err(Failure::no(file.display().to_string(), &e)),
    }
}

/// A time such as `60s`, `5m` or `1h`, of a second to a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    });
    let seconds = seconds.filter(|seconds| (1..=86_400).contains(seconds));
    let seconds = seconds.ok_or("write a time from 1s to 24h, as in `60s` or `5m`")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, want) in [
            ("60s", Some(60)),
            ("5m", Some(300)),
            ("24h", Some(86_400)),
            ("25h", None),
            ("0s", None),
            ("60", None),
            ("s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), want, "{text}");
        }
    }

    #[test]
    fn what_somebody_has_put_there_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        fs::write(&other, "whole").unwrap();
        let file = directory.path().join(FILE);
        std::os::unix::fs::symlink(&other, file.with_extension("new")).unwrap();
        let mine = Unconfirmed {
            network: "cart".to_owned(),
            before: Before::default(),
            after: Duration::from_secs(60),
            armed: Duration::from_nanos(1),
            pid: 0,
        };
        write(&file, &mine).unwrap();
        assert_eq!(read(&file).unwrap(), mine);
        assert_eq!(fs::read_to_string(&other).unwrap(), "whole");
    }

    #[test]
    fn another_arming_is_not_mine() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("run").join(FILE);
        let mut mine = Unconfirmed {
            network: "cart".to_owned(),
            before: Before::default(),
            after: Duration::from_secs(60),
            armed: Duration::from_nanos(1),
            pid: 0,
        };
        assert!(!is_there(&file, &mine));
        write(&file, &mine).unwrap();
        assert_eq!(read(&file).unwrap(), mine);
        assert!(is_there(&file, &mine));
        mine.armed = Duration::from_nanos(2);
        assert!(!is_there(&file, &mine));
    }
}
