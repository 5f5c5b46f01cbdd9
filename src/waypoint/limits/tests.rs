use std::borrow::Cow;
use std::thread;

use super::*;
use crate::model::declaration::Origin;
use crate::model::limit::Key;
use crate::model::route::Match;

fn rate(requests: u32, burst: u32) -> Rate {
    Rate::new(requests, Duration::from_secs(3600), burst).unwrap()
}

fn rule(line: u32, requests: u32) -> Rule {
    Rule {
        line,
        matches: vec![Match::default()],
        by: Key::None,
        rate: rate(requests, requests),
    }
}

fn limit(name: &str, rules: Vec<Rule>) -> Arc<Limit> {
    Arc::new(Limit {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        },
        origin: Origin {
            file: Arc::from("a.toml"),
            line: 1,
        },
        rules,
    })
}

/// What is left in each of a limit's buckets after one more request.
fn remaining(counted: &Counted) -> Vec<u32> {
    let all = counted.taking(|_| true);
    all.map(|taking| taking.take(&Subject::Everyone).0.remaining)
        .collect()
}

#[test]
fn what_was_counted_stays_with_a_rule_that_stays() {
    let counters = Counters::default();
    let first = counters.counted(&limit("a", vec![rule(3, 10), rule(4, 20)]));
    assert_eq!(remaining(&first), [9, 19]);
    for (name, limit, want) in [
        (
            "the same",
            limit("a", vec![rule(3, 10), rule(4, 20)]),
            vec![8, 18],
        ),
        (
            "elsewhere",
            limit("a", vec![rule(7, 10), rule(9, 20)]),
            vec![7, 17],
        ),
        (
            "in another order",
            limit("a", vec![rule(3, 20), rule(4, 10)]),
            vec![16, 6],
        ),
        (
            "one more, one changed",
            limit("a", vec![rule(3, 10), rule(4, 30)]),
            vec![5, 29],
        ),
        (
            "the same twice",
            limit("a", vec![rule(3, 10), rule(4, 10)]),
            vec![4, 9],
        ),
        ("of another name", limit("b", vec![rule(3, 10)]), vec![9]),
    ] {
        assert_eq!(remaining(&counters.counted(&limit)), want, "{name}");
    }
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let counters = Counters::default();
    for name in ["a", "b"] {
        let counted = counters.counted(&limit(name, vec![rule(1, 10)]));
        assert_eq!(remaining(&counted), [9], "{name}");
        drop(counted);
        assert_eq!(locked(&counters.known).len(), 1, "{name}");
    }
    assert_eq!(
        remaining(&counters.counted(&limit("a", vec![rule(1, 10)]))),
        [9]
    );
}

#[test]
fn threads_take_no_more_than_there_is() {
    let counter = Counter::new(MOST_SUBJECTS);
    let rate = rate(1, 1000);
    let passed = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let take = |_: &i32| counter.take(&Subject::Everyone, rate, Duration::ZERO);
                    (0..500).filter(|n| take(n).0.wait.is_none()).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(passed, 1000);
}

#[test]
fn made_up_names_share_what_is_left() {
    let counter = Counter::new(PARTS * 4);
    let rate = rate(1, 2);
    let passes = |value: &str| {
        let subject = Subject::Value(Cow::Borrowed(value.as_bytes()));
        let (standing, _token) = counter.take(&subject, rate, Duration::ZERO);
        standing.wait.is_none()
    };
    assert_eq!([(); 3].map(|()| passes("regular")), [true, true, false]);
    let passed = (0..10_000)
        .filter(|n| passes(&format!("made-up-{n}")))
        .count();
    // One each for as many as there is room for, and the two of the common bucket.
    assert!(passed <= PARTS * 4 - 1 + 2, "{passed}");
    assert!(!passes("regular"), "who has spent his own is not forgotten");
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    for (name, most) in [("his own", MOST_SUBJECTS), ("the crowd's", 0)] {
        let counter = Counter::new(most);
        let take = || counter.take(&Subject::Everyone, rate(1, 1), Duration::ZERO);
        take().1.give_back();
        let (standing, _token) = take();
        assert_eq!(standing.wait, None, "{name}");
        assert!(take().0.wait.is_some(), "{name}");
    }
}
