//! `lateen keeper`: the process that has the powers, so that the proxy has none.

mod again;

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::process::getuid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::accounts::{self, Account};
use super::descriptors::more_descriptors;
use super::run::config;
use super::terms::terms;
use super::{Failure, start_log};
use crate::capture::{Exemption, privilege};
use crate::config::daemon::Config;
use crate::keeper::Keeper;
use crate::keeper::door::Door;
use crate::service::{Manager, State, Upkeep};

/// What a keeper that is started beside a proxy says once it can be asked.
pub(super) const READY: &str = "ready";

/// Hold listeners and capture rules for the node on this host, which then needs no privileges
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lateen keeper --config /etc/lateen/lateen.toml")]
pub struct KeeperArgs {
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Run one, and another whenever it is killed, until standard input ends: how `lateen run` does
    #[arg(long, hide = true)]
    beside: bool,
    /// End when standard input does, and say `ready` on standard output
    #[arg(long, hide = true, conflicts_with = "beside")]
    until_eof: bool,
}

/// Serves the proxy until a signal.
///
/// # Errors
/// [`Failure`] when the keeper cannot start.
pub fn run(args: &KeeperArgs) -> Result<ExitCode, Failure> {
    let path = args.config.as_deref();
    match args.beside {
        true => again::run(path),
        false => keep(path, args.until_eof),
    }
}

fn keep(path: Option<&Path>, until_eof: bool) -> Result<ExitCode, Failure> {
    let config = config(path)?;
    let log = start_log(&config)?;
    accounts::runtime_directory(&config)?;
    // Its socket is made with the powers of whoever starts it, and all else without.
    let door = Door::open(config.runtime_dir(), caller(&config)?);
    let door = door.map_err(|e| Failure::no("keeper", &e))?;
    let Account { uid, gid } = accounts::keeper(&config)?;
    let exemption = privilege::become_keeper(uid, gid).map_err(|e| Failure::no("keeper", &e))?;
    if let Some(reason) = exemption.caution() {
        warn!(reason, "capture knows the proxy by its mark");
    }
    more_descriptors();
    let writing = log.start(io::stderr());
    let _writing = writing.map_err(|e| Failure::no("log thread", &e))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))?;
    let keeper = Keeper::new(door, terms(&config, exemption)?);
    runtime.block_on(serve(keeper, until_eof))
}

/// Whom it answers: the proxy's user, who is its own where there is a single user.
fn caller(config: &Config) -> Result<u32, Failure> {
    let user = accounts::account(config.user())?.uid;
    match privilege::exemption(user) {
        Ok(Exemption::Mark) => Ok(getuid().as_raw()),
        _ => Ok(user),
    }
}

async fn serve(keeper: Keeper, until_eof: bool) -> Result<ExitCode, Failure> {
    let shutdown = CancellationToken::new();
    let upkeep = upkeep(until_eof)?;
    let told = until_told(until_eof);
    let serving = keeper.run(shutdown.clone());
    tokio::pin!(serving);
    if until_eof {
        // Whoever started it may have heard it before.
        let _unheard = writeln!(io::stdout(), "{READY}");
    }
    info!("keeper started");
    let served = tokio::select! {
        served = &mut serving => served,
        told = told => {
            told.map_err(|e| Failure::no("keeper", &e))?;
            info!("stopping");
            upkeep.stopping();
            shutdown.cancel();
            serving.await
        }
    };
    upkeep.end().await;
    served.map_err(|e| Failure::no("keeper", &e))?;
    Ok(ExitCode::SUCCESS)
}

/// Tells whoever started this as a service that it can be asked; beside a proxy, that is the service.
fn upkeep(until_eof: bool) -> Result<Upkeep, Failure> {
    let manager = match until_eof {
        true => None,
        false => Manager::of_this_process().map_err(|e| Failure::no("service manager", &e))?,
    };
    let state = || State {
        pending: None,
        status: "rules are kept, and sockets opened for the node's proxy".to_owned(),
    };
    Ok(Upkeep::begin(manager, vec![Handle::current()], state))
}

/// Returns at the first signal to stop; beside a proxy, at its end, since a signal to stop is for
/// the proxy, which needs the keeper until it has.
async fn until_told(until_eof: bool) -> io::Result<()> {
    if until_eof {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let mut input = pipe::Receiver::from_owned_fd(input)?;
        let mut nothing = Vec::new();
        input.read_to_end(&mut nothing).await?;
        return Ok(());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _signal = terminate.recv() => {}
        _signal = interrupt.recv() => {}
    }
    Ok(())
}
