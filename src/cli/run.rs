//! `lateen run`: the roles of this host.

mod companion;
mod followers;
mod powers;
mod reload;
mod session_key;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Method;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::descriptors::more_descriptors;
use super::output::{NO, USAGE};
use super::{Failure, accounts};
use crate::admin::{self, Answer, Listener, Routes, SOCKET};
use crate::agent::identity::NodeIdentity;
use crate::config::daemon::{Config, Role};
use crate::config::diagnose::Style;
use crate::control::server::{Control, Settings};
use crate::doctor::{self, Facts};
use crate::model::waypoint::{WaypointName, WaypointNameError};
use crate::service::{self, Manager, Upkeep};
use crate::status;
use crate::telemetry::Metrics;
use companion::Companion;
use followers::Followers;
use powers::Powers;
use reload::Reload;

/// Start the roles of this host.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lateen run --control --node --config /etc/lateen/lateen.toml")]
pub struct RunArgs {
    /// Be the control plane
    #[arg(long)]
    control: bool,
    /// Be a node: capture and tunnel the traffic of this host's workloads
    #[arg(long)]
    node: bool,
    /// Be an instance of this waypoint, which the mesh files place on this node; any number of times.
    /// It goes by the routes, traffic policies and policies of what is behind it
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = waypoint)]
    waypoint: Vec<WaypointName>,
    /// The settings of this host [default: /etc/lateen/lateen.toml]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// A waypoint's name. Of a unit's instance, which may have no slash, it is `NAMESPACE:NAME`.
fn waypoint(text: &str) -> Result<WaypointName, WaypointNameError> {
    text.replacen(':', "/", 1).parse()
}

/// What this process is to do.
#[derive(Clone)]
struct Roles {
    control: bool,
    node: bool,
    waypoints: BTreeSet<WaypointName>,
}

impl Roles {
    /// Those of the command line, else those of the settings.
    fn of(args: &RunArgs, config: &Config) -> Self {
        let waypoints: BTreeSet<WaypointName> = args.waypoint.iter().cloned().collect();
        let told = args.control || args.node || !waypoints.is_empty();
        let role = |given: bool, role| given || (!told && config.roles().contains(&role));
        Self {
            control: role(args.control, Role::Control),
            node: role(args.node, Role::Node),
            waypoints,
        }
    }

    /// As what this host is looked at.
    fn facts(&self) -> doctor::Roles {
        doctor::Roles {
            control: self.control,
            node: self.node,
            waypoint: !self.waypoints.is_empty(),
            known: true,
        }
    }

    fn is_none(&self) -> bool {
        !self.control && !self.follows()
    }

    /// Whether any of them follows a control plane.
    fn follows(&self) -> bool {
        self.node || !self.waypoints.is_empty()
    }
}

/// Makes the directories; those of a node that is started as root are given to the proxy's user.
fn directories(config: &Config, roles: &Roles) -> Result<(), Failure> {
    match roles.node {
        true => accounts::directories(config),
        false => accounts::directories_of_mine(config),
    }
}

/// The settings of this host, or their faults in full.
pub(super) fn config(path: Option<&Path>) -> Result<Config, Failure> {
    let config = Config::load(path).map_err(|report| {
        let text = report.text(&Style::for_stream(false, true, 100));
        Failure::plain(USAGE, format!("the settings do not pass:\n{text}"))
    })?;
    Ok(match service::credentials() {
        Some(directory) => config.with_credentials(&directory),
        None => config,
    })
}

/// Runs until a signal.
///
/// # Errors
/// [`Failure`] when a role cannot start.
pub fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let config = config(args.config.as_deref())?;
    let log = super::start_log(&config)?;
    let roles = Roles::of(args, &config);
    if roles.is_none() {
        let message =
            "no role to run: give --control, --node or --waypoint, or set `roles` in lateen.toml";
        return Err(Failure::plain(USAGE, message));
    }
    one_master(&config, &roles)?;
    no_foreign_waypoint(&config, &roles)?;
    directories(&config, &roles)?;
    more_descriptors();
    // Before any thread exists.
    let (powers, companion) = match roles.node {
        true => powers::take(&config, args.config.as_deref())?,
        false => (None, None),
    };
    doctor::log(&doctor::examine(&Facts::at_start(&config, roles.facts())));
    let writing = log.start(io::stderr());
    let _writing = writing.map_err(|e| Failure::no("log thread", &e))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::no("cannot start", &e))?;
    let watched = companion.as_ref().map(Companion::id);
    let path = args.config.clone();
    let outcome = runtime.block_on(serve(config, path, roles, powers, watched));
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(companion) = companion {
        companion.end();
    }
    outcome
}

