//! Small requests to a service: by no waypoint, and through one.

use super::{Better, Figure, Readings, Site, Work, http};
use crate::process::{processor, resident};

/// One connection, 16, 64, a new one for each request, and the waypoint's memory after all that.
pub(super) fn works() -> Vec<Work> {
    let close: &[&str] = &["-H", "Connection: close"];
    let mut memory = Work::new("waypoint memory", memory_figures(), memory);
    memory.once = true;
    vec![
        requests("waypoint http 1 connection", ["-t1", "-c1"], &[]),
        requests("waypoint http 16 connections", ["-t1", "-c16"], &[]),
        requests("waypoint http 64 connections", ["-t2", "-c64"], &[]),
        requests(
            "waypoint http new connections 16 at once",
            ["-t1", "-c16"],
            close,
        ),
        memory,
    ]
}

fn requests(name: &str, shape: [&'static str; 2], header: &'static [&'static str]) -> Work {
    let figures = vec![
        Figure::new("requests", "1/s", Better::Higher),
        Figure::new("p50", "µs", Better::Lower).with_added(),
        Figure::new("p99", "µs", Better::Lower),
        Figure::new(
            "requests for each second of the waypoint's processor",
            "",
            Better::Higher,
        ),
    ];
    Work::new(name, figures, move |site| {
        let waypoint = site.contender.mesh.waypoint;
        let spent = || waypoint.map(processor).transpose();
        let before = spent()?;
        let told = http::wrk(site, site.contender.mesh.server, &shape, header)?;
        let spent = spent()?.zip(before);
        let spent = spent.map(|(after, before)| after.saturating_sub(before).as_secs_f64());
        let of_processor = spent.filter(|s| *s > 0.0).map(|s| told.requests / s);
        Ok(vec![
            Some(told.rate),
            Some(told.p50),
            Some(told.p99),
            of_processor,
        ])
    })
}

fn memory_figures() -> Vec<Figure> {
    let mib = |name| Figure::new(name, "MiB", Better::Lower);
    vec![mib("idle"), mib("after the requests above")]
}

fn memory(site: &Site<'_>) -> Readings {
    let Some(waypoint) = site.contender.mesh.waypoint else {
        return Ok(vec![None; 2]);
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "memory of a process is far below 2^52 bytes"
    )]
    let mib = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
    let (_client, idle) = site.contender.idle;
    Ok(vec![mib(idle), mib(resident(waypoint)?)])
}
