//! One host of a rig: a process that holds its namespaces, sets up its network when told to, and
//! lives until its input ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use super::{RigError, Spec, cgroups};
use crate::sys;

/// Holds a host until standard input ends. Says `made` once it has its namespaces, waits for a
/// line, sets up the network and says `up`.
///
/// # Errors
/// [`RigError`].
pub fn hold(spec: &Spec, name: &str) -> Result<(), RigError> {
    let host = spec.host(name).ok_or_else(|| RigError::Unknown {
        what: format!("no host `{name}` in rig.toml"),
    })?;
    die_with_parent()?;
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWUTS;
    sys::unshare(flags).map_err(RigError::system("cannot make a host's namespaces"))?;
    private_run().map_err(RigError::system("cannot give the host a /run of its own"))?;
    if host.units {
        let holder = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        let own = cgroups::own(holder, name);
        own.map_err(RigError::system("cannot give the host cgroups of its own"))?;
    }
    sethostname(name.as_bytes())
        .map_err(io::Error::from)
        .map_err(RigError::system("cannot name the host"))?;
    say("made")?;
    let mut lines = io::stdin().lock().lines();
    if lines.next().is_none() {
        return Ok(());
    }
    network(spec, host)?;
    say("up")?;
    // Whatever comes is read until nothing does: then the holder is gone.
    for _line in lines {}
    Ok(())
}

/// Ends with the process that started us, even if that is killed.
///
/// # Errors
/// When the kernel refuses.
pub fn die_with_parent() -> Result<(), RigError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(io::Error::from)
        .map_err(RigError::system("cannot tie this process to its parent"))
}

fn private_run() -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    mount(
        "tmpfs",
        "/run",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0755",
    )?;
    fs::create_dir("/run/netns")
}

fn say(word: &str) -> Result<(), RigError> {
    let mut out = io::stdout().lock();
    let said = writeln!(out, "{word}").and_then(|()| out.flush());
    said.map_err(RigError::system("cannot answer the holder"))
}

fn network(spec: &Spec, host: &super::spec::Host) -> Result<(), RigError> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        .map_err(RigError::system("cannot let the host forward"))?;
    // Absent where the kernel has no IPv6.
    let _no_ipv6 = fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    let mut lines = vec![
        "link set lo up".to_owned(),
        "link add br0 type bridge mcast_snooping 0".to_owned(),
        "link set eth0 master br0 up".to_owned(),
        "link set br0 up".to_owned(),
    ];
    for address in &host.addresses {
        lines.push(format!("addr add {address} dev br0{}", nodad(address)));
    }
    if host.units {
        // Of each family the host has.
        let families = host.addresses.iter().map(|a| a.addr().is_ipv4());
        let families: BTreeSet<bool> = families.collect();
        let any = |v4: &bool| if *v4 { "0.0.0.0/0" } else { "::/0" };
        let routes = families
            .iter()
            .map(|v4| format!("route add {} dev br0", any(v4)));
        lines.extend(routes);
    }
    for (index, namespace) in host.namespaces.iter().enumerate() {
        ip(&["netns", "add", &namespace.name], "")?;
        lines.push(format!(
            "link add w{index} type veth peer name eth0 netns {}",
            namespace.name
        ));
        lines.push(format!("link set w{index} master br0 up"));
    }
    ip(&["-batch", "-"], &lines.join("\n"))?;
    plain_bridges();
    for namespace in &host.namespaces {
        let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
        for address in &namespace.addresses {
            lines.push(format!("addr add {address} dev eth0{}", nodad(address)));
        }
        // By its host, so that every address has a way out, service addresses among them.
        for address in &host.addresses {
            lines.push(format!("route add default via {}", address.addr()));
        }
        ip(&["-n", &namespace.name, "-batch", "-"], &lines.join("\n"))?;
    }
    link(spec, host)
}

/// A bridge of a rig is a cable: frames on it are nobody's to filter. A machine with `br_netfilter`
/// would run each through its packet filter again at every bridge it crosses.
pub(super) fn plain_bridges() {
    for family in ["ip", "ip6", "arp"] {
        // Absent where nothing filters bridged frames.
        let _absent = fs::write(
            format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables"),
            "0",
        );
    }
}

/// Usable at once: nobody else can have the address here.
fn nodad(address: &ipnet::IpNet) -> &'static str {
    match address {
        ipnet::IpNet::V4(_) => "",
        ipnet::IpNet::V6(_) => " nodad",
    }
}

fn link(spec: &Spec, host: &super::spec::Host) -> Result<(), RigError> {
    let Some(link) = spec.links.iter().find(|l| l.host == host.name) else {
        return Ok(());
    };
    if let Some(mtu) = link.mtu {
        long(host, mtu)?;
    }
    if let Some(rate) = &link.rate {
        let words = [
            "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "128kb",
            "latency", "50ms",
        ];
        run("tc", &words, "")?;
    }
    if let Some(loss) = link.loss.filter(|l| *l > 0.0) {
        let thousandths = loss * 1000.0;
        let rules = format!(
            "table netdev rig {{ chain loss {{ type filter hook ingress device eth0 priority 0; \
             numgen random mod 1000 < {thousandths:.0} drop; }}; }}\n"
        );
        run("nft", &["-f", "-"], &rules)?;
    }
    Ok(())
}

/// Has a host and its namespaces take packets of that length, and its bridge, which follows them.
fn long(host: &super::spec::Host, mtu: u32) -> Result<(), RigError> {
    let mut lines = vec![format!("link set eth0 mtu {mtu}")];
    for (index, namespace) in host.namespaces.iter().enumerate() {
        lines.push(format!("link set w{index} mtu {mtu}"));
        let own = format!("link set eth0 mtu {mtu}");
        ip(&["-n", &namespace.name, "-batch", "-"], &own)?;
    }
    ip(&["-batch", "-"], &lines.join("\n"))
}

pub(super) fn ip(arguments: &[&str], input: &str) -> Result<(), RigError> {
    run("ip", arguments, input)
}

/// Runs an administrator's program with input.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), RigError> {
    let command = format!("{program} {}", arguments.join(" "));
    let directories = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let found = directories.iter().map(|d| Path::new(d).join(program));
    let path = found.into_iter().find(|p| p.is_file());
    let path = path.ok_or_else(|| RigError::Tool {
        command: program.to_owned(),
        said: "not installed; on Debian and Ubuntu: apt-get install iproute2 nftables".to_owned(),
    })?;
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RigError::system("cannot start a program"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on its way out.
        let _closed = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output();
    let output = output.map_err(RigError::system("cannot wait for a program"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(RigError::Tool {
            command,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
