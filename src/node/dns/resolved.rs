//! The host's own resolver: which one it is, and how it comes to ask here for names of the mesh.
//!
//! systemd-resolved is told by program: of a link of ours, on which nothing is but our port, behind
//! which the domain of the mesh is (`resolvectl(1)`). What is said of a link is forgotten with the link,
//! so nothing is left over, and no file is written. Every other resolver has files that are somebody
//! else's: there, [`Resolver::finding`] says what to write.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The link.
pub const LINK: &str = "lateen-dns";
/// Its address, which nobody asks: to resolved, a link without one that is good beyond the link is
/// none. Of the block for links (RFC 3927), and announced nowhere.
const ADDRESS: &str = "169.254.53.53/32";
/// Longest that a program may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What resolves names on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// systemd-resolved.
    Resolved,
    /// dnsmasq.
    Dnsmasq,
    /// Unbound.
    Unbound,
    /// Programs ask the servers of /etc/resolv.conf themselves.
    None,
}

/// What is amiss, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable.
    pub code: &'static str,
    /// What was seen.
    pub seen: String,
    /// What to do.
    pub remedy: String,
}

impl Resolver {
    /// That of this host.
    pub fn of_host() -> Self {
        Self::of(Path::new("/"))
    }

    fn of(root: &Path) -> Self {
        let there = |path: &str| root.join(path).exists();
        if there("run/systemd/resolve/io.systemd.Resolve") {
            return Self::Resolved;
        }
        let marks = [
            (Self::Dnsmasq, "run/dnsmasq/dnsmasq.pid"),
            (Self::Dnsmasq, "run/dnsmasq.pid"),
            (Self::Dnsmasq, "run/NetworkManager/dnsmasq.pid"),
            (Self::Unbound, "run/unbound.pid"),
            (Self::Unbound, "run/unbound/unbound.pid"),
        ];
        let found = marks.into_iter().find(|(_, path)| there(path));
        found.map_or(Self::None, |(resolver, _)| resolver)
    }

    /// What keeps names of the mesh from being known on the host, where nothing is done about it by
    /// program: names below `domain` are answered at `listen`.
    pub fn finding(self, domain: &str, listen: SocketAddr) -> Option<Finding> {
        let (ip, port) = (listen.ip(), listen.port());
        let (seen, remedy) = match self {
            Self::Resolved => return None,
            Self::Dnsmasq => (
                "dnsmasq resolves names on this host",
                format!(
                    "echo 'server=/{domain}/{ip}#{port}' > /etc/dnsmasq.d/lateen.conf && systemctl restart dnsmasq"
                ),
            ),
            Self::Unbound => (
                "Unbound resolves names on this host",
                format!(
                    "printf 'server:\\n  do-not-query-localhost: no\\n  domain-insecure: \"{domain}\"\\n\
                     forward-zone:\\n  name: \"{domain}\"\\n  forward-addr: {ip}@{port}\\n' \
                     > /etc/unbound/unbound.conf.d/lateen.conf && systemctl restart unbound"
                ),
            ),
            Self::None => (
                "programs of this host ask the servers of /etc/resolv.conf, which know no name of the mesh",
                format!(
                    "write `dns = \"{ip}:53\"` in `[listen]` of lateen.toml, and `nameserver {ip}` as the \
                     first line of /etc/resolv.conf, and let the proxy have that port: `sysctl -w \
                     net.ipv4.ip_unprivileged_port_start=53`; or install systemd-resolved and write `host = \"resolved\"` \
                     in `[dns]`"
                ),
            ),
        };
        Some(Finding {
            code: "dns-host",
            seen: seen.to_owned(),
            remedy,
        })
    }
}

/// Why resolved does not know.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolvedError {
    /// A program is not there or cannot be started.
    #[error("cannot run `{command}`")]
    Run {
        /// The command line.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It refused, in its own words.
    #[error("`{command}` failed: {said}")]
    Refused {
        /// The command line.
        command: String,
        /// Its standard error.
        said: String,
    },
    /// It did not end.
    #[error("`{command}` does not end; killed")]
    Hangs {
        /// The command line.
        command: String,
    },
}

/// The programs.
pub(super) struct Programs {
    ip: PathBuf,
    resolvectl: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            ip: PathBuf::from("ip"),
            resolvectl: PathBuf::from("resolvectl"),
        }
    }
}

/// Has resolved ask at `listen` for names below `domain`, and there for nothing else.
///
/// # Errors
/// [`ResolvedError`]; nothing is left behind then.
pub(super) async fn tell(
    programs: &Programs,
    domain: &str,
    listen: SocketAddr,
) -> Result<(), ResolvedError> {
    // What a process that was killed has left, if any.
    let _was_none = untell(programs).await;
    let told = commands(programs, domain, listen);
    for (program, arguments) in told {
        if let Err(e) = run(program, &arguments).await {
            let _best_effort = untell(programs).await;
            return Err(e);
        }
    }
    Ok(())
}

