//! Two sorted sequences, walked side by side.

use std::cmp::Ordering;
use std::iter;
use std::sync::Arc;

/// What stands in the one, the other or both under a key, in the order of keys. Both sequences must
/// have it. Where they share memory, which is nearly everywhere, nothing is looked at but that.
pub(super) fn beside<'a, T: 'a, K: Ord + ?Sized>(
    before: impl IntoIterator<Item = &'a Arc<T>>,
    after: impl IntoIterator<Item = &'a Arc<T>>,
    key: impl Fn(&T) -> &K,
) -> impl Iterator<Item = (Option<&'a Arc<T>>, Option<&'a Arc<T>>)> {
    let mut before = before.into_iter().peekable();
    let mut after = after.into_iter().peekable();
    iter::from_fn(move || {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) if Arc::ptr_eq(before, after) => Ordering::Equal,
            (Some(before), Some(after)) => key(before).cmp(key(after)),
        };
        Some(match order {
            Ordering::Less => (before.next(), None),
            Ordering::Equal => (before.next(), after.next()),
            Ordering::Greater => (None, after.next()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_once_and_in_order() {
        let arcs = |keys: &[u8]| keys.iter().map(|key| Arc::new(*key)).collect::<Vec<_>>();
        for (name, before, after) in [
            ("nothing", &[][..], &[][..]),
            ("all new", &[], &[1, 2]),
            ("all gone", &[1, 2], &[]),
            ("the same", &[1, 2], &[1, 2]),
            ("mixed", &[1, 3, 4, 9], &[0, 3, 5, 9, 10]),
        ] {
            let (before, after) = (arcs(before), arcs(after));
            let pairs: Vec<_> = beside(&before, &after, |key| key).collect();
            let left: Vec<_> = pairs.iter().filter_map(|pair| pair.0).collect();
            let right: Vec<_> = pairs.iter().filter_map(|pair| pair.1).collect();
            assert_eq!(left, before.iter().collect::<Vec<_>>(), "{name}");
            assert_eq!(right, after.iter().collect::<Vec<_>>(), "{name}");
            let keys: Vec<u8> = pairs.iter().map(|(b, a)| **b.or(*a).unwrap()).collect();
            assert!(
                keys.windows(2).all(|pair| pair[0] < pair[1]),
                "{name}: {keys:?}"
            );
        }
        fn untouched(_: &u8) -> &u8 {
            panic!("shared memory is not looked at")
        }
        let shared = arcs(&[1, 2]);
        assert_eq!(beside(&shared, &shared, untouched).count(), 2);
    }
}
