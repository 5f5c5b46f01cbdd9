//! A name server that treats a name as its last label but one says.
//!
//! | name | what becomes of the question |
//! |---|---|
//! | `*.good.test` | an address, for two seconds |
//! | `*.slow.test` | the same, after a second and a half |
//! | `*.silent.test` | nothing |
//! | `*.number.test` | an answer under another number, and no other |
//! | `*.question.test` | an answer to another question, and no other |
//! | `*.loop.test` | an address of a name that refers to itself |
//! | `*.huge.test` | 9,000 octets behind the question |
//! | `*.many.test` | by UDP that it does not fit, by TCP 4,000 addresses |
//! | any other | that there is no such name |

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lateen::dns::Query;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Where it is.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct NameServer {
    pub(crate) port: u16,
}

impl NameServer {
    pub(crate) async fn serve(self) {
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port));
        let udp = Arc::new(UdpSocket::bind(at).await.unwrap());
        let tcp = TcpListener::bind(at).await.unwrap();
        super::say("\nready");
        let mut tasks = JoinSet::new();
        let mut heard = vec![0; 4096];
        loop {
            tokio::select! {
                Some(_done) = tasks.join_next() => {}
                received = udp.recv_from(&mut heard) => {
                    let (length, from) = received.unwrap();
                    let (asked, udp) = (heard[..length].to_vec(), Arc::clone(&udp));
                    tasks.spawn(async move {
                        if let Some(reply) = reply(&asked, false).await {
                            udp.send_to(&reply, from).await.unwrap();
                        }
                    });
                }
                accepted = tcp.accept() => {
                    let (stream, _from) = accepted.unwrap();
                    tasks.spawn(async move { drop(on_connection(stream).await) });
                }
            }
        }
    }
}

async fn on_connection(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut asked = vec![0; length.into()];
        stream.read_exact(&mut asked).await?;
        if let Some(reply) = reply(&asked, true).await {
            stream
                .write_u16(u16::try_from(reply.len()).unwrap())
                .await?;
            stream.write_all(&reply).await?;
        }
    }
}

/// An address of the name that was asked for.
const ADDRESS: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 2, 0, 4, 192, 0, 2, 7];

async fn reply(asked: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let query = Query::read(asked).ok()?;
    let name = query.question.name.host()?;
    let labels: Vec<&str> = name.split('.').rev().collect();
    let manner = match labels.as_slice() {
        ["test", manner, _, ..] => *manner,
        _ => "none",
    };
    let end = 12 + query.question.name.wire().len() + 4;
    let with = |code: u8, count: u16, records: &[u8]| {
        let mut message = asked[..end].to_vec();
        message[2] |= 0x80;
        message[3] = 0x80 | code;
        for (at, count) in [(6, count), (8, 0), (10, 0)] {
            message[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        message.extend(records);
        message
    };
    Some(match manner {
        "good" => with(0, 1, &ADDRESS),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            with(0, 1, &ADDRESS)
        }
        "silent" => return None,
        "number" => {
            let mut message = with(0, 1, &ADDRESS);
            message[0] ^= 1;
            message
        }
        "question" => {
            let mut message = with(0, 1, &ADDRESS);
            message[13] ^= 1;
            message
        }
        "loop" => {
            let itself = (0xc000 | u16::try_from(end).unwrap()).to_be_bytes();
            with(0, 1, &[&itself[..], &ADDRESS[2..]].concat())
        }
        "huge" => with(0, 1, &[0; 9000]),
        "many" if tcp => with(0, 4000, &ADDRESS.repeat(4000)),
        "many" => {
            let mut message = with(0, 0, &[]);
            message[2] |= 2;
            message
        }
        _ => with(3, 0, &[]),
    })
}
