//! Whom lateen runs as on this host.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::Finding;
use super::codes::Code;
use super::settings::Roles;
use crate::config::daemon::{Config, ProxyUser};

/// Whom the keeper's unit runs as.
const KEEPER: &str = "lateen-keeper";
/// Name of its socket in the runtime directory.
const SOCKET: &str = "keeper.sock";

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Whether this process may see everything.
    root: Option<bool>,
    /// The user of the settings, and its number where there is such a user.
    user: Option<(String, Option<u32>)>,
    keeper: Option<bool>,
    /// The keeper's socket, where it is there and nobody answers.
    deserted: Option<PathBuf>,
}

impl Facts {
    pub(super) fn read(config: &Config) -> Self {
        let users = fs::read_to_string("/etc/passwd").ok();
        let user = users.as_deref().map(|users| match config.user() {
            ProxyUser::Id(uid) => (uid.to_string(), Some(*uid)),
            ProxyUser::Name(name) => (name.to_string(), number_of(users, name)),
        });
        Self {
            root: Some(rustix::process::geteuid().is_root()),
            user,
            keeper: users
                .as_deref()
                .map(|users| number_of(users, KEEPER).is_some()),
            deserted: Some(config.runtime_dir().join(SOCKET)).filter(|path| is_deserted(path)),
        }
    }

    /// The number of the user who owns what lateen writes.
    pub(super) fn uid(&self) -> Option<u32> {
        self.user.as_ref().and_then(|(_, uid)| *uid)
    }

    /// The name or number of the settings.
    pub(super) fn name(&self) -> &str {
        self.user.as_ref().map_or("lateen", |(name, _)| name)
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let mut found = Vec::new();
        match &self.user {
            Some((name, None)) => {
                let seen = format!("the user `{name}`, whom lateen runs as, does not exist");
                let remedy = match &**name {
                    "lateen" => "systemd-sysusers".to_owned(),
                    name => format!("useradd --system --no-create-home {name}"),
                };
                found.push(Finding::new(Code::UserMissing, seen, remedy));
            }
            Some((_, Some(0))) if roles.captures() => {
                let seen =
                    "`user` is root: whatever root runs beside a workload would go uncaptured";
                let remedy = "set `user = \"lateen\"` in lateen.toml";
                found.push(Finding::new(Code::UserIsRoot, seen, remedy));
            }
            _ => {}
        }
        if self.keeper == Some(false) && roles.captures() {
            let seen = format!(
                "there is no user `{KEEPER}`: where the keeper runs as the proxy's user, whoever takes over the \
                 proxy can open sockets that go uncaptured"
            );
            found.push(Finding::new(
                Code::KeeperUserMissing,
                seen,
                "systemd-sysusers",
            ));
        }
        if let Some(socket) = self.deserted.as_ref().filter(|_| roles.captures()) {
            let seen = format!(
                "nobody answers at {}: the node's proxy has nobody to open sockets and keep rules",
                socket.display()
            );
            found.push(Finding::new(
                Code::KeeperGone,
                seen,
                "systemctl restart lateen-keeper",
            ));
        }
        if self.root == Some(false) {
            let seen =
                "run as an ordinary user: firewalls, ports, keys and rules could not be looked at";
            found.push(Finding::new(Code::NotRoot, seen, "sudo lateen doctor"));
        }
        found
    }
}

/// Whether a socket is there that no program listens at. One of another kind refuses otherwise.
fn is_deserted(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// By /etc/passwd (passwd(5)).
fn number_of(users: &str, name: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named() {
        let node = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        let control = Roles {
            control: true,
            known: true,
            ..Roles::default()
        };
        let user = |uid| Some(("lateen".to_owned(), uid));
        for (name, roles, root, user, keeper, want) in [
            ("all is there", node, true, user(Some(998)), true, vec![]),
            (
                "no user",
                node,
                true,
                user(None),
                true,
                vec![Code::UserMissing],
            ),
            (
                "root",
                node,
                true,
                user(Some(0)),
                true,
                vec![Code::UserIsRoot],
            ),
            (
                "a control plane as root",
                control,
                true,
                user(Some(0)),
                false,
                vec![],
            ),
            (
                "no keeper",
                node,
                true,
                user(Some(998)),
                false,
                vec![Code::KeeperUserMissing],
            ),
            (
                "not root",
                node,
                false,
                user(Some(998)),
                true,
                vec![Code::NotRoot],
            ),
        ] {
            let facts = Facts {
                root: Some(root),
                user,
                keeper: Some(keeper),
                deserted: None,
            };
            let codes: Vec<_> = facts.check(roles).iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }

    #[test]
    fn a_keeper_that_is_gone_leaves_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        assert!(!is_deserted(&path), "there is none");
        let listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!is_deserted(&path), "it answers");
        drop(listening);
        assert!(is_deserted(&path));
        let facts = Facts {
            deserted: Some(path),
            ..Facts::default()
        };
        let codes: Vec<_> = facts
            .check(Roles::default())
            .iter()
            .map(|f| f.code)
            .collect();
        assert_eq!(codes, [Code::KeeperGone]);
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nlateen:x:998:998::/:/usr/sbin/nologin\n";
        for (name, want) in [("lateen", Some(998)), ("late", None), ("root", Some(0))] {
            assert_eq!(number_of(users, name), want, "{name}");
        }
    }
}
