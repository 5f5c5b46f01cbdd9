//! Consistent hashing: the same endpoint for the same key, and for most keys still when others come or
//! go (`spec/waypoint-l7.md` §3.4). Every instance of a waypoint, and every build, makes the same of the
//! same endpoints.

use crate::model::traffic::HashTable;

/// Keys spread over endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(Places);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    /// Endpoints at points of a ring, in order.
    Ring(Vec<(u64, usize)>),
    /// Endpoints, one in each place.
    Maglev(Vec<usize>),
}

impl Table {
    /// Spreads keys over endpoints, by name, each by its share.
    pub fn new(kind: HashTable, endpoints: &[(&str, u32)]) -> Self {
        Self(match kind {
            HashTable::Ring(size) => Places::Ring(ring(size, endpoints)),
            HashTable::Maglev(size) => Places::Maglev(maglev(size, endpoints)),
        })
    }

    /// The endpoint for a key that is the first that may be used, by its number.
    pub fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.0 {
            Places::Ring(points) => {
                let first = points.partition_point(|(at, _)| *at < key);
                let (before, after) = points.split_at_checked(first)?;
                let mut round = after.iter().chain(before).map(|(_, endpoint)| *endpoint);
                round.find(|endpoint| usable(*endpoint))
            }
            Places::Maglev(places) => {
                let size = u64::try_from(places.len()).ok()?;
                let first = usize::try_from(key.checked_rem(size)?).ok()?;
                let (before, after) = places.split_at_checked(first)?;
                let mut round = after.iter().chain(before).copied();
                round.find(|endpoint| usable(*endpoint))
            }
        }
    }
}

