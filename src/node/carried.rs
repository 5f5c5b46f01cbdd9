//! A connection whose way is open. It is all that is kept while bytes move: how the way was decided
//! and made is gone by then, and so is the view of the mesh that it was decided by.

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::lane::Stay;
use super::session::Session;
use crate::causes::chain;
use crate::hbone::{self, Tunnel};
use crate::telemetry::Carrier;

/// A program's connection and where it goes on.
pub(super) struct Carried {
    pub(super) session: Box<Session>,
    pub(super) program: TcpStream,
    pub(super) onward: Onward,
}

/// The other side of a relay.
pub(super) enum Onward {
    /// Through a tunnel.
    Tunnel(Tunnel),
    /// As it is.
    Plain(TcpStream),
    /// To a program of this host.
    Guest(Box<Guest>),
}

impl Onward {
    /// What carries it to another host.
    pub(super) fn carrier(&self) -> Carrier {
        match self {
            Self::Tunnel(tunnel) => tunnel.transport().into(),
            Self::Plain(_) | Self::Guest(_) => Carrier::none,
        }
    }
}

/// A connection handed over to another workload of this host.
pub(super) struct Guest {
    /// The server's account of it.
    pub(super) session: Box<Session>,
    pub(super) program: TcpStream,
    pub(super) stay: Stay,
}

impl Carried {
    /// Moves bytes until both directions have ended, or it is let in no more.
    async fn run(self) {
        let Self {
            mut session,
            program,
            onward,
        } = self;
        let traffic = Arc::clone(&session.traffic);
        let relayed = match onward {
            Onward::Tunnel(tunnel) => tokio::select! {
                // First, so that nothing of a connection that is let in no more goes on.
                biased;
                denial = session.over() => return session.denied(&denial),
                relayed = hbone::relay(program, tunnel, &traffic) => relayed,
            },
            Onward::Plain(onward) => tokio::select! {
                biased;
                denial = session.over() => return session.denied(&denial),
                relayed = hbone::relay_tcp(program, onward, &traffic) => relayed,
            },
            Onward::Guest(guest) => {
                let Guest {
                    session: mut theirs,
                    program: server,
                    stay,
                } = *guest;
                // Apart, for it is larger than all that moving bytes takes.
                let over = Box::pin(stay.over());
                let relayed = tokio::select! {
                    biased;
                    // Dropped accounts say that they were cut.
                    () = over => return,
                    denial = theirs.over() => {
                        theirs.denied(&denial);
                        let reason = "the server's policies let it in no more";
                        return session.closed(Some(reason.to_owned()));
                    }
                    relayed = hbone::relay_tcp(program, server, &traffic) => relayed,
                };
                theirs.closed(relayed.as_ref().err().map(|e| chain(e)));
                relayed
            }
        };
        session.closed(relayed.err().map(|e| chain(&e)));
    }
}

/// Opens a way, then moves bytes along it. What opening takes is many times what moving does, and
/// is given back in between.
pub(super) fn carry<'a>(
    opening: impl Future<Output = Option<Carried>> + Send + 'a,
) -> impl Future<Output = ()> + Send + 'a {
    let opening = Box::pin(opening);
    async move {
        if let Some(carried) = opening.await {
            carried.run().await;
        }
    }
}
