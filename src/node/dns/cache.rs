//! What servers have answered on one network, for as long as they said, and longer while they are
//! silent (RFC 1035 §7.4, RFC 2308, RFC 8767). Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::{Code, Kind, Name, Query, Received};

/// Answers that are kept (`spec/hbone-dataplane.md` §5).
const MOST: usize = 8192;
/// Octets that they may take together.
const OCTETS: usize = 8 << 20;
/// Longest that an answer counts: what changed meanwhile is to be seen in a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Longest that there is no such name (RFC 2308 §5 has up to three hours): a mistake that somebody
/// mends is to be seen mended.
const LONGEST_NONE: Duration = Duration::from_secs(15 * 60);
/// How long past its end an answer is better than none (RFC 8767 §5 has one to three days).
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How long after a failure nobody is asked again for what is past its end (RFC 8767 §5).
const AGAIN: Duration = Duration::from_secs(30);

/// What was asked, as far as the answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: Name,
    kind: Kind,
    class: u16,
    dnssec_ok: bool,
    unchecked: bool,
}

impl From<&Query> for Key {
    fn from(query: &Query) -> Self {
        Self {
            name: query.question.name.folded(),
            kind: query.question.kind,
            class: query.question.class,
            dnssec_ok: query.dnssec_ok(),
            unchecked: query.unchecked(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    received: Arc<Received>,
    at: Instant,
    ends: Instant,
    /// When nobody answered last.
    failed: Option<Instant>,
    number: u64,
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its answer, of this age.
    Fresh(Arc<Received>, Duration),
    /// An answer past its end; whether it is worth asking again already.
    Stale(Arc<Received>, bool),
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    /// In the order in which they came; those that came again are in it twice.
    order: VecDeque<(Key, u64)>,
    octets: usize,
    number: u64,
}

impl Cache {
    /// What is known of a question now.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Kept> {
        let entry = self.entries.get(key)?;
        let received = Arc::clone(&entry.received);
        if now < entry.ends {
            return Some(Kept::Fresh(received, now.duration_since(entry.at)));
        }
        let again = entry.failed.is_none_or(|failed| now >= failed + AGAIN);
        (now < entry.ends + STALE).then_some(Kept::Stale(received, again))
    }

    /// Keeps an answer, if it says for how long.
    pub(super) fn put(&mut self, key: Key, received: &Arc<Received>, now: Instant) {
        let none = received.code == Code::NO_NAME;
        let longest = if none { LONGEST_NONE } else { LONGEST };
        let life = received.life.map(|life| life.min(longest));
        let Some(life) = life.filter(|life| !life.is_zero()) else {
            return;
        };
        self.number += 1;
        let entry = Entry {
            received: Arc::clone(received),
            at: now,
            ends: now + life,
            failed: None,
            number: self.number,
        };
        self.octets += cost(&entry);
        self.order.push_back((key.clone(), self.number));
        if let Some(before) = self.entries.insert(key, entry) {
            self.octets -= cost(&before);
        }
        while self.entries.len() > MOST || self.octets > OCTETS {
            self.forget_oldest();
        }
        // Those that came again and again are not to pile up.
        if self.order.len() > 2 * MOST {
            let entries = &self.entries;
            let last =
                |(key, number): &(Key, u64)| entries.get(key).is_some_and(|e| e.number == *number);
            self.order.retain(last);
        }
    }

    /// Nobody answered a question.
    pub(super) fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failed = Some(now);
        }
    }

    fn forget_oldest(&mut self) {
        while let Some((key, number)) = self.order.pop_front() {
            let is_it = self.entries.get(&key).is_some_and(|e| e.number == number);
            if let Some(entry) = is_it.then(|| self.entries.remove(&key)).flatten() {
                self.octets -= cost(&entry);
                return;
            }
        }
    }
}

