//! Client and server on one host, each in a namespace of its own.

use super::{Better, Figure, Work, http, throughput};

/// A stream, one connection's latency, and the rate of 64.
pub(super) fn works() -> Vec<Work> {
    vec![
        Work::new(
            "same host iperf3 1 stream",
            vec![Figure::new("", "Gbit/s", Better::Higher)],
            |site| {
                let to = site.contender.mesh.neighbour;
                Ok(vec![Some(throughput::iperf3(site, to, &[])?)])
            },
        ),
        Work::new(
            "same host http 1 connection",
            vec![Figure::new("p50", "µs", Better::Lower).with_added()],
            |site| {
                let to = site.contender.mesh.neighbour;
                Ok(vec![Some(http::wrk(site, to, &["-t1", "-c1"], &[])?.p50)])
            },
        ),
        Work::new(
            "same host http 64 connections",
            vec![Figure::new("requests", "1/s", Better::Higher)],
            |site| {
                let to = site.contender.mesh.neighbour;
                Ok(vec![Some(http::wrk(site, to, &["-t2", "-c64"], &[])?.rate)])
            },
        ),
    ]
}