/// A number for a text that is the same everywhere, evenly spread: FNV-1a, mixed as splitmix64 does.
pub fn hash(text: &[u8], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in text {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mixed(hash)
}

fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// At least `size` points, and no more than twice as many, each endpoint's in proportion to its share, and
/// one at least. How many there are for a share is a power of two, so that it seldom changes with the
/// number of endpoints: each change would move keys.
fn ring(size: u32, endpoints: &[(&str, u32)]) -> Vec<(u64, usize)> {
    let all: f64 = endpoints.iter().map(|(_, share)| f64::from(*share)).sum();
    let of_one = (f64::from(size) / all.max(1.0)).log2().ceil().exp2();
    let mut points = Vec::new();
    for (endpoint, (name, share)) in endpoints.iter().enumerate() {
        // Within twice the size, which 64 bits hold.
        let own = (f64::from(*share) * of_one) as u64;
        let seed = hash(name.as_bytes(), 0);
        for point in 0..own.max(1) {
            points.push((mixed(seed.wrapping_add(mixed(point))), endpoint));
        }
    }
    points.sort_unstable();
    points
}

/// An endpoint's order of places.
struct Order {
    at: u64,
    skip: u64,
    share: f64,
    /// How far it has come, in shares.
    taken: f64,
}

/// Maglev's table (Eisenbud and others, NSDI 2016, §3.4): in turns, by share, each endpoint takes the
/// first place of its own order that is free.
fn maglev(size: u32, endpoints: &[(&str, u32)]) -> Vec<usize> {
    let size64 = u64::from(size);
    let largest = endpoints.iter().map(|(_, share)| *share).max();
    let largest = f64::from(largest.unwrap_or(1).max(1));
    let order = |(name, share): &(&str, u32)| Order {
        at: hash(name.as_bytes(), 1) % size64,
        skip: hash(name.as_bytes(), 2) % (size64 - 1).max(1) + 1,
        share: f64::from(*share) / largest,
        taken: 0.0,
    };
    let mut orders: Vec<Order> = endpoints.iter().map(order).collect();
    let mut places: Vec<Option<usize>> = vec![None; usize::try_from(size).unwrap_or(usize::MAX)];
    let mut free = places.len();
    if orders.iter().all(|order| order.share <= 0.0) {
        return Vec::new();
    }
    let mut round = 0.0;
    while free > 0 {
        round += 1.0;
        for (endpoint, order) in orders.iter_mut().enumerate() {
            // One of a smaller share sits rounds out.
            if free == 0 || order.taken + 1.0 > round * order.share + f64::EPSILON * round {
                continue;
            }
            order.taken += 1.0;
            while let Some(place) = usize::try_from(order.at)
                .ok()
                .and_then(|at| places.get_mut(at))
            {
                order.at = (order.at + order.skip) % size64;
                if place.is_none() {
                    *place = Some(endpoint);
                    free -= 1;
                    break;
                }
            }
        }
    }
    places.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [HashTable; 2] = [HashTable::Ring(4096), HashTable::Maglev(65_537)];
    const KEYS: u64 = 20_000;

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|n| hash(n.to_string().as_bytes(), 0))
    }

    fn owners(table: &Table, usable: impl Fn(usize) -> bool) -> Vec<usize> {
        keys()
            .map(|key| table.find(key, &usable).unwrap())
            .collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.1.0.{n}:8080")).collect()
    }

    fn of(kind: HashTable, names: &[String], shares: &[u32]) -> Table {
        let endpoints = names.iter().zip(shares).map(|(n, s)| (n.as_str(), *s));
        Table::new(kind, &endpoints.collect::<Vec<_>>())
    }

    #[test]
    fn keys_are_spread_by_share() {
        for kind in KINDS {
            for shares in [&[1; 5][..], &[1, 2, 3], &[7], &[1, 100]] {
                let table = of(kind, &names(shares.len()), shares);
                let owners = owners(&table, |_| true);
                let all: u32 = shares.iter().sum();
                for (endpoint, share) in shares.iter().enumerate() {
                    let got = owners.iter().filter(|o| **o == endpoint).count() as f64;
                    let want = KEYS as f64 * f64::from(*share) / f64::from(all);
                    let off = (got - want).abs() / want;
                    let most = if *share == 1 && all > 50 { 0.5 } else { 0.15 };
                    assert!(
                        off < most,
                        "{kind:?} {shares:?}: {endpoint} has {got}, not {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_that_goes_moves_few_keys_but_its_own() {
        for (kind, most) in [(KINDS[0], 0.0), (KINDS[1], 0.05)] {
            let names = names(10);
            let (mut fewer, shares) = (names.clone(), [1; 10]);
            fewer.remove(3);
            let (all, without) = (of(kind, &names, &shares), of(kind, &fewer, &shares));
            let before = owners(&all, |_| true);
            let after = owners(&without, |_| true);
            let mut moved = 0;
            for (old, new) in before.iter().zip(&after) {
                let new = if *new >= 3 { new + 1 } else { *new };
                moved += u64::from(*old != 3 && *old != new);
            }
            assert!(
                moved as f64 <= KEYS as f64 * most,
                "{kind:?}: {moved} keys moved"
            );
        }
    }

    #[test]
    fn one_that_cannot_be_used_leaves_its_keys_to_all_others() {
        for kind in KINDS {
            let table = of(kind, &names(5), &[1; 5]);
            let before = owners(&table, |_| true);
            let after = owners(&table, |endpoint| endpoint != 2);
            let mut heirs = [0; 5];
            for (old, new) in before.iter().zip(&after) {
                match old {
                    2 => heirs[*new] += 1,
                    _ => assert_eq!(old, new, "{kind:?}"),
                }
            }
            assert!(
                heirs.iter().filter(|n| **n > 500).count() == 4,
                "{kind:?}: {heirs:?}"
            );
            assert_eq!(table.find(7, |_| false), None);
        }
    }

    #[test]
    fn tables_are_the_same_everywhere() {
        let table = of(HashTable::Maglev(13), &names(3), &[1; 3]);
        assert_eq!(hash(b"user-1", 0), 14_166_554_182_431_137_624);
        let Places::Maglev(places) = table.0 else {
            panic!()
        };
        assert_eq!(places, [1, 1, 2, 2, 0, 2, 0, 2, 0, 0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn anybody_can_be_found(kind in 0usize..2, shares in proptest::collection::vec(1u32..1000, 1..9), key in any::<u64>()) {
            let kind = [HashTable::Ring(16), HashTable::Maglev(251)][kind];
            let table = of(kind, &names(shares.len()), &shares);
            for endpoint in 0..shares.len() {
                let found = table.find(key, |e| e == endpoint);
                // Maglev has no place for one whose share is less than a place.
                let tiny = shares[endpoint] * 251 < shares.iter().sum::<u32>() * 2;
                prop_assert!(found == Some(endpoint) || tiny);
            }
        }
    }
}
