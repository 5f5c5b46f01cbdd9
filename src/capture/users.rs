//! Unix users by the names that are on this host.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

/// Where names are; those of directories elsewhere in the network are not looked up.
const ACCOUNTS: &str = "/etc/passwd";

/// Why there is no such user, or not one to capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Nobody has that name, yet.
    #[error("there is no user `{name}` in {ACCOUNTS}; create it, or write its number")]
    Missing {
        /// The name.
        name: Arc<str>,
    },
    /// Root's programs are all over the host.
    #[error(
        "user `{name}` is root, whose programs are all over the host, the node's own among them"
    )]
    Root {
        /// The name.
        name: Arc<str>,
    },
    /// What the proxy opens would come back to it.
    #[error("user `{name}` is the proxy's own; run the workload as another")]
    Proxy {
        /// The name.
        name: Arc<str>,
    },
}

/// The number of a user, by name or itself a number.
///
/// # Errors
/// [`UserError::Missing`].
pub fn uid(name: &str) -> Result<u32, UserError> {
    let accounts = || fs::read_to_string(ACCOUNTS).unwrap_or_default();
    let found = name.parse().ok().or_else(|| of_account(&accounts(), name));
    found.ok_or_else(|| UserError::Missing {
        name: Arc::from(name),
    })
}

/// The number of a user whose programs can be captured: not root, and not one of the `reserved`, as
/// whom the proxy runs and its sockets are opened.
///
/// # Errors
/// [`UserError`].
pub fn captured(name: &str, reserved: &BTreeSet<u32>) -> Result<u32, UserError> {
    match uid(name)? {
        0 => Err(UserError::Root {
            name: Arc::from(name),
        }),
        uid if reserved.contains(&uid) => Err(UserError::Proxy {
            name: Arc::from(name),
        }),
        uid => Ok(uid),
    }
}

fn of_account(accounts: &str, name: &str) -> Option<u32> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let uid = fields
            .next()
            .filter(|n| *n == name)
            .and_then(|_| fields.nth(1));
        uid?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\ncart:x:1001:1001::/:/bin/false\nodd:x\n";
        for (name, want) in [
            ("cart", Some(1001)),
            ("root", Some(0)),
            ("odd", None),
            ("c", None),
        ] {
            assert_eq!(of_account(accounts, name), want, "{name}");
        }
        assert_eq!(uid("4711"), Ok(4711));
    }

    #[test]
    fn neither_root_nor_the_proxy_is_captured() {
        let name = |name: &str| Arc::<str>::from(name);
        for (user, want) in [
            ("0", Err(UserError::Root { name: name("0") })),
            ("root", Err(UserError::Root { name: name("root") })),
            ("1337", Err(UserError::Proxy { name: name("1337") })),
            (
                "no such",
                Err(UserError::Missing {
                    name: name("no such"),
                }),
            ),
            ("1001", Ok(1001)),
        ] {
            assert_eq!(captured(user, &BTreeSet::from([1337])), want, "{user}");
        }
    }
}
