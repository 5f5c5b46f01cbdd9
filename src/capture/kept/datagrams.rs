//! Datagrams of a workload's own network: the keeper is told which come to the proxy, and opens the
//! sockets for them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::protocol::{Family, Fault, PlaceId, Taken, Verb, pieces};
use super::{KeptPlace, PATIENCE, Unkept, held};
use crate::capture::reconcile::State;
use crate::capture::ruleset::{Datagrams, WantedDatagrams};
use crate::causes::chain;

/// Between attempts while a keeper does not take what it is told.
const RETRY: Duration = Duration::from_millis(500);

fn told(place: PlaceId, datagrams: &Datagrams) -> Vec<Verb> {
    let pieces = pieces(Taken::all(datagrams));
    let last = pieces.len().saturating_sub(1);
    let numbered = pieces.into_iter().enumerate();
    let verbs = numbered.map(|(at, datagrams)| Verb::Datagrams {
        place,
        datagrams,
        first: at == 0,
        more: at < last,
    });
    verbs.collect()
}

impl KeptPlace {
    /// As [`Self::keep`], with datagrams, of which [`Self::tell_datagrams`] tells.
    pub(in crate::capture) async fn keep_udp(
        &self,
        dns: bool,
    ) -> io::Result<watch::Receiver<State>> {
        self.udp.store(true, Ordering::Release);
        let kept = self.keep(dns).await;
        if kept.is_err() {
            self.udp.store(false, Ordering::Release);
        }
        kept
    }

    /// The questions by which another keeper learns which datagrams come to the proxy.
    pub(super) fn datagrams_again(&self) -> Vec<Verb> {
        let wanted = held(&self.datagrams).clone();
        wanted.map_or_else(Vec::new, |wanted| told(self.id, &wanted))
    }

    /// Tells the keeper which datagrams come to the proxy, whenever they are others, for ever, and again
    /// until it has taken them.
    pub(in crate::capture) async fn tell_datagrams(
        &self,
        mut datagrams: watch::Receiver<WantedDatagrams>,
    ) {
        let mut said = false;
        loop {
            let now = datagrams.borrow_and_update().clone();
            let taken = self.told_datagrams(now).await;
            if let Err(e) = &taken
                && !said
            {
                warn!(
                    place = self.name(),
                    error = chain(e),
                    "the keeper was not told which datagrams to capture, trying again"
                );
            }
            said = taken.is_err();
            tokio::select! {
                Ok(()) = datagrams.changed() => {}
                () = sleep(RETRY), if said => {}
                else => std::future::pending().await,
            }
        }
    }

    async fn told_datagrams(&self, wanted: WantedDatagrams) -> Result<(), Unkept> {
        let Some(wanted) = wanted else {
            return Ok(());
        };
        *held(&self.datagrams) = Some(Arc::clone(&wanted));
        for verb in told(self.id, &wanted) {
            self.ask(verb, PATIENCE).await?;
        }
        Ok(())
    }

    pub(in crate::capture) async fn listen_tunnels_udp(&self) -> io::Result<OwnedFd> {
        self.one(Verb::ListenTunnelsUdp { place: self.id }).await
    }

    pub(in crate::capture) async fn capture_udp(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let asked = self.ask(Verb::CaptureUdp { place: self.id }, PATIENCE);
        let (_answer, sockets) = asked.await?;
        let two = <[OwnedFd; 2]>::try_from(sockets);
        let [outbound, inbound] = two.map_err(|_others| Unkept::from(Fault::unexpected()))?;
        Ok((outbound.into(), inbound.into()))
    }

    pub(in crate::capture) async fn answer_udp(&self, from: SocketAddr) -> io::Result<OwnedFd> {
        let place = self.id;
        self.one(Verb::AnswerUdp { place, from }).await
    }

    /// A marked datagram socket that may bear any address and is neither bound nor connected.
    pub(in crate::capture) async fn speaker(&self, family: Family) -> io::Result<OwnedFd> {
        let place = self.id;
        self.one(Verb::SpeakUdp { place, family }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_told_in_pieces() {
        for count in [0, 1, 5000] {
            let port = |n: u16| SocketAddr::new([10, 0, 0, 1].into(), n + 1);
            let datagrams = Datagrams {
                destinations: (0..count).map(port).collect(),
                ports: [514].into(),
            };
            let mut all = Vec::new();
            let verbs = told(1, &datagrams);
            let last = verbs.len() - 1;
            for (at, verb) in verbs.into_iter().enumerate() {
                let Verb::Datagrams {
                    datagrams,
                    first,
                    more,
                    ..
                } = verb
                else {
                    panic!("{verb:?}");
                };
                assert_eq!((first, more), (at == 0, at < last), "{count}");
                all.extend(datagrams);
            }
            assert_eq!(Taken::read(&all), datagrams, "{count}");
        }
    }
}