/// A machine is a node of the mesh it joined or of another's control plane, not of both.
fn one_master(config: &Config, roles: &Roles) -> Result<(), Failure> {
    if !roles.follows() || config.control().bearer().is_none() {
        return Ok(());
    }
    let joined =
        NodeIdentity::load(config.state_dir()).map_err(|e| Failure::no("node role", &e))?;
    let Some(identity) = joined else {
        return Ok(());
    };
    let message = format!(
        "this machine joined the mesh of `{}` as `{}` ({}), and lateen.toml has `token-file` in [control] for \
         another control plane; take `token-file` and `root-file` out, or use another `state-dir`",
        identity.mesh.trust_domain,
        identity.node,
        config.state_dir().join("agent/identity").display(),
    );
    Err(Failure::plain(USAGE, message))
}

/// An istiod tells a waypoint its policies by means that are not read here: to serve without them
/// would leave open what they close.
fn no_foreign_waypoint(config: &Config, roles: &Roles) -> Result<(), Failure> {
    if roles.waypoints.is_empty() || config.control().bearer().is_none() {
        return Ok(());
    }
    let message = "--waypoint does not go with `token-file` in [control]: of another mesh's waypoint no policy \
         and no route would be in force; run Istio's own waypoint there";
    Err(Failure::plain(USAGE, message))
}

async fn serve(
    config: Config,
    path: Option<PathBuf>,
    roles: Roles,
    powers: Option<Powers>,
    companion: Option<u32>,
) -> Result<ExitCode, Failure> {
    let manager = Manager::of_this_process();
    let manager = manager.map_err(|e| Failure::no("service manager", &e))?;
    let mut runtimes = vec![Handle::current()];
    let shutdown = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    let socket = Listener::unix(&config.runtime_dir().join(SOCKET));
    let socket = socket.map_err(|e| Failure::no("admin socket", &e))?;
    let mut tasks = JoinSet::new();
    let mut status = status::Sources::new(config.node());
    let mut reload = Reload::new(path, config.clone());
    if roles.control {
        let control = Control::open(control(&config), Arc::clone(&metrics), &shutdown).await;
        let control = control.map_err(|e| Failure::no("control role", &e))?;
        reload = reload.with_mesh_directory(&control.handle());
        status.control(control.handle());
        tasks.spawn(control.run(shutdown.clone()));
    }
    if roles.follows() {
        let followers = Followers::new(&config, &roles, powers, &mut status)?;
        runtimes.extend(followers.runtimes());
        let (config, metrics) = (config.clone(), Arc::clone(&metrics));
        tasks.spawn(followers.run(config, metrics, shutdown.clone()));
    }
    let status = Arc::new(status);
    let pages = status.routes();
    tasks.spawn(admin::serve(socket, pages, shutdown.clone()));
    let ready = Arc::clone(&status);
    let ready = Routes::default().on(Method::GET, "/healthz/ready", move |_body| {
        let ready = ready.ready();
        async move {
            match ready {
                Ok(()) => Answer::text("ready\n"),
                Err(pending) => Answer::error(http::StatusCode::INTERNAL_SERVER_ERROR, pending),
            }
        }
    });
    listen(&mut tasks, config.listeners().readiness, ready, &shutdown).await?;
    let scraped = scrape(&metrics);
    listen(&mut tasks, config.listeners().metrics, scraped, &shutdown).await?;
    let waypoints = roles.waypoints.len();
    info!(
        control = roles.control,
        node = roles.node,
        waypoints,
        "lateen started"
    );
    let upkeep = Upkeep::begin(manager, runtimes, move || status.service());
    let died = companion::died(companion);
    tokio::pin!(died);
    let ended = tokio::select! {
        ended = until_told(&shutdown, &mut tasks, &upkeep, &mut reload) => ended,
        () = &mut died => {
            error!("the keeper has ended, stopping");
            shutdown.cancel();
            let _stopped = until_told(&shutdown, &mut tasks, &upkeep, &mut reload).await;
            Err("the keeper has ended")
        }
    };
    upkeep.end().await;
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(reason) => Err(Failure::plain(NO, reason)),
    }
}

