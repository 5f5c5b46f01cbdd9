//! The holder: owns the switch, starts the hosts, and ends everything when it ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getpid, getuid, kill_process};
use rustix::thread::UnshareFlags;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::host::{ip, plain_bridges};
use super::spec::LONGEST_PACKET;
use super::{HostRecord, Record, RigError, Spec, cgroups};
use crate::sys;

/// Builds the rig whose description is in `state`, says `ready`, and holds it until told to stop:
/// by a signal, or, unless `detached`, by the end of standard input.
///
/// # Errors
/// [`RigError`], in one line that says what is missing or forbidden.
pub fn hold(state: &Path, binary: &Path, detached: bool) -> Result<(), RigError> {
    let file = state.join("rig.toml");
    let text = fs::read_to_string(&file).map_err(|source| RigError::File {
        path: file.clone(),
        source,
    })?;
    let spec = Spec::parse(&text)?;
    let uid = getuid();
    if !uid.is_root() {
        own_user_namespace()?;
    }
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    sys::unshare(flags).map_err(|source| RigError::Forbidden {
        what: "making a network namespace",
        remedy: "run as root, or allow CAP_SYS_ADMIN",
        source,
    })?;
    let units = spec.hosts.iter().any(|host| host.units);
    if units {
        cgroups::sweep().map_err(|source| RigError::Forbidden {
            what: "making cgroups for units",
            remedy: "run as root, where cgroup v2 is mounted or can be",
            source,
        })?;
    }
    ip(
        &["-batch", "-"],
        &format!(
            "link set lo up\nlink add lan mtu {LONGEST_PACKET} type bridge mcast_snooping 0\nlink set lan up"
        ),
    )?;
    plain_bridges();
    let mut hosts = Vec::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        hosts.push(Host::start(state, binary, &host.name, index)?);
    }
    let mut lines = Vec::new();
    for host in &hosts {
        let (index, pid) = (host.index, host.child.id());
        lines.push(format!(
            "link add h{index} mtu {LONGEST_PACKET} type veth peer name eth0 netns {pid}"
        ));
        lines.push(format!("link set h{index} master lan up"));
    }
    ip(&["-batch", "-"], &lines.join("\n"))?;
    for host in &mut hosts {
        host.tell("network")?;
    }
    for host in &mut hosts {
        host.hear("up")?;
    }
    write_record(state, &spec, &hosts)?;
    let apps = start_apps(&spec, state, binary)?;
    let mut out = io::stdout().lock();
    let said = writeln!(out, "ready").and_then(|()| out.flush());
    said.map_err(RigError::system("nobody waits for the rig"))?;
    drop(out);
    wait(detached).map_err(RigError::system("cannot wait"))?;
    end(hosts, apps, state);
    if units {
        // The next rig tries again.
        let _left_behind = cgroups::end(getpid().as_raw_nonzero().get().unsigned_abs());
    }
    Ok(())
}

/// A user namespace in which this user is root, and there is no other.
fn own_user_namespace() -> Result<(), RigError> {
    let (uid, gid) = (getuid().as_raw(), rustix::process::getgid().as_raw());
    sys::unshare(UnshareFlags::NEWUSER).map_err(|source| RigError::Forbidden {
        what: "making a user namespace",
        remedy: "run as root, or allow it: sysctl -w user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0",
        source,
    })?;
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|source| RigError::Forbidden {
            what: "being root in a user namespace",
            remedy: "run as root, or allow it: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            source,
        })
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

struct Host {
    name: String,
    index: usize,
    child: Child,
    replies: BufReader<std::process::ChildStdout>,
    log: PathBuf,
}

impl Host {
    fn start(state: &Path, binary: &Path, name: &str, index: usize) -> Result<Self, RigError> {
        let directory = state.join(name);
        let failed = |source| RigError::File {
            path: directory.clone(),
            source,
        };
        fs::create_dir_all(&directory).map_err(failed)?;
        let log = directory.join("host.log");
        let errors = File::create(&log).map_err(failed)?;
        let mut child = Command::new(binary)
            .args(["rig", "host", "--state"])
            .arg(state)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let replies = child.stdout.take();
        let replies = replies.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut host = Self {
            name: name.to_owned(),
            index,
            child,
            replies: BufReader::new(replies),
            log,
        };
        host.hear("made")?;
        Ok(host)
    }

