//! Names for programs of the host itself: a port on loopback, and the host's resolver told of it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::listen::{Listeners, serve};
use super::resolved::{self, Finding, Programs, Resolver};
use super::{Answering, Client, Common, PORT, Servers, Upstream};
use crate::agent::MeshState;
use crate::capture::{Place, Sockets};
use crate::causes::chain;
use crate::sys;

/// Between attempts to have the ports, and to tell the resolver.
const AGAIN: Duration = Duration::from_millis(500);
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
    sockets: Sockets,
    listen: SocketAddr,
}

impl Host {
    /// None where programs of the host may not ask.
    pub(crate) fn new(common: &Common, sockets: &Sockets) -> Option<Self> {
        let listen = common.settings.listen?;
        Some(Self {
            common: common.clone(),
            sockets: sockets.clone(),
            listen,
        })
    }

    /// Answers on the port, and has the host's resolver ask there, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (answers, answered) = watch::channel(false);
        let stop = CancellationToken::new();
        // Whoever has the port is asked: the resolver is told after it is ours, and untold while it is.
        let told = async {
            self.tell(&shutdown, answered).await;
            shutdown.cancelled().await;
            stop.cancel();
        };
        tokio::join!(self.answer(&stop, &answers), told);
    }

    async fn answer(&self, shutdown: &CancellationToken, answers: &watch::Sender<bool>) {
        let mut warned = false;
        loop {
            let failed = match self.listeners().await {
                Ok(listeners) => {
                    answers.send_replace(true);
                    if std::mem::take(&mut warned) {
                        info!(address = %self.listen, "this host's questions for names are answered");
                    }
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
                let taken = failed.kind() == io::ErrorKind::AddrInUse;
                let remedy =
                    "stop the program that has the port: `ss -lnup` and `ss -lntp` name it";
                warn!(
                    error = %failed,
                    remedy = taken.then_some(remedy),
                    "cannot answer this host's questions for names, trying again"
                );
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Where programs may ask, and where captured ones are redirected to: on loopback of both families,
    /// where there are both.
    ///
    /// # Errors
    /// Where somebody else has a port that captured programs are redirected to: he would answer them.
    async fn listeners(&self) -> io::Result<Listeners> {
        let place = self.sockets.host().await?;
        let mut listeners = Listeners {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for at in places(self.listen) {
            match self.bind(&place, at).await {
                Ok((udp, tcp)) => {
                    listeners.udp.push(udp);
                    listeners.tcp.push(tcp);
                }
                // There is nobody who asks by it.
                Err(e) if is_no_family(&e) => {}
                Err(e) if REDIRECTED.contains(&at) => {
                    return Err(io::Error::new(e.kind(), format!("{at}: {e}")));
                }
                // A port that only the privileged may have, most likely: captured programs need the other.
                Err(e) => {
                    warn!(address = %at, error = %e, "cannot answer questions for names there")
                }
            }
        }
        match listeners.udp.is_empty() {
            true => Err(io::ErrorKind::AddrNotAvailable.into()),
            false => Ok(listeners),
        }
    }

    /// Both kinds of sockets at one address. Datagrams of captured programs are let through to one that
    /// bears the proxy's mark, which not everybody can have.
    async fn bind(&self, place: &Place, at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
        let udp = match REDIRECTED.contains(&at) {
            true => match self.sockets.listen_udp(place, at).await {
                // Without powers there is nobody who is captured either.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => UdpSocket::bind(at)?,
                bound => bound?,
            },
            false => UdpSocket::bind(at)?,
        };
        udp.set_nonblocking(true)?;
        if let Err(e) = sys::tell_marks(udp.as_fd())
            && REDIRECTED.contains(&at)
        {
            warn!(
                address = %at,
                error = %e,
                remedy = "run Linux 5.19 or newer",
                "the kernel does not tell whose a question for a name is: captured units and users are answered as the host's other programs"
            );
        }
        let tcp = TcpListener::bind(at)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    }

    /// Tells the host's resolver which names to ask us for, and takes that back at the end.
    async fn tell(&self, shutdown: &CancellationToken, mut answered: watch::Receiver<bool>) {
        let told = self.common.settings.told;
        let resolver = Resolver::of_host();
        let by_program = told == Told::Always || resolver == Resolver::Resolved;
        if told == Told::Never {
            return;
        }
        let answered = answered.wait_for(|answered| *answered);
        if !matches!(shutdown.run_until_cancelled(answered).await, Some(Ok(_))) {
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
        let domain = state.domain().unwrap_or(&self.common.settings.domain);
        state.is_heard().then(|| domain.to_owned())
    }
}

/// Where the questions of captured programs arrive.
const REDIRECTED: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), PORT),
];

/// Where questions are answered, each place once.
fn places(listen: SocketAddr) -> BTreeSet<SocketAddr> {
    let asked = [listen, other(listen)].into_iter();
    asked.chain(REDIRECTED).collect()
}

/// Whether the host has no such family, or no address of it.
fn is_no_family(error: &io::Error) -> bool {
    let unsupported = error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error());
    unsupported || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// The same port of the other family's loopback.
fn other(at: SocketAddr) -> SocketAddr {
    let ip = match at {
        SocketAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    SocketAddr::new(ip, at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_programs_are_answered_wherever_others_ask() {
        for (listen, want) in [
            ("127.0.0.1:15053", &["127.0.0.1:15053", "[::1]:15053"][..]),
            (
                "127.0.0.1:53",
                &["127.0.0.1:53", "127.0.0.1:15053", "[::1]:53", "[::1]:15053"],
            ),
            (
                "127.0.0.2:15053",
                &["127.0.0.1:15053", "127.0.0.2:15053", "[::1]:15053"],
            ),
            ("[::1]:15053", &["127.0.0.1:15053", "[::1]:15053"]),
        ] {
            let places = places(listen.parse().unwrap());
            let places: Vec<_> = places.iter().map(SocketAddr::to_string).collect();
            assert_eq!(places, want, "{listen}");
        }
    }
}