fn control(config: &Config) -> Settings {
    let control = config.control();
    let mut names: Vec<String> = control.names().iter().map(ToString::to_string).collect();
    names.push(config.node().to_string());
    Settings {
        state: config.state_dir().to_owned(),
        authority: control.authority().map(Path::to_owned),
        primary: control.primary().map(ToString::to_string),
        mesh: control.mesh_dir().to_owned(),
        listen: control.listen(),
        name: control.name().to_string(),
        names,
        drain: config.drain_deadline(),
    }
}

fn scrape(metrics: &Arc<Metrics>) -> Routes {
    let page = |metrics: Arc<Metrics>| {
        move |_body| {
            let text = metrics.render();
            async move {
                match text {
                    Ok(body) => Answer {
                        content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                        ..Answer::text(body)
                    },
                    Err(e) => Answer::error(http::StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
                }
            }
        }
    };
    Routes::default()
        .on(Method::GET, "/metrics", page(Arc::clone(metrics)))
        .on(Method::GET, "/stats/prometheus", page(Arc::clone(metrics)))
}

async fn listen(
    tasks: &mut JoinSet<()>,
    address: SocketAddr,
    routes: Routes,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|e| Failure::no(format!("cannot listen on {address}"), &e))?;
    tasks.spawn(admin::serve(
        Listener::Tcp(listener),
        routes,
        shutdown.clone(),
    ));
    Ok(())
}

/// Waits for a signal, then for everything to end; an interrupt ends that wait. SIGHUP reads again what
/// can be. None of the parts ends by itself: where one does, all of it ends, and has failed.
async fn until_told(
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
    upkeep: &Upkeep,
    reload: &mut Reload,
) -> Result<(), &'static str> {
    const DIED: &str = "a part of this process has ended; the log says which, and why";
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        shutdown.cancel();
        return Err("signals cannot be heard");
    };
    let ended = loop {
        tokio::select! {
            _signal = terminate.recv() => break Ok(()),
            _signal = interrupt.recv() => break Ok(()),
            () = reload.when_told(&mut hangup, upkeep) => {}
            () = shutdown.cancelled() => break Err(DIED),
            Some(done) = tasks.join_next() => {
                match done {
                    Ok(()) => error!("a part of this process ended, stopping"),
                    Err(e) => error!(error = %e, "a part of this process died, stopping"),
                }
                break Err(DIED);
            }
        }
    };
    info!("stopping");
    upkeep.stopping();
    shutdown.cancel();
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        _again = interrupt.recv() => warn!("stopping at once"),
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_ends_the_others_and_is_a_failure() {
        for (name, dies) in [
            ("it ends", Some(false)),
            ("it dies", Some(true)),
            ("what is in one of them dies", None),
        ] {
            let shutdown = CancellationToken::new();
            let mut tasks = JoinSet::new();
            let other = shutdown.clone();
            tasks.spawn(async move { other.cancelled().await });
            match dies {
                Some(dies) => drop(tasks.spawn(async move { assert!(!dies, "as planned") })),
                None => shutdown.cancel(),
            }
            let upkeep = Upkeep::begin(None, Vec::new(), service::State::default);
            let config = Config::parse("", String::new(), "edge-1").unwrap();
            let mut reload = Reload::new(None, config);
            let until = until_told(&shutdown, &mut tasks, &upkeep, &mut reload);
            let ended = tokio::time::timeout(Duration::from_secs(20), until).await;
            assert!(ended.unwrap().is_err(), "{name}");
            assert!(shutdown.is_cancelled() && tasks.is_empty(), "{name}");
            upkeep.end().await;
        }
    }
}