    fn tell(&mut self, word: &str) -> Result<(), RigError> {
        let Some(stdin) = self.child.stdin.as_mut() else {
            return Ok(());
        };
        let told = writeln!(stdin, "{word}").and_then(|()| stdin.flush());
        told.map_err(RigError::system("a host of the rig does not listen"))
    }

    fn hear(&mut self, word: &str) -> Result<(), RigError> {
        let mut line = String::new();
        let read = self.replies.read_line(&mut line);
        if read.is_ok() && line.trim() == word {
            return Ok(());
        }
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let said = said.trim().trim_start_matches("lateen: ");
        Err(RigError::Holder {
            said: format!("host {}: {said}", self.name),
        })
    }
}

fn write_record(state: &Path, spec: &Spec, hosts: &[Host]) -> Result<(), RigError> {
    let record = Record {
        // As those outside see it: a user namespace does not change process ids.
        holder: getpid().as_raw_nonzero().get().unsigned_abs(),
        hosts: hosts
            .iter()
            .map(|h| (h.name.clone(), of(spec, h)))
            .collect::<BTreeMap<_, _>>(),
    };
    let path = state.join("rig.json");
    let text = serde_json::to_string_pretty(&record).unwrap_or_default();
    fs::write(&path, text).map_err(|source| RigError::File { path, source })
}

fn of(spec: &Spec, host: &Host) -> HostRecord {
    let declared = spec.host(&host.name);
    let addresses = declared.map(|h| h.addresses.iter().map(|a| a.addr().to_string()).collect());
    let namespaces = declared.map(|h| h.namespaces.iter().map(|n| n.name.clone()).collect());
    HostRecord {
        pid: host.child.id(),
        addresses: addresses.unwrap_or_default(),
        namespaces: namespaces.unwrap_or_default(),
    }
}

fn start_apps(spec: &Spec, state: &Path, binary: &Path) -> Result<Vec<Child>, RigError> {
    let mut apps = Vec::new();
    for app in &spec.apps {
        let place = match &app.namespace {
            Some(namespace) => format!("{}/{namespace}", app.host),
            None => app.host.clone(),
        };
        let path = state.join(&app.host).join(format!("{}.log", app.name));
        let failed = |source| RigError::File {
            path: path.clone(),
            source,
        };
        let log = File::create(&path).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let own = binary.display().to_string();
        let word = |word: &String| {
            if word == "lateen" {
                own.clone()
            } else {
                word.clone()
            }
        };
        let (program, arguments) = app
            .command
            .split_first()
            .map_or((String::new(), &[][..]), |(p, a)| (word(p), a));
        let child = Command::new(binary)
            .args(["rig", "exec", "--state"])
            .arg(state)
            .args(app.identity().arguments())
            .args([&place, "--", &program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        apps.push(child);
    }
    Ok(apps)
}

/// Until a signal, or the end of standard input.
fn wait(detached: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let waited = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = async {
            if detached {
                return std::future::pending().await;
            }
            let mut byte = [0u8];
            let mut stdin = tokio::io::stdin();
            while stdin.read(&mut byte).await.is_ok_and(|read| read > 0) {}
        };
        tokio::select! {
            _signal = terminate.recv() => {}
            _signal = interrupt.recv() => {}
            () = ended => {}
        }
        Ok(())
    });
    // A read of standard input that nobody ends must not hold up the end.
    runtime.shutdown_background();
    waited
}

/// Ends every process inside the rig's hosts: their namespaces are ours, so whoever is in them is
/// too. Then the hosts, and with them all namespaces.
fn end(mut hosts: Vec<Host>, mut apps: Vec<Child>, state: &Path) {
    let inodes: Vec<u64> = hosts
        .iter()
        .filter_map(|h| mount_namespace(h.child.id()))
        .collect();
    let keep: Vec<u32> = hosts.iter().map(|h| h.child.id()).collect();
    for pid in processes() {
        let inside = mount_namespace(pid).is_some_and(|inode| inodes.contains(&inode));
        if inside && !keep.contains(&pid) {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // One that has ended by itself in the meantime is as good.
            let _gone = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
    }
    for app in &mut apps {
        let _gone = app.kill();
        let _status = app.wait();
    }
    for host in &mut hosts {
        drop(host.child.stdin.take());
        let _status = host.child.wait();
    }
    let _gone = fs::remove_file(state.join("rig.json"));
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

fn mount_namespace(pid: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino())
}
