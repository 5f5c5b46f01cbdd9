use proptest::prelude::*;

use super::*;

fn rate(requests: u32, per: u64, burst: u32) -> Rate {
    Rate::new(requests, Duration::from_secs(per), burst).unwrap()
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn only_what_can_be_counted_is_a_rate() {
    let day = Duration::from_secs(86_400);
    for (name, requests, per, burst, want) in [
        ("the least", 1, Duration::from_secs(1), 1, true),
        ("the most", MOST, day, MOST, true),
        ("no requests", 0, day, 1, false),
        ("no burst", 1, day, 0, false),
        ("too many", MOST + 1, day, 1, false),
        ("too large a burst", 1, day, MOST + 1, false),
        ("too short", 1, millis(999), 1, false),
        ("too long", 1, day + millis(1), 1, false),
    ] {
        assert_eq!(Rate::new(requests, per, burst).is_some(), want, "{name}");
    }
}

#[test]
fn tokens_are_taken_and_come_back_one_by_one() {
    let rate = rate(4, 60, 3);
    let mut bucket = Bucket::default();
    let second = Duration::from_secs;
    for (name, at, remaining, reset, wait) in [
        ("the burst", 0, 2, 15, None),
        ("its second", 0, 1, 30, None),
        ("its last", 0, 0, 45, None),
        ("one too many", 0, 0, 45, Some(15)),
        ("again, later", 10, 0, 35, Some(5)),
        ("one has come back", 15, 0, 45, None),
        ("two have", 45, 1, 30, None),
        ("all have, and no more than that", 10_000, 2, 15, None),
        (
            "time that goes back gives nothing",
            9_000,
            0,
            1015,
            Some(985),
        ),
    ] {
        let told = bucket.take(rate, second(at));
        let want = Standing {
            limit: 3,
            remaining,
            reset: second(reset),
            wait: wait.map(second),
        };
        assert_eq!(told, want, "{name}");
    }
}

#[test]
fn nothing_drifts_at_a_rate_that_does_not_divide_a_second() {
    // For ten days, each as soon as it may be.
    let rate = rate(7, 3, 1);
    let mut bucket = Bucket::default();
    let mut now = Duration::ZERO;
    for _ in 0..2_000_000 {
        assert_eq!(bucket.take(rate, now).wait, None, "{now:?}");
        now += bucket.standing(rate, now).reset;
    }
    // Waits are told in whole nanoseconds, rounded up; there is no other loss.
    let exact = Duration::from_nanos(2_000_000 * 3_000_000_000 / 7);
    assert!(now >= exact && now < exact + millis(2), "{now:?} {exact:?}");
}

#[test]
fn the_strictest_of_several_answers() {
    let standing = |remaining, wait: Option<u64>| Standing {
        limit: 9,
        remaining,
        reset: Duration::from_secs(1),
        wait: wait.map(Duration::from_secs),
    };
    for (name, a, b, want) in [
        ("less left", (5, None), (2, None), (2, None)),
        ("a refusal", (0, None), (0, Some(1)), (0, Some(1))),
        ("a longer one", (0, Some(1)), (0, Some(9)), (0, Some(9))),
    ] {
        let [a, b, want] = [a, b, want].map(|(remaining, wait)| standing(remaining, wait));
        assert_eq!((a.stricter(b), b.stricter(a)), (want, want), "{name}");
    }
}

/// The same by a list of all that was taken: as exact as fractions are, and slow.
#[derive(Default)]
struct Naive {
    /// Tokens of `per` nanoseconds each, in nanoseconds × requests, and when that was so.
    held: Option<(u128, Duration)>,
}

impl Naive {
    fn takes(&mut self, rate: Rate, now: Duration) -> bool {
        let (token, most) = (rate.per.as_nanos(), u128::from(rate.burst));
        let (held, since) = self.held.unwrap_or((token * most, now));
        let come = (now - since).as_nanos() * u128::from(rate.requests);
        let held = (held + come).min(token * most);
        let left = held.checked_sub(token);
        self.held = Some((left.unwrap_or(held), now));
        left.is_some()
    }
}

fn rates() -> impl Strategy<Value = Rate> {
    (1..=50_u32, 1..=120_u64, 1..=20_u32).prop_map(|(r, per, burst)| rate(r, per, burst))
}

proptest! {
    #[test]
    fn a_bucket_lets_through_what_a_naive_one_does(
        rate in rates(),
        waits in prop::collection::vec(0..20_000_000_000_u64, 1..80),
    ) {
        let (mut bucket, mut naive) = (Bucket::default(), Naive::default());
        let mut now = Duration::from_secs(1);
        for wait in waits {
            // Most come close to one another.
            now += Duration::from_nanos(if wait % 3 == 0 { wait } else { wait / 1000 });
            let before = bucket.standing(rate, now);
            let told = bucket.take(rate, now);
            prop_assert_eq!(told.wait.is_none(), naive.takes(rate, now));
            prop_assert_eq!(before.remaining > 0, told.wait.is_none());
            let left = before.remaining.saturating_sub(1);
            prop_assert_eq!(told.remaining, left);
        }
    }

    #[test]
    fn never_more_pass_than_the_rate_and_the_burst_allow(
        rate in rates(),
        waits in prop::collection::vec(0..3_000_000_000_u64, 1..200),
    ) {
        let mut bucket = Bucket::default();
        let (mut now, mut passed) = (Duration::ZERO, 0_u128);
        for wait in waits {
            now += Duration::from_nanos(wait);
            passed += u128::from(bucket.take(rate, now).wait.is_none());
            let come = now.as_nanos() * u128::from(rate.requests) / rate.per.as_nanos();
            prop_assert!(passed <= u128::from(rate.burst) + come);
        }
    }

    #[test]
    fn what_is_refused_passes_after_the_wait_and_not_before(
        rate in rates(),
        begin in 0..10_000_000_000_u64,
    ) {
        let mut bucket = Bucket::default();
        let now = Duration::from_nanos(begin);
        let wait = loop {
            if let Some(wait) = bucket.take(rate, now).wait {
                break wait;
            }
        };
        let early = wait - Duration::from_nanos(1);
        prop_assert!(bucket.clone().take(rate, now + early).wait.is_some());
        prop_assert!(bucket.take(rate, now + wait).wait.is_none());
    }

    #[test]
    fn what_is_given_back_was_never_taken(
        rate in rates(),
        before in prop::collection::vec(0..1_000_000_000_u64, 0..10),
    ) {
        let mut bucket = Bucket::default();
        let mut now = Duration::ZERO;
        for wait in before {
            now += Duration::from_nanos(wait);
            bucket.take(rate, now);
        }
        let stood = bucket.standing(rate, now);
        if bucket.take(rate, now).wait.is_none() {
            bucket.give_back(rate);
        }
        prop_assert_eq!(bucket.standing(rate, now), stood);
    }
}
