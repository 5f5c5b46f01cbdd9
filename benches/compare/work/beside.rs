//! Small requests beside a stream that takes all it can, to the same server: whether one holds up
//! the other.

use std::time::Duration;

use super::{Better, Figure, Site, Work, http, throughput};
use crate::fault::Fault;

/// Until the stream has found its speed; it does not count this second, and requests begin after.
const HEAD_START: Duration = Duration::from_secs(1);

/// Four connections with requests and one stream.
pub(super) fn work() -> Work {
    Work::new(
        "4 connections beside a stream",
        vec![
            Figure::new("p50", "µs", Better::Lower),
            Figure::new("p99", "µs", Better::Lower),
            Figure::new("stream", "Gbit/s", Better::Higher),
        ],
        |site| {
            let (requests, stream) = both(site);
            let requests = requests?;
            Ok(vec![Some(requests.p50), Some(requests.p99), Some(stream?)])
        },
    )
}

fn both(site: &Site<'_>) -> (Result<http::Told, Fault>, Result<f64, Fault>) {
    let to = site.contender.mesh.server;
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            std::thread::sleep(HEAD_START);
            http::wrk(site, to, &["-t1", "-c4"], &[])
        });
        let omitted = HEAD_START.as_secs().to_string();
        let stream = throughput::iperf3(site, to, &["-O", &omitted]);
        let requests = requests.join();
        let requests = requests
            .unwrap_or_else(|_panic| Err(Fault::said("running wrk", "its thread panicked")));
        (requests, stream)
    })
}
