//! Names for programs of the host itself: a port on loopback, and the host's resolver told of it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::listen::{Listeners, serve};
use super::resolved::{self, Finding, Programs, Resolver};
use super::{Answering, Client, Common, PORT, Servers, Upstream};
use crate::agent::MeshState;
use crate::sys;
use crate::telemetry::access_log::chain;

/// Between attempts.
const RETRY: Duration = Duration::from_secs(5);

/// Whether the host's resolver is told of the mesh's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is left as it is.
    Never,
    /// Where that can be done by program.
    IfPossible,
    /// That it cannot be done is a fault.
    Always,
}

/// The component.
pub(crate) struct Host {
    common: Common,
    listen: SocketAddr,
}

impl Host {
    /// None where programs of the host may not ask.
    pub(crate) fn new(common: &Common) -> Option<Self> {
        let listen = common.settings.listen?;
        let common = common.clone();
        Some(Self { common, listen })
    }

    /// Answers on the port, and has the host's resolver ask there, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::join!(self.answer(&shutdown), self.tell(&shutdown));
    }

    async fn answer(&self, shutdown: &CancellationToken) {
        let mut warned = false;
        loop {
            let failed = match self.listeners() {
                Ok(listeners) => {
                    let own = vec![self.listen, other(self.listen)];
                    let upstream = Upstream::of_host(Servers::of_host(own));
                    let answering = Answering::new(Client::Host, self.common.clone(), upstream);
                    match serve(answering, listeners, shutdown.clone()).await {
                        Ok(()) => return,
                        Err(e) => e,
                    }
                }
                Err(e) => e,
            };
            if !std::mem::replace(&mut warned, true) {
                let address = self.listen;
                warn!(%address, error = %failed, "cannot answer this host's questions for names, trying again");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Where programs may ask, and where captured ones are redirected to: on loopback of both families,
    /// where there are both.
    fn listeners(&self) -> io::Result<Listeners> {
        let mut listeners = Listeners {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for port in BTreeSet::from([self.listen.port(), PORT]) {
            let at = SocketAddr::new(self.listen.ip(), port);
            let mut add = |(udp, tcp)| {
                listeners.udp.push(udp);
                listeners.tcp.push(tcp);
            };
            match bind(at) {
                Ok(bound) => add(bound),
                Err(e) if port == PORT => return Err(e),
                // A port that only the privileged may have, most likely: captured programs need the other.
                Err(e) => {
                    warn!(address = %at, error = %e, "cannot answer questions for names there")
                }
            }
            if let Ok(bound) = bind(other(at)) {
                add(bound);
            }
        }
        Ok(listeners)
    }

    /// Tells the host's resolver which names to ask us for, and takes that back at the end.
    async fn tell(&self, shutdown: &CancellationToken) {
        let told = self.common.settings.told;
        let resolver = Resolver::of_host();
        let by_program = told == Told::Always || resolver == Resolver::Resolved;
        if told == Told::Never {
            return;
        }
        let programs = Programs::default();
        let mut mesh = self.common.mesh.clone();
        let (mut last, mut warned) = (None, false);
        loop {
            let domain = self
                .domain(&mut mesh)
                .filter(|now| last.as_ref() != Some(now));
            match domain {
                Some(domain) if by_program => {
                    match resolved::tell(&programs, &domain, self.listen).await {
                        Ok(()) => {
                            info!(domain, "systemd-resolved asks here for names of the mesh");
                            last = Some(domain);
                        }
                        Err(e) if !std::mem::replace(&mut warned, true) => {
                            let remedy = resolved::by_hand(&domain, self.listen);
                            warn!(
                                error = chain(&e),
                                remedy,
                                "systemd-resolved is not told of the mesh's names, trying again"
                            );
                        }
                        Err(_as_before) => {}
                    }
                }
                Some(domain) => return self.tell_by_hand(resolver, &domain),
                None => {}
            }
            let again = async {
                match last.is_none() {
                    true => tokio::time::sleep(RETRY).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = mesh.changed() => if changed.is_err() { break },
                () = again => {}
            }
        }
        if last.is_some()
            && let Err(e) = resolved::untell(&programs).await
        {
            warn!(
                error = chain(&e),
                "systemd-resolved still asks here for names of the mesh"
            );
        }
    }

    fn tell_by_hand(&self, resolver: Resolver, domain: &str) {
        if let Some(Finding { seen, remedy, .. }) = resolver.finding(domain, self.listen) {
            info!(seen, remedy, "names of the mesh are not known on this host");
        }
    }

    /// The domain of the mesh, once it is known.
    fn domain(&self, mesh: &mut watch::Receiver<Arc<MeshState>>) -> Option<String> {
        let state = mesh.borrow_and_update();
        let known = state.view.size() != (0, 0);
        let domain = state.domain().unwrap_or(&self.common.settings.domain);
        known.then(|| domain.to_owned())
    }
}

fn bind(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
    udp.set_nonblocking(true)?;
    // An older kernel says nothing of marks: then nobody is known by one.
    let _unmarked = sys::tell_marks(udp.as_fd());
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

/// The same port of the other family's loopback.
fn other(at: SocketAddr) -> SocketAddr {
    let ip = match at {
        SocketAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    SocketAddr::new(ip, at.port())
}
