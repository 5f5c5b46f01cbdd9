//! What a proxy asks for datagrams: sockets, and which are captured.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use super::Session;
use crate::capture::kept::protocol::{Family, Fault, PlaceId, Taken};

/// Destinations and ports of a workload's datagrams: more than a mesh has.
pub(super) const MOST: usize = 65_536;

impl Session {
    pub(super) async fn listen_tunnels_udp(&self, id: PlaceId) -> Result<OwnedFd, Fault> {
        let place = self.place(id)?;
        let socket = self.holdings.sockets().listen_tunnels_udp(place).await?;
        Ok(socket.into())
    }

    pub(super) async fn capture_udp(&mut self, id: PlaceId) -> Result<Vec<OwnedFd>, Fault> {
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        let captured = self.holdings.capture_udp(&held.place).await?;
        let copies = [&captured.outbound, &captured.inbound].map(UdpSocket::try_clone);
        held.captured = Some(captured);
        let copies = copies.into_iter().map(|copy| Ok(copy?.into()));
        copies.collect()
    }

    pub(super) async fn answer_udp(&self, id: PlaceId, from: SocketAddr) -> Result<OwnedFd, Fault> {
        let ip = from.ip();
        if from.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err(Fault::told(format!("nobody was asked at {from}")));
        }
        let place = self.place(id)?;
        let socket = self.holdings.sockets().answer_udp(place, from).await?;
        Ok(socket.into())
    }

    pub(super) fn speak_udp(&self, id: PlaceId, family: Family) -> Result<OwnedFd, Fault> {
        let place = self.place(id)?;
        Ok(self.holdings.sockets().speaker(place, family)?.into())
    }

    pub(super) fn datagrams(
        &mut self,
        id: PlaceId,
        some: Vec<Taken>,
        first: bool,
        more: bool,
    ) -> Result<(), Fault> {
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        if let Some(host) = &mut held.host {
            return match host.datagrams.take(some, first, more)? {
                Some(all) => host.hosting.capture(Taken::read(&all)),
                None => Ok(()),
            };
        }
        let rules = held
            .rules
            .as_mut()
            .ok_or_else(|| Fault::told("no rules are kept for this place"))?;
        match rules.coming.take(some, first, more)? {
            Some(all) => rules.holder.capture(Taken::read(&all)),
            None => Ok(()),
        }
    }
}
