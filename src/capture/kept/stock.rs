//! Sockets that wait to be connected, so that whoever connects does not wait for the keeper.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use super::protocol::DESCRIPTORS;

/// Sockets of one family in one place. It grows with demand: a place where little happens holds few.
#[derive(Debug, Default)]
pub(super) struct Stock(Mutex<Shelf>);

#[derive(Debug)]
struct Shelf {
    free: Vec<OwnedFd>,
    /// How many it should hold.
    size: u8,
    /// Some are on their way.
    asked: bool,
}

/// What a stock grows to: a message's worth.
const LARGEST: u8 = DESCRIPTORS as u8;

impl Default for Shelf {
    fn default() -> Self {
        Self {
            free: Vec::new(),
            size: 1,
            asked: false,
        }
    }
}

impl Stock {
    /// A socket, if there is one, and how many should be asked for now, if any. Whoever is told a
    /// number asks, and says so with [`Self::refilled`] when that has been answered.
    pub(super) fn take(&self) -> (Option<OwnedFd>, Option<u8>) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = shelf.free.pop();
        let left = u8::try_from(shelf.free.len()).unwrap_or(LARGEST);
        if shelf.asked || left > shelf.size / 2 {
            return (taken, None);
        }
        if taken.is_none() {
            // It was too small for what happens here.
            shelf.size = (shelf.size * 2).min(LARGEST);
        }
        shelf.asked = true;
        let count = (shelf.size - left.min(shelf.size - 1)).max(1);
        (taken, Some(count))
    }

    /// What was asked for has been answered, well or not.
    pub(super) fn refilled(&self) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.asked = false;
    }

    /// Takes sockets in; more than a stock ever holds are closed.
    pub(super) fn put(&self, sockets: Vec<OwnedFd>) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.free.extend(sockets);
        shelf.free.truncate(LARGEST.into());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: u8) -> Vec<OwnedFd> {
        let descriptor = || std::io::pipe().unwrap().0.into();
        (0..count).map(|_| descriptor()).collect()
    }

    /// Takes one as whoever connects does; tells how many were asked for.
    fn taken(stock: &Stock) -> (bool, Option<u8>) {
        let (socket, ask) = stock.take();
        if let Some(count) = ask {
            stock.refilled();
            // Without one at hand, the first that comes is connected with.
            stock.put(some(count - u8::from(socket.is_none())));
        }
        (socket.is_some(), ask)
    }

    #[test]
    fn it_grows_while_it_is_found_empty_and_then_is_not() {
        let stock = Stock::default();
        let mut missed = 0;
        for _connection in 0..1000 {
            missed += usize::from(!taken(&stock).0);
        }
        assert!(missed <= 6, "{missed}");
        assert!(stock.len() <= usize::from(LARGEST));
        // A burst is served from it.
        let burst = (0..).take_while(|_| stock.take().0.is_some()).count();
        assert!(burst >= 1, "{burst}");
    }

    #[test]
    fn who_waits_does_not_ask_for_what_another_has_asked_for() {
        let stock = Stock::default();
        assert_eq!(stock.take().1, Some(2));
        assert_eq!(stock.take().1, None);
        stock.refilled();
        assert!(stock.take().1.is_some());
    }

    #[test]
    fn no_more_are_kept_than_a_message_carries() {
        let stock = Stock::default();
        stock.put(some(20));
        stock.put(some(20));
        assert_eq!(stock.len(), DESCRIPTORS);
    }
}
