//! How long a connection may last, and be silent (`spec/waypoint-l7.md` §3.4, `connection-pool.tcp`).

use std::fmt;
use std::future::pending;
use std::time::Duration;

use crate::hbone::Traffic;
use crate::model::traffic::ConnectionPool;

/// Looks at a connection within the time that it may be silent, which it may exceed by one.
const LOOKS: u32 = 8;

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Silent(Duration),
    Old(Duration),
}

impl Cut {
    /// How the metrics tell it: Envoy has a flag for one of them.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Silent(_) => "-",
            Self::Old(_) => "DT",
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(time) => write!(f, "cut: silent for {time:?}"),
            Self::Old(time) => write!(f, "cut: it has lasted {time:?}"),
        }
    }
}

/// Returns once a connection that moves `traffic` has lasted or been silent for too long.
pub(super) async fn spent(traffic: &Traffic, pool: &ConnectionPool) -> Cut {
    let (longest, idle) = (pool.max_connection_duration, pool.tcp_idle_timeout);
    let old = async {
        match longest {
            Some(longest) => tokio::time::sleep(longest).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = old => Cut::Old(longest.unwrap_or_default()),
        () = silent(traffic, idle) => Cut::Silent(idle),
    }
}

async fn silent(traffic: &Traffic, idle: Duration) {
    if idle.is_zero() {
        return pending().await;
    }
    let (mut before, mut quiet) = (traffic.totals(), 0);
    while quiet < LOOKS {
        tokio::time::sleep(idle / LOOKS).await;
        let now = traffic.totals();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pool(idle: u32, longest: Option<u32>) -> ConnectionPool {
        ConnectionPool {
            tcp_idle_timeout: idle * SECOND,
            max_connection_duration: longest.map(|s| s * SECOND),
            ..ConnectionPool::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_age_are_told() {
        for (name, pool, talks, want, after) in [
            ("silent", pool(80, None), 0, Cut::Silent(80 * SECOND), 80),
            (
                "talks for a while",
                pool(80, None),
                50,
                Cut::Silent(80 * SECOND),
                130,
            ),
            ("old", pool(80, Some(30)), 0, Cut::Old(30 * SECOND), 30),
            (
                "may be silent",
                pool(0, Some(300)),
                0,
                Cut::Old(300 * SECOND),
                300,
            ),
        ] {
            let (traffic, began) = (Traffic::default(), Instant::now());
            let talk = async {
                for _ in 0..talks {
                    traffic.back.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(SECOND).await;
                }
                pending::<()>().await
            };
            let cut = tokio::select! {
                cut = spent(&traffic, &pool) => cut,
                () = talk => unreachable!(),
            };
            assert_eq!(cut, want, "{name}");
            let took = began.elapsed().as_secs();
            assert!(
                (after..=after + 10).contains(&took),
                "{name}: after {took} s"
            );
        }
    }
}
