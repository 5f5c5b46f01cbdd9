//! Where the node role's sockets and rules come from, and giving up what they would take.

use std::path::Path;

use rustix::process::{getgid, getuid};
use tracing::{info, warn};

use super::companion::Companion;
use crate::capture::kept::link::Link;
use crate::capture::{PrivilegeError, Sockets, privilege};
use crate::cli::output::NO;
use crate::cli::{Failure, accounts};
use crate::config::daemon::Config;
use crate::keeper::door::SOCKET;

/// What the node role has of them.
pub(super) struct Powers {
    pub(super) sockets: Sockets,
    /// The connection to the keeper, where there is one.
    pub(super) link: Option<Link>,
}

/// Who has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A keeper that this process starts.
    Companion,
    /// A keeper that somebody else has started.
    Keeper,
    /// This process.
    Own,
    /// Nobody.
    Nobody,
}

/// Who is root starts a keeper and is nobody from then on. Whoever else is started along with one
/// needs no powers; with them, but without a keeper, it does both, as it always has.
fn choose(root: bool, keeper: bool, powers: bool) -> By {
    match (root, keeper, powers) {
        (true, _, _) => By::Companion,
        (false, true, _) => By::Keeper,
        (false, false, true) => By::Own,
        (false, false, false) => By::Nobody,
    }
}

/// Becomes what the node role runs as. Before any thread exists.
///
/// # Errors
/// [`Failure`] when it cannot.
pub(super) fn take(
    config: &Config,
    path: Option<&Path>,
) -> Result<(Option<Powers>, Option<Companion>), Failure> {
    let socket = config.runtime_dir().join(SOCKET);
    let there = Companion::answers(&socket);
    let by = choose(getuid().is_root(), there, privilege::is_both());
    let here = (getuid().as_raw(), getgid().as_raw());
    let powerless = |(uid, gid)| privilege::become_proxy(uid, gid).map_err(refused);
    let mut companion = None;
    match by {
        By::Companion => {
            let account = accounts::account(config.user())?;
            companion = Some(Companion::start(path)?);
            powerless((account.uid, account.gid))?;
        }
        By::Keeper => powerless(here)?,
        By::Own => {
            let exemption = privilege::become_both(here.0, here.1).map_err(refused)?;
            info!(
                "no keeper at hand: this process has its powers, beside what it reads from the network"
            );
            if let Some(reason) = exemption.caution() {
                warn!(reason, "capture knows the proxy by its mark");
            }
            let sockets = Sockets::own(exemption);
            return Ok((
                Some(Powers {
                    sockets,
                    link: None,
                }),
                None,
            ));
        }
        By::Nobody => {
            let message = format!(
                "the node role needs a keeper, and none answers at {}; start `lateen keeper` first \
                 (lateen-keeper.service), or this as root, which starts one",
                socket.display()
            );
            return Err(Failure::plain(NO, message));
        }
    }
    let (sockets, link) = Sockets::kept(&socket);
    let link = Some(link);
    Ok((Some(Powers { sockets, link }), companion))
}

fn refused(error: PrivilegeError) -> Failure {
    Failure::no("node role", &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_powers_that_will_do() {
        for (name, root, keeper, powers, want) in [
            ("root", true, false, true, By::Companion),
            ("root beside a keeper", true, true, true, By::Companion),
            ("the unit", false, true, false, By::Keeper),
            ("an old unit beside a keeper", false, true, true, By::Keeper),
            ("an old unit", false, false, true, By::Own),
            ("anybody", false, false, false, By::Nobody),
        ] {
            assert_eq!(choose(root, keeper, powers), want, "{name}");
        }
    }
}
