//! A machine with a systemd of its own: namespaces over an overlay of this machine's root, in which
//! it is the first process. Nothing of it outlives the value, and nothing outside is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::install::make;

/// Machines of this process so far.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(60);

/// Run in new namespaces. `$home` is a directory for it alone, `$stage` where lateen was installed.
const BUILD: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$home"
mkdir "$home/upper" "$home/work" "$home/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$home/upper,workdir=$home/work" "$home/root"
cd "$home/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
cp -r "$stage/usr/lib" usr/
: > usr/bin/lateen
mount --bind "$stage/usr/bin/lateen" usr/bin/lateen
# Of this machine's own units none is to run there.
rm -rf etc/systemd/system
mkdir -p etc/systemd/system etc/credstore
for unit in systemd-udevd systemd-logind getty@ console-getty systemd-timesyncd; do
  ln -s /dev/null etc/systemd/system/$unit.service
done
rm -f etc/machine-id
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mkdir -p before
pivot_root . before
cd /
umount -l before
ip link set lo up
systemd-sysusers
systemd-tmpfiles --create lateen.conf
# As a booted machine has it: credentials are mounted through it.
mount --make-rshared /
exec env -i container=lateen-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
  --unit=multi-user.target --show-status=no
"#;

/// A running one. Dropping it ends everything in it.
pub(crate) struct Machine {
    /// `unshare`, which takes the first process with it.
    outer: Child,
    first: u32,
    cgroup: PathBuf,
    home: tempfile::TempDir,
}

impl Machine {
    /// Boots one with lateen installed, unless `case` is to be skipped.
    pub(crate) fn boot(case: &str) -> Option<Self> {
        match Self::try_boot() {
            Ok(machine) => {
                machine.eventually(
                    "the machine is up",
                    &["systemctl", "is-system-running"],
                    |o| ["running", "degraded"].contains(&said(o).trim()),
                );
                Some(machine)
            }
            Err(reason) => {
                eprintln!("{case}: skipped, {reason}");
                None
            }
        }
    }

    fn try_boot() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a systemd in namespaces takes root".to_owned());
        }
        if !Path::new("/lib/systemd/systemd").exists() {
            return Err("there is no systemd".to_owned());
        }
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let unified = unified
            .into_iter()
            .find(|p| p.join("cgroup.procs").exists());
        let unified = unified.ok_or("cgroup v2 is not mounted")?;
        let cgroup = unified.join(format!(
            "lateen-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&cgroup).map_err(|e| format!("no cgroup can be made: {e}"))?;
        let home = tempfile::tempdir().map_err(|e| e.to_string())?;
        let stage = home.path().join("stage");
        make(
            "install-files",
            &[("DESTDIR", &stage), ("prefix", Path::new("/usr"))],
        );
        let build = format!(
            "stage={}; home={}{BUILD}",
            stage.display(),
            home.path().join("machine").display()
        );
        fs::create_dir(home.path().join("machine")).map_err(|e| e.to_string())?;
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", cgroup.display());
        let log = fs::File::create(home.path().join("boot.log")).map_err(|e| e.to_string())?;
        let outer = Command::new("sh")
            .args([
                "-c", &enter, "sh", "unshare", "--mount", "--pid", "--cgroup",
            ])
            .args(["--uts", "--ipc", "--net", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", &build])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("unshare does not run: {e}"))?;
        let mut machine = Self {
            outer,
            first: 0,
            cgroup,
            home,
        };
        machine.first = machine.first_process()?;
        Ok(machine)
    }

    /// The first process, once it is systemd.
    fn first_process(&mut self) -> Result<u32, String> {
        let outer = self.outer.id();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.outer.try_wait() {
                let log = fs::read_to_string(self.home.path().join("boot.log"));
                return Err(format!(
                    "it does not boot ({status}): {}",
                    log.unwrap_or_default()
                ));
            }
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
            let first = children.unwrap_or_default().trim().parse().ok();
            let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm"));
            let is_systemd = |pid: &u32| name(pid).is_ok_and(|name| name.trim() == "systemd");
            if let Some(first) = first.filter(is_systemd) {
                return Ok(first);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("it does not boot in time".to_owned())
    }

    /// Runs a program in it.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        let target = format!("--target={}", self.first);
        let mut enter = Command::new("nsenter");
        enter.args([
            &target, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net",
        ]);
        enter.arg("--").args(command).env_clear().env("LC_ALL", "C");
        enter.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        enter.output().expect("nsenter runs")
    }

    /// Runs a program in it that has to succeed; what it printed.
    pub(crate) fn ok(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command:?}: {}{}",
            said(&output),
            self.journal()
        );
        said(&output)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let script = format!("mkdir -p \"$(dirname {path})\" && printf %s \"$0\" > {path}");
        self.ok(&["sh", "-c", &script, text]);
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        let shown = self.ok(&["systemctl", "show", "--value", "-p", property, unit]);
        shown.trim().to_owned()
    }

    /// All that the journal has of lateen.
    pub(crate) fn journal(&self) -> String {
        said(&self.run(&[
            "journalctl",
            "--no-pager",
            "-o",
            "short-monotonic",
            "-u",
            "lateen*",
        ]))
    }

    /// Waits for a line of lateen's in the journal.
    pub(crate) fn logged(&self, line: &str) {
        let read = ["journalctl", "--no-pager", "-o", "cat", "-u", "lateen*"];
        self.eventually(line, &read, |o| said(o).contains(line));
    }

    /// Waits until what a program prints passes.
    pub(crate) fn eventually(&self, what: &str, command: &[&str], done: impl Fn(&Output) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.run(command);
            if done(&output) {
                return;
            }
            let last = said(&output);
            assert!(
                Instant::now() < deadline,
                "{what}: {last}\n{}",
                self.journal()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What a program printed.
pub(crate) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process dies with it, and with that one everything else.
        let _gone = self.outer.kill();
        let _gone = self.outer.wait();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < deadline {
            remove(&self.cgroup);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes a cgroup with those below it, as far as they are empty.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _still_busy = fs::remove_dir(cgroup);
}
