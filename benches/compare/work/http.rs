//! Small requests in a closed loop: wrk to nginx.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Better, Figure, Site, Work};
use crate::exec::{Daemon, output};
use crate::fault::Fault;
use crate::rig::{BRIEF, Place, Stage};

/// Where nginx listens.
pub(crate) const PORT: u16 = 8080;
/// Share of requests that may fail before a reading counts as none.
const FORGIVEN: f64 = 0.001;

/// Starts nginx in a place: one process, since what is compared is the way to it.
pub(crate) fn server(stage: &Stage, place: &Place, log: &Path) -> Result<Daemon, Fault> {
    let directory = format!("{}-nginx", place.namespace);
    // Without a master it changes no user, which a user namespace of one user would not let it.
    let text = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr error;\n\
         worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n\
         http {{\n access_log off;\n keepalive_requests 1000000;\n keepalive_timeout 300;\n\
         client_body_temp_path b;\n proxy_temp_path p;\n fastcgi_temp_path f;\n\
         uwsgi_temp_path u;\n scgi_temp_path s;\n\
         server {{\n  listen {PORT} backlog=4096;\n  \
         location / {{ return 200 \"a small answer of forty bytes, no more..\\n\"; }}\n }}\n}}\n"
    );
    let file = stage.write(&format!("{directory}/nginx.conf"), &text)?;
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
    let found = program.iter().find(|p| Path::new(p).exists());
    let mut command = stage.within(place, found.unwrap_or(&"nginx"));
    command
        .args(["-e", "stderr", "-p"])
        .arg(stage.file(&directory));
    Daemon::start(command.arg("-c").arg(file), log)
}

/// One connection, 64, and a new one for each request.
pub(super) fn works() -> Vec<Work> {
    let rate = || Figure::new("requests", "1/s", Better::Higher);
    vec![
        Work::new(
            "http 1 connection",
            vec![
                rate(),
                Figure::new("p50", "µs", Better::Lower).with_added(),
                Figure::new("p99", "µs", Better::Lower),
            ],
            |site| {
                let to = site.contender.mesh.server;
                let told = wrk(site, to, &["-t1", "-c1"], &[])?;
                Ok(vec![Some(told.rate), Some(told.p50), Some(told.p99)])
            },
        ),
        Work::new("http 64 connections", vec![rate()], |site| {
            let to = site.contender.mesh.server;
            Ok(vec![Some(wrk(site, to, &["-t2", "-c64"], &[])?.rate)])
        }),
        Work::new("http new connections 16 at once", vec![rate()], |site| {
            let to = site.contender.mesh.server;
            let close = ["-H", "Connection: close"];
            Ok(vec![Some(wrk(site, to, &["-t1", "-c16"], &close)?.rate)])
        }),
    ]
}

/// What wrk tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Requests that were answered.
    pub(super) requests: f64,
    /// The same per second.
    pub(super) rate: f64,
    /// Median latency in microseconds.
    pub(super) p50: f64,
    /// 99th percentile in microseconds.
    pub(super) p99: f64,
}

/// Runs wrk at one address.
pub(super) fn wrk(
    site: &Site<'_>,
    to: Ipv4Addr,
    shape: &[&str],
    header: &[&str],
) -> Result<Told, Fault> {
    let mut command = wrk_command(site, to, shape, header);
    let within = Duration::from_secs(site.seconds.into()) + BRIEF;
    told(&output(&mut command, "", within)?)
}

fn wrk_command(site: &Site<'_>, to: Ipv4Addr, shape: &[&str], header: &[&str]) -> Command {
    let mut command = site.stage.within(&site.contender.ground.client, "wrk");
    command.args(shape).arg(format!("-d{}s", site.seconds));
    command.args(["--latency", "--timeout", "5s"]).args(header);
    command.arg(format!("http://{to}:{PORT}/"));
    command
}

fn told(text: &str) -> Result<Told, Fault> {
    let mut told = Told::default();
    let mut failed = 0.0;
    for line in text.lines().map(str::trim) {
        let last = line.split_whitespace().last().unwrap_or_default();
        if line.starts_with("50%") {
            told.p50 = microseconds(last).unwrap_or_default();
        } else if line.starts_with("99%") {
            told.p99 = microseconds(last).unwrap_or_default();
        } else if line.starts_with("Requests/sec:") {
            told.rate = last.parse().unwrap_or_default();
        } else if line.contains(" requests in ") {
            told.requests = numbers(line).next().unwrap_or_default();
        } else if line.starts_with("Socket errors:") || line.starts_with("Non-2xx") {
            failed += numbers(&line.replace("Non-2xx or 3xx", "")).sum::<f64>();
        }
    }
    if told.rate <= 0.0 || told.p50 <= 0.0 || failed > told.requests * FORGIVEN {
        return Err(Fault::said("running wrk", text.trim()));
    }
    Ok(told)
}

fn numbers(line: &str) -> impl Iterator<Item = f64> {
    let words = line.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|w| w.parse().ok())
}

/// wrk writes `43.00us`, `1.20ms`, `2.00s` or `1.00m`.
fn microseconds(word: &str) -> Option<f64> {
    let at = word.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = word.split_at(at);
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}
