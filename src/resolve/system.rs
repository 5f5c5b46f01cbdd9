//! This host's resolver: `/etc/hosts`, then the servers of `/etc/resolv.conf`, by UDP and by TCP where
//! an answer does not fit. Names are whole, so nothing is searched for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Found, Lookup, LookupError};
use crate::dns::{Code, Heard, IN, Kind, Name, Query, Question, Received, ask as question, hear};

/// Longest wait for one server, and how often all are asked (resolv.conf(5) has 5 s and 2).
const WAIT: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Servers that are asked, as resolv.conf(5) has it.
const SERVERS: usize = 3;
/// Largest answer by UDP that is read; servers send no more than 512 octets to who offers no more.
const DATAGRAM: usize = 4096;
/// How long what a file says counts.
const FILE_LIFE: Duration = Duration::from_secs(30);

/// Asks as this host's programs do.
#[derive(Clone, Debug)]
pub struct System {
    hosts: PathBuf,
    servers: Servers,
}

#[derive(Clone, Debug)]
enum Servers {
    /// Those that a file names.
    File(PathBuf),
    #[cfg(test)]
    These(Vec<SocketAddr>),
}

impl Default for System {
    fn default() -> Self {
        Self {
            hosts: PathBuf::from("/etc/hosts"),
            servers: Servers::File(PathBuf::from("/etc/resolv.conf")),
        }
    }
}

impl Lookup for System {
    async fn lookup(&self, name: &str) -> Result<Found, LookupError> {
        let hosts = tokio::fs::read_to_string(&self.hosts).await;
        let listed = in_hosts(&hosts.unwrap_or_default(), name);
        if !listed.is_empty() {
            return Ok(Found {
                addresses: listed,
                life: FILE_LIFE,
            });
        }
        let servers = self.servers().await;
        if servers.is_empty() {
            return Err(LookupError::NoResolver);
        }
        let both = tokio::join!(
            ask_all(&servers, name, Kind::A),
            ask_all(&servers, name, Kind::AAAA),
        );
        joined(both)
    }
}

impl System {
    /// Asks these servers, and reads those hosts.
    #[cfg(test)]
    pub(crate) fn of(servers: &[SocketAddr], hosts: PathBuf) -> Self {
        Self {
            hosts,
            servers: Servers::These(servers.to_vec()),
        }
    }

    async fn servers(&self) -> Vec<SocketAddr> {
        match &self.servers {
            // It changes when a host changes networks.
            Servers::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                nameservers(&text.unwrap_or_default())
            }
            #[cfg(test)]
            Servers::These(these) => these.clone(),
        }
    }
}

/// Both families. That there is none of one is no failure; that one was not answered for is one only
/// where the other has nothing.
fn joined(
    (v4, v6): (Result<Found, LookupError>, Result<Found, LookupError>),
) -> Result<Found, LookupError> {
    match (v4, v6) {
        (Ok(mut v4), Ok(v6)) => {
            v4.addresses.extend(v6.addresses);
            v4.life = v4.life.min(v6.life);
            Ok(v4)
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        (Err(LookupError::NoAddress), Err(e)) | (Err(e), Err(_)) => Err(e),
    }
}

/// The addresses of a name in a file of hosts(5).
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default());
    let named = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    });
    named.collect()
}

/// The servers of a file of resolv.conf(5); without any the one of this host.
pub(crate) fn nameservers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver");
        // A zone, as in fe80::1%eth0, is more than an address can say here.
        let address: IpAddr = address.and_then(|_| words.next())?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    let named: Vec<_> = named.take(SERVERS).collect();
    match named.is_empty() {
        true => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
        false => named,
    }
}

/// Asks one server after another until one knows.
async fn ask_all(servers: &[SocketAddr], name: &str, kind: Kind) -> Result<Found, LookupError> {
    let mut failed = LookupError::Unanswered;
    for server in (0..ROUNDS).flat_map(|_| servers) {
        let asked = timeout(WAIT, ask(*server, name, kind)).await;
        match asked {
            Ok(Ok(Err(e @ (LookupError::Unanswered | LookupError::Unreadable)))) => failed = e,
            Ok(Ok(known)) => return known,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(failed)
}

async fn ask(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Result<Found, LookupError>> {
    let Some(name) = Name::of(name) else {
        return Ok(Err(LookupError::NoAddress));
    };
    let class = IN;
    let query = Query::new(rand::random(), Question { name, kind, class });
    let asked = question(query.id, &query, false);
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, it hears nobody else.
    socket.connect(server).await?;
    socket.send(&asked).await?;
    let mut heard = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut heard).await?;
        let message = heard.get(..length).unwrap_or_default().to_vec();
        match hear(message, query.id, &query.question) {
            Heard::Answer(received) => return Ok(said(&received)),
            Heard::Unreadable => return Ok(Err(LookupError::Unreadable)),
            Heard::Truncated => return at_length(server, &asked, &query).await,
            Heard::Other => {}
        }
    }
}

/// Asks by TCP (RFC 7766).
async fn at_length(
    server: SocketAddr,
    asked: &[u8],
    query: &Query,
) -> io::Result<Result<Found, LookupError>> {
    let mut tcp = TcpStream::connect(server).await?;
    let length = u16::try_from(asked.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes()[..], asked].concat();
    tcp.write_all(&framed).await?;
    let length = tcp.read_u16().await?;
    let mut heard = vec![0; length.into()];
    tcp.read_exact(&mut heard).await?;
    Ok(match hear(heard, query.id, &query.question) {
        Heard::Answer(received) => said(&received),
        Heard::Truncated | Heard::Other | Heard::Unreadable => Err(LookupError::Unreadable),
    })
}

/// What an answer says of the name.
fn said(received: &Received) -> Result<Found, LookupError> {
    match received.code {
        Code::OK => {
            let (addresses, life) = received.addresses().ok_or(LookupError::NoAddress)?;
            Ok(Found { addresses, life })
        }
        Code::NO_NAME => Err(LookupError::NoAddress),
        _ => Err(LookupError::Unanswered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_programs_read_them() {
        let hosts = "127.0.0.1 localhost\n192.0.2.1 a.example A2 # b.example\n#192.0.2.2 a.example\n2001:db8::1\ta.EXAMPLE\nnonsense a.example\n";
        for (name, want) in [
            ("a.example", &["192.0.2.1", "2001:db8::1"][..]),
            ("a2", &["192.0.2.1"]),
            ("b.example", &[]),
            ("192.0.2.1", &[]),
        ] {
            let want: Vec<IpAddr> = want.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(in_hosts(hosts, name), want, "{name}");
        }
        for (text, want) in [
            ("", &["127.0.0.1:53"][..]),
            ("search x\n# nameserver 192.0.2.9\n", &["127.0.0.1:53"]),
            (
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver x\n",
                &["192.0.2.1:53", "[2001:db8::1]:53"],
            ),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n",
                &["1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"],
            ),
        ] {
            let want: Vec<SocketAddr> = want.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(nameservers(text), want, "{text:?}");
        }
    }
}
