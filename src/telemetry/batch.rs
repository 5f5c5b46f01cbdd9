//! What goes to a collector, gathered until it is worth a message: never waited for by whoever tells it, and
//! dropped where it comes faster than it is taken (`spec/waypoint-l7.md` §6.4).

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Items that wait at most: four batches. What is beyond is dropped, and counted.
const QUEUE: usize = 2048;
/// Items of one batch at most.
const BATCH: usize = 512;
/// From the first item of a batch until it is full, or complete without.
const WAIT: Duration = Duration::from_secs(5);

/// Where items are told.
#[derive(Debug)]
pub struct Sink<T> {
    queue: mpsc::Sender<T>,
    dropped: Counter,
}

/// Where they come out, in batches.
#[derive(Debug)]
pub struct Batches<T> {
    queue: mpsc::Receiver<T>,
    batch: Vec<T>,
    complete: Option<Instant>,
}

/// A queue; `dropped` counts what has no room in it.
pub fn queue<T>(dropped: Counter) -> (Sink<T>, Batches<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let sink = Sink {
        queue: sender,
        dropped,
    };
    let batches = Batches {
        queue: receiver,
        batch: Vec::new(),
        complete: None,
    };
    (sink, batches)
}

impl<T> Sink<T> {
    /// Tells one, unless there is no room.
    pub fn tell(&self, item: T) {
        if self.queue.try_send(item).is_err() {
            self.dropped.inc();
        }
    }
}

impl<T> Batches<T> {
    /// The next batch, once it is full or as old as may be; none once nobody tells any more, or after
    /// [`Batches::close`], and all has been had.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Vec<T>> {
        while self.batch.len() < BATCH {
            let room = BATCH - self.batch.len();
            let got = match self.complete {
                None => self.queue.recv_many(&mut self.batch, room).await,
                Some(at) => {
                    let more = self.queue.recv_many(&mut self.batch, room);
                    match timeout_at(at, more).await {
                        Ok(got) => got,
                        Err(_complete) => break,
                    }
                }
            };
            if got == 0 {
                break;
            }
            self.complete.get_or_insert_with(|| Instant::now() + WAIT);
        }
        self.complete = None;
        let batch = std::mem::take(&mut self.batch);
        (!batch.is_empty()).then_some(batch)
    }

    /// Takes no more: what is there comes out at once.
    pub fn close(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_full_or_old() {
        let (sink, mut batches) = queue(Counter::default());
        let began = Instant::now();
        (0..BATCH + 3).for_each(|n| sink.tell(n));
        let first = batches.next().await.unwrap();
        assert_eq!((first.len(), first[0]), (BATCH, 0));
        assert_eq!(began.elapsed(), Duration::ZERO, "full");
        let second = batches.next().await.unwrap();
        assert_eq!(second, [BATCH, BATCH + 1, BATCH + 2]);
        assert_eq!(began.elapsed(), WAIT, "old");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_future_loses_nothing() {
        let (sink, mut batches) = queue(Counter::default());
        sink.tell(1);
        let half = WAIT / 2;
        assert!(tokio::time::timeout(half, batches.next()).await.is_err());
        let resumed = Instant::now();
        sink.tell(2);
        assert_eq!(batches.next().await.unwrap(), [1, 2]);
        assert_eq!(
            resumed.elapsed(),
            WAIT - half,
            "the first is as old as it is"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_is_counted() {
        let dropped = Counter::default();
        let (sink, mut batches) = queue(dropped.clone());
        (0..QUEUE + 7).for_each(|n| sink.tell(n));
        assert_eq!(dropped.get(), 7);
        let mut had = 0;
        batches.close();
        sink.tell(0);
        assert_eq!(dropped.get(), 8, "closed");
        let began = Instant::now();
        while let Some(batch) = batches.next().await {
            had += batch.len();
        }
        assert_eq!((had, began.elapsed()), (QUEUE, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_those_who_tell() {
        let (sink, mut batches) = queue(Counter::default());
        sink.tell(1);
        drop(sink);
        assert_eq!(batches.next().await.unwrap(), [1]);
        assert!(batches.next().await.is_none());
    }
}
