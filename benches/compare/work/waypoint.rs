//! Small requests to a service: by no waypoint, and through one.

use std::net::Ipv4Addr;

use super::{Better, Figure, Readings, Site, Work, http};
use crate::process::{processor, resident};
use crate::ruled;

/// One connection, 16, 64, a new one for each request, and the waypoint's memory after all that.
pub(super) fn works() -> Vec<Work> {
    let sixteen = ["-t1", "-c16"];
    let close: &[&str] = &["-H", "Connection: close"];
    let mut memory = Work::new("waypoint memory", memory_figures(), memory);
    memory.once = true;
    vec![
        requests("waypoint http 1 connection", ["-t1", "-c1"], &[], by_itself),
        requests("waypoint http 16 connections", sixteen, &[], by_itself),
        requests(
            "waypoint http 16 connections 10 rules",
            sixteen,
            &[],
            by_rules::<0>,
        ),
        requests(
            "waypoint http 16 connections 1000 rules",
            sixteen,
            &[],
            by_rules::<1>,
        ),
        requests(
            "waypoint http 64 connections",
            ["-t2", "-c64"],
            &[],
            by_itself,
        ),
        requests(
            "waypoint http new connections 16 at once",
            sixteen,
            close,
            by_itself,
        ),
        memory,
    ]
}

/// Where requests go of a contender that can be asked so.
type Asked = fn(&Site<'_>) -> Option<Ipv4Addr>;

fn by_itself(site: &Site<'_>) -> Option<Ipv4Addr> {
    Some(site.contender.mesh.server)
}

/// The service under the policies at that place of [`ruled::SERVICES`]; waypoints of others have none.
fn by_rules<const AT: usize>(site: &Site<'_>) -> Option<Ipv4Addr> {
    let (_rules, offset) = ruled::SERVICES.get(AT)?;
    // An older lateen may know of no policies.
    let ours = site.contender.name == "lateen";
    ours.then(|| ruled::address(site.contender.mesh.server, *offset))
}

fn requests(
    name: &str,
    shape: [&'static str; 2],
    header: &'static [&'static str],
    asked: Asked,
) -> Work {
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
        let Some(to) = asked(site) else {
            return Ok(vec![None; 4]);
        };
        let waypoint = site.contender.mesh.waypoint;
        let spent = || waypoint.map(processor).transpose();
        let before = spent()?;
        let told = http::wrk(site, to, &shape, header)?;
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
