//! `--confirm`: rules that go again by themselves unless somebody says in time that he still gets
//! through. Who takes them back is a process of its own, which outlives the terminal that armed it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
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

/// What was there before rules that nobody has confirmed yet.
const FILE: &str = "unconfirmed.json";
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

/// Where it is kept: beside the runtime directory, which is the proxy's. Whoever took over the proxy could
/// there have root write through a link, or put back rules of his own.
fn place(config: &Config) -> PathBuf {
    let mut directory = config.runtime_dir().as_os_str().to_owned();
    directory.push("-capture");
    PathBuf::from(directory).join(FILE)
}

/// Has what is in `ns` now put back after a time.
pub(super) async fn arm(
    config: &Config,
    network: &str,
    ns: &Netns,
    after: Duration,
) -> Result<Pending, Failure> {
    let file = place(config);
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
    let written = write(&file, &unconfirmed).and_then(|()| start(&file));
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

/// As a whole or not at all: somebody may be reading.
fn write(file: &Path, unconfirmed: &Unconfirmed) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        own(directory)?;
    }
    let fresh = file.with_extension("new");
    File::create(&fresh)?.write_all(&serde_json::to_vec(unconfirmed)?)?;
    fs::rename(fresh, file)
}

/// Makes a directory that nobody else can write to.
fn own(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let meta = fs::symlink_metadata(directory)?;
    let mine = meta.uid() == rustix::process::geteuid().as_raw();
    match meta.is_dir() && mine && meta.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "others can write to {}, or it is no directory; remove it",
            directory.display()
        ))),
    }
}

/// Starts who takes it back, and waits until it is ready to.
fn start(file: &Path) -> io::Result<u32> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["capture", "revert"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
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
pub(super) fn revert(file: &Path) -> Result<(), Failure> {
    let told = |e: io::Error| Failure::no(file.display().to_string(), &e);
    // The end of the terminal is not its own.
    rustix::process::setsid().map_err(|e| told(e.into()))?;
    let mine = read(file).map_err(told)?;
    let deadline = Instant::now() + mine.after;
    outln!("{READY}");
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
pub(super) fn confirm(config: &Config) -> Result<ExitCode, Failure> {
    let file = place(config);
    match fs::remove_file(&file) {
        Ok(()) => {
            outln!("kept");
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
    use std::os::unix::fs::PermissionsExt as _;

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
    fn what_is_to_be_put_back_is_out_of_the_proxys_reach() {
        let root = tempfile::tempdir().unwrap();
        let runtime = root.path().join("run");
        let settings = format!("runtime-dir = {runtime:?}");
        let config = Config::parse("", settings, "edge-1").unwrap();
        let file = place(&config);
        assert!(!file.starts_with(&runtime), "{}", file.display());
        let directory = file.parent().unwrap();
        own(directory).unwrap();
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(directory, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(own(directory).is_err(), "others can write to it");
        fs::remove_dir(directory).unwrap();
        std::os::unix::fs::symlink(root.path(), directory).unwrap();
        assert!(own(directory).is_err(), "it leads elsewhere");
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