/// Roughly what an entry takes, its keys included.
fn cost(entry: &Entry) -> usize {
    256 + entry.received.size()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::hostile::{answered, record};
    use crate::dns::{Heard, IN, Question, ask, hear};

    fn query(name: &str) -> Query {
        let question = Question {
            name: Name::of(name).unwrap(),
            kind: Kind::A,
            class: IN,
        };
        Query::new(7, question)
    }

    fn answer(name: &str, life: u32, octets: usize) -> Arc<Received> {
        let query = query(name);
        let records = record(name, 16, life, &vec![0; octets]);
        let message = answered(&ask(7, &query, true), 0, [1, 0, 0], &records);
        match hear(message, 7, &query.question) {
            Heard::Answer(received) => Arc::new(received),
            other => panic!("{other:?}"),
        }
    }

    fn none(life: u32) -> Arc<Received> {
        let query = query("a.example");
        let mut numbers = b"\0\0".to_vec();
        numbers.extend([0; 16]);
        numbers.extend(life.to_be_bytes());
        let records = record("example", 6, life, &numbers);
        let message = answered(&ask(7, &query, true), 3, [0, 1, 0], &records);
        match hear(message, 7, &query.question) {
            Heard::Answer(received) => Arc::new(received),
            other => panic!("{other:?}"),
        }
    }

    const DAY: u64 = 24 * 3600;

    #[test]
    fn an_answer_counts_for_as_long_as_it_says_and_longer_if_it_must() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        for (name, kept, after, want) in [
            ("at once", answer("a.example", 60, 1), 0, "fresh 0"),
            ("later", answer("a.example", 60, 1), 59, "fresh 59"),
            ("past its end", answer("a.example", 60, 1), 60, "stale"),
            (
                "a day past its end",
                answer("a.example", 60, 1),
                59 + DAY,
                "stale",
            ),
            ("longer", answer("a.example", 60, 1), 60 + DAY, "nothing"),
            ("no life", answer("a.example", 0, 1), 0, "nothing"),
            (
                "a week",
                answer("a.example", 7 * 86_400, 1),
                DAY - 1,
                "fresh 86399",
            ),
            (
                "a week, after a day",
                answer("a.example", 7 * 86_400, 1),
                DAY,
                "stale",
            ),
            ("no such name", none(60), 59, "fresh 59"),
            ("no such name for a day", none(86_400), 899, "fresh 899"),
            ("no such name for a day, later", none(86_400), 900, "stale"),
        ] {
            let mut cache = Cache::default();
            let key = Key::from(&query("A.Example"));
            cache.put(key.clone(), &kept, start);
            let got = match cache.get(&key, start + seconds(after)) {
                Some(Kept::Fresh(_, age)) => format!("fresh {}", age.as_secs()),
                Some(Kept::Stale(_, again)) => {
                    assert!(again, "{name}");
                    "stale".to_owned()
                }
                None => "nothing".to_owned(),
            };
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn after_a_failure_nobody_is_asked_for_a_while() {
        let (start, key) = (Instant::now(), Key::from(&query("a.example")));
        let mut cache = Cache::default();
        cache.put(key.clone(), &answer("a.example", 60, 1), start);
        let failed = start + Duration::from_secs(100);
        cache.failed(&key, failed);
        for (after, again) in [(0, false), (29, false), (30, true)] {
            let kept = cache.get(&key, failed + Duration::from_secs(after));
            assert!(
                matches!(kept, Some(Kept::Stale(_, a)) if a == again),
                "{after}"
            );
        }
        cache.put(key.clone(), &answer("a.example", 60, 1), failed);
        assert!(matches!(cache.get(&key, failed), Some(Kept::Fresh(..))));
    }

    #[test]
    fn what_was_asked_otherwise_is_another_answer() {
        let (start, mut cache) = (Instant::now(), Cache::default());
        cache.put(
            Key::from(&query("a.example")),
            &answer("a.example", 60, 1),
            start,
        );
        let kind = |kind| {
            let mut other = query("a.example");
            other.question.kind = kind;
            other
        };
        let mut secure = query("a.example");
        secure.edns = Some(crate::dns::Edns {
            payload: 1232,
            version: 0,
            dnssec_ok: true,
        });
        for (name, asked, want) in [
            ("the same", query("A.EXAMPLE"), true),
            ("another name", query("b.example"), false),
            ("another kind", kind(Kind::AAAA), false),
            ("with signatures", secure, false),
        ] {
            let got = cache.get(&Key::from(&asked), start).is_some();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let key = |number: usize| Key::from(&query(&format!("n{number}.example")));
        let small = answer("a.example", 60, 1);
        for number in 0..MOST + 10 {
            cache.put(key(number), &small, now);
            // One that comes again and again.
            cache.put(key(MOST + 99), &small, now);
        }
        assert_eq!(cache.entries.len(), MOST);
        assert!(cache.order.len() <= 2 * MOST + 1, "{}", cache.order.len());
        assert!(cache.get(&key(0), now).is_none(), "the oldest goes");
        assert!(cache.get(&key(MOST + 9), now).is_some(), "the last stays");
        let large = answer("a.example", 60, 60_000);
        for number in 0..1000 {
            cache.put(key(number), &large, now);
        }
        assert!(cache.octets <= OCTETS, "{}", cache.octets);
        let sum: usize = cache.entries.values().map(cost).sum();
        assert_eq!(cache.octets, sum);
    }
}
