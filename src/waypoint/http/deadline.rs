//! How long a request may take (`spec/waypoint-l7.md` §2.7): counted from when all of it is here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;

/// Tells, by going away, that all of a request is here or that no more of it will come.
pub(super) type Whole = watch::Sender<()>;

/// Since when a request's time runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// It does once nobody holds the other end.
    arriving: Option<watch::Receiver<()>>,
}

/// Goes off when time is up; never, where there is no limit.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Clock {
    /// One that runs as soon as what is returned is dropped.
    pub(super) fn waiting() -> (Self, Whole) {
        let (whole, arriving) = watch::channel(());
        let arriving = Some(arriving);
        (Self { arriving }, whole)
    }

    /// Goes off so long after all of the request is here, or from now if it is.
    pub(super) fn alarm(&self, limit: Option<Duration>) -> Alarm {
        let Some(limit) = limit else {
            return Alarm::default();
        };
        let arriving = self.arriving.clone();
        Alarm(Some(Box::pin(async move {
            if let Some(mut arriving) = arriving {
                while arriving.changed().await.is_ok() {}
            }
            tokio::time::sleep(limit).await;
        })))
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(alarm) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// The stricter of two limits.
pub(super) fn stricter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// What a gRPC client says it waits (`grpc-timeout`: at most eight digits and a unit).
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.len().checked_sub(1)?;
    let (digits, unit) = (text.get(..unit)?, text.get(unit..)?);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_strictly() {
        for (text, want) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("400m", Some(Duration::from_millis(400))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("123456789S", None),
            ("1s", None),
            ("-1S", None),
            ("S", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(grpc_timeout(&headers), want, "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_runs_once_all_of_a_request_is_here() {
        let (clock, whole) = Clock::waiting();
        let limit = Duration::from_secs(2);
        let (mut early, begun) = (clock.alarm(Some(limit)), Instant::now());
        let waited = tokio::time::timeout(Duration::from_secs(60), &mut early);
        assert!(waited.await.is_err(), "it is still coming");
        drop(whole);
        early.await;
        assert_eq!(begun.elapsed(), Duration::from_secs(62));
        clock.alarm(Some(limit)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(64), "from now");
        let never = tokio::time::timeout(Duration::from_secs(9), clock.alarm(None));
        assert!(never.await.is_err(), "no limit");
    }
}
