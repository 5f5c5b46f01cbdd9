//! A DNS server that answers as a test tells it to, on loopback.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What it says to a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Records as text, `owner KIND data ttl`, with `;` between them.
    Records(String),
    /// A code and nothing else.
    Code(u8),
    /// That it does not fit; by TCP it is the records.
    Long(String),
}

impl Reply {
    pub(crate) fn records(text: &str) -> Self {
        Self::Records(text.to_owned())
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap();
        [&[length], label.as_bytes()].concat()
    });
    labels.chain([0]).collect()
}

fn record(text: &str) -> Vec<u8> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [owner, kind, data, life] = words[..] else {
        panic!("{text:?}");
    };
    let (kind, data) = match kind {
        "A" | "AAAA" => match data.parse().unwrap() {
            IpAddr::V4(v4) => (1u16, v4.octets().to_vec()),
            IpAddr::V6(v6) => (28, v6.octets().to_vec()),
        },
        "CNAME" => (5, encoded(data)),
        other => panic!("{other}"),
    };
    let mut record = encoded(owner);
    record.extend(kind.to_be_bytes());
    record.extend(1u16.to_be_bytes());
    record.extend(life.parse::<u32>().unwrap().to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

/// The message that answers a question.
pub(crate) fn reply(asked: &[u8], reply: &Reply) -> Vec<u8> {
    let mut message = asked.to_vec();
    message[2] |= 0x80;
    match reply {
        Reply::Code(code) => message[3] |= code,
        Reply::Long(_) => message[2] |= 2,
        Reply::Records(text) => {
            let texts = text.split(';').map(str::trim).filter(|t| !t.is_empty());
            let records: Vec<_> = texts.map(record).collect();
            let count = u16::try_from(records.len()).unwrap();
            message[6..8].copy_from_slice(&count.to_be_bytes());
            message.extend(records.concat());
        }
    }
    message
}

type Key = (String, &'static str);

/// The server.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    replies: Arc<Mutex<HashMap<Key, Reply>>>,
    asked: Arc<Mutex<Vec<Key>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// One that knows no name.
    pub(crate) async fn new() -> Self {
        // A port that is free for the one may be taken for the other.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let at = udp.local_addr().unwrap();
        let replies = Arc::<Mutex<HashMap<Key, Reply>>>::default();
        let asked = Arc::<Mutex<Vec<Key>>>::default();
        let known = (Arc::clone(&replies), Arc::clone(&asked));
        let mut tasks = JoinSet::new();
        let say = move |message: &[u8]| {
            let key = asked_for(message);
            known.1.lock().unwrap().push(key.clone());
            let known = known.0.lock().unwrap();
            known.get(&key).cloned().unwrap_or(Reply::Code(3))
        };
        let of_udp = say.clone();
        tasks.spawn(async move {
            let mut heard = vec![0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut heard).await.unwrap();
                let asked = &heard[..length];
                let message = reply(asked, &of_udp(asked));
                udp.send_to(&message, from).await.unwrap();
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut tcp, _from) = tcp.accept().await.unwrap();
                let length = tcp.read_u16().await.unwrap();
                let mut asked = vec![0; length.into()];
                tcp.read_exact(&mut asked).await.unwrap();
                let whole = match say(&asked) {
                    Reply::Long(text) => Reply::Records(text),
                    other => other,
                };
                let message = reply(&asked, &whole);
                let length = u16::try_from(message.len()).unwrap();
                tcp.write_u16(length).await.unwrap();
                tcp.write_all(&message).await.unwrap();
            }
        });
        Self {
            at,
            replies,
            asked,
            _tasks: tasks,
        }
    }

    /// From now on it says this of a name and a kind, `A` or `AAAA`.
    pub(crate) fn say(&self, name: &str, kind: &'static str, reply: Reply) {
        let key = (name.to_owned(), kind);
        self.replies.lock().unwrap().insert(key, reply);
    }

    /// How often it was asked for the addresses of a name.
    pub(crate) fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(n, kind)| n == name && *kind == "A")
            .count()
    }
}

fn asked_for(message: &[u8]) -> Key {
    let (mut at, mut labels) = (12, Vec::new());
    while message[at] != 0 {
        let length = usize::from(message[at]);
        labels.push(String::from_utf8(message[at + 1..=at + length].to_vec()).unwrap());
        at += 1 + length;
    }
    let kind = match message[at + 2] {
        1 => "A",
        28 => "AAAA",
        other => panic!("{other}"),
    };
    (labels.join("."), kind)
}