/// What to type to the same end, where this process has not the right to.
pub fn by_hand(domain: &str, listen: SocketAddr) -> String {
    let programs = Programs::default();
    let commands = commands(&programs, domain, listen).into_iter();
    let lines =
        commands.map(|(program, words)| format!("{} {}", program.display(), words.join(" ")));
    format!("as root: {}", lines.collect::<Vec<_>>().join(" && "))
}

/// Takes it back.
///
/// # Errors
/// [`ResolvedError`].
pub(super) async fn untell(programs: &Programs) -> Result<(), ResolvedError> {
    run(&programs.ip, &words(&format!("link delete {LINK}"))).await
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn commands<'p>(
    programs: &'p Programs,
    domain: &str,
    listen: SocketAddr,
) -> Vec<(&'p Path, Vec<String>)> {
    let ip = [
        format!("link add {LINK} type dummy"),
        format!("address add {ADDRESS} dev {LINK}"),
        format!("link set {LINK} up"),
    ];
    let resolvectl = [
        format!("dns {LINK} {listen}"),
        // A tilde: what is searched in is no matter of ours.
        format!("domain {LINK} ~{domain}"),
        format!("default-route {LINK} no"),
        format!("dnssec {LINK} no"),
        format!("dnsovertls {LINK} no"),
        format!("llmnr {LINK} no"),
        format!("mdns {LINK} no"),
    ];
    let ip = ip.iter().map(|line| (&*programs.ip, words(line)));
    let resolvectl = resolvectl.iter();
    let resolvectl = resolvectl.map(|line| (&*programs.resolvectl, words(line)));
    ip.chain(resolvectl).collect()
}

async fn run(program: &Path, arguments: &[String]) -> Result<(), ResolvedError> {
    let command = || format!("{} {}", program.display(), arguments.join(" "));
    let mut child = Command::new(program);
    child
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // Where the programs are that only administrators need.
    child.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    match timeout(PATIENCE, child.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(ResolvedError::Refused {
            command: command(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
        Ok(Err(source)) => Err(ResolvedError::Run {
            command: command(),
            source,
        }),
        Err(_elapsed) => Err(ResolvedError::Hangs { command: command() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// Programs that write down how they were called, and fail where their arguments say so.
    fn scripts(directory: &Path) -> Programs {
        let script = |name: &str| {
            let path = directory.join(name);
            let log = directory.join("log").display().to_string();
            let text = format!(
                "#!/bin/sh\necho {name} \"$@\" >> {log}\ncase \"$*\" in *refused*) echo no >&2; exit 1;; esac\n"
            );
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        Programs {
            ip: script("ip"),
            resolvectl: script("resolvectl"),
        }
    }

    #[tokio::test]
    async fn resolved_is_told_of_a_link_that_goes_when_it_fails() {
        let directory = tempfile::tempdir().unwrap();
        let programs = scripts(directory.path());
        let listen = "127.0.0.1:15053".parse().unwrap();
        let log = || fs::read_to_string(directory.path().join("log")).unwrap();
        tell(&programs, "mesh.internal", listen).await.unwrap();
        let said = log();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 11, "{said}");
        assert_eq!(lines[0], "ip link delete lateen-dns");
        for want in [
            "resolvectl dns lateen-dns 127.0.0.1:15053",
            "resolvectl domain lateen-dns ~mesh.internal",
            "resolvectl default-route lateen-dns no",
        ] {
            assert!(lines.contains(&want), "{said}");
        }
        fs::remove_file(directory.path().join("log")).unwrap();
        let failed = tell(&programs, "refused.example", listen)
            .await
            .unwrap_err();
        assert!(
            failed.to_string().ends_with("~refused.example` failed: no"),
            "{failed}"
        );
        assert!(log().ends_with("ip link delete lateen-dns\n"), "{}", log());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let programs = Programs {
            ip: PathBuf::from("/nonexistent/ip"),
            resolvectl: PathBuf::from("/nonexistent/resolvectl"),
        };
        let failed = untell(&programs).await.unwrap_err();
        assert_eq!(
            failed.to_string(),
            "cannot run `/nonexistent/ip link delete lateen-dns`"
        );
    }

    #[test]
    fn each_resolver_is_told_apart_and_has_its_remedy() {
        let listen = "127.0.0.1:15053".parse().unwrap();
        for (mark, want, remedy) in [
            ("", Resolver::None, "nameserver 127.0.0.1"),
            (
                "run/systemd/resolve/io.systemd.Resolve",
                Resolver::Resolved,
                "",
            ),
            (
                "run/dnsmasq/dnsmasq.pid",
                Resolver::Dnsmasq,
                "server=/mesh.internal/127.0.0.1#15053",
            ),
            (
                "run/unbound.pid",
                Resolver::Unbound,
                "forward-addr: 127.0.0.1@15053",
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            if !mark.is_empty() {
                let path = root.path().join(mark);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let resolver = Resolver::of(root.path());
            assert_eq!(resolver, want, "{mark}");
            let finding = resolver.finding("mesh.internal", listen);
            let said = finding.map(|f| f.remedy).unwrap_or_default();
            assert!(said.contains(remedy), "{mark}: {said}");
            assert_eq!(said.is_empty(), remedy.is_empty(), "{mark}: {said}");
        }
    }
}
