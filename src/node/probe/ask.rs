//! One question to one workload, and what counts as an answer (`spec/control-plane.md` §7.1).
//!
//! It is asked from inside the workload's own network, at the address its peers use, so that
//! nothing lies between it and the program. The sockets are the data path's: the capture rules let
//! them be.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::exec;
use crate::capture::{AttachError, ConnectError, Place, Sockets, Target};
use crate::causes::chain;
use crate::model::declaration::Probe;

/// Largest head of an HTTP answer.
const HEAD: usize = 16 << 10;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether its network namespace is there, or on this host's own network anything of it.
    Existence,
    /// What its `health` table says.
    Probe(Probe),
}

/// Why a workload did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// A stable word for it.
    pub(super) code: &'static str,
    /// The same for people.
    pub(super) detail: String,
    /// Whose fault it is.
    pub(super) side: Side,
}

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The workload did not answer as it should.
    Workload,
    /// The node could not ask, which says nothing of the workload.
    Node,
}

impl Failure {
    /// The workload's.
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let (detail, side) = (detail.into(), Side::Workload);
        Self { code, detail, side }
    }

    /// The node's own.
    pub(super) fn of_node(code: &'static str, detail: impl Into<String>) -> Self {
        let side = Side::Node;
        Self {
            side,
            ..Self::new(code, detail)
        }
    }
}

/// Asks one workload one question.
pub(super) struct Asker {
    /// Its network namespace; none for the host's.
    pub(super) netns: Option<Arc<str>>,
    /// What knows whether it is there, of one on this host's own network.
    pub(super) presence: Option<Presence>,
    /// Where it answers.
    pub(super) address: Option<IpAddr>,
    pub(super) question: Question,
    /// Longest wait for the answer.
    pub(super) timeout: Duration,
    pub(super) sockets: Sockets,
    /// Shared by all who run commands.
    pub(super) commands: Arc<Semaphore>,
}

/// Tells whether anything of a workload runs on this host's own network.
pub(super) struct Presence {
    pub(super) uid: Arc<str>,
    /// Those of whom nothing does.
    pub(super) absent: watch::Receiver<BTreeSet<Arc<str>>>,
}

impl Presence {
    fn ask(&self) -> Result<(), Failure> {
        match self.absent.borrow().contains(&self.uid) {
            true => {
                let detail = "its unit does not run, or its interface is not there";
                Err(Failure::new("not-running", detail))
            }
            false => Ok(()),
        }
    }
}

impl Asker {
    /// Asks once.
    ///
    /// # Cancel safety
    /// Dropping the future ends the question; a command that it had started is killed.
    pub(super) async fn ask(&self) -> Result<(), Failure> {
        if let (Question::Existence, Some(presence)) = (&self.question, &self.presence) {
            return presence.ask();
        }
        let place = self.place().await?;
        let probe = match &self.question {
            Question::Existence => return Ok(()),
            Question::Probe(probe) => probe,
        };
        match probe {
            Probe::Tcp { port } => {
                let connect = self.connect(&place, *port);
                self.in_time(connect).await.map(drop)
            }
            Probe::Http { path, port } => {
                let asking = async {
                    let stream = self.connect(&place, *port).await?;
                    let host = SocketAddr::new(self.address()?, *port).to_string();
                    get(stream, &host, path).await
                };
                self.in_time(asking).await
            }
            Probe::Exec { command } => {
                // Waiting for a turn is not the command's fault.
                let turn = self.commands.acquire().await;
                let _turn = turn.map_err(|e| Failure::of_node("exec-failed", e.to_string()))?;
                exec::run(&self.sockets, &place, command, self.timeout).await
            }
        }
    }

    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(result) => result,
            Err(_elapsed) => Err(timed_out(self.timeout)),
        }
    }

    async fn place(&self) -> Result<Place, Failure> {
        let Some(name) = &self.netns else {
            let here = self.sockets.host().await;
            return here.map_err(|e| Failure::of_node("netns-unusable", chain(&e)));
        };
        let attached = self.sockets.attach(&Target::Netns(Arc::clone(name))).await;
        attached.map_err(|e| match e {
            AttachError::Missing { .. } => Failure::new("netns-missing", e.to_string()),
            other => Failure::of_node("netns-unusable", chain(&other)),
        })
    }

    fn address(&self) -> Result<IpAddr, Failure> {
        let missing = || Failure::of_node("no-address", "the mesh as last heard does not have it");
        self.address.ok_or_else(missing)
    }

    async fn connect(&self, place: &Place, port: u16) -> Result<TcpStream, Failure> {
        let to = SocketAddr::new(self.address()?, port);
        let connected = self.sockets.connect(place, to, None).await;
        connected.map_err(|e| unconnected(&e))
    }
}

fn unconnected(error: &ConnectError) -> Failure {
    let detail = chain(error);
    match error {
        ConnectError::TimedOut { .. } => Failure::new("timeout", detail),
        ConnectError::Refused { .. } => Failure::new("refused", detail),
        ConnectError::Unreachable { .. } => Failure::new("unreachable", detail),
        ConnectError::Local { .. } => Failure::of_node("connect-failed", detail),
    }
}

pub(super) fn timed_out(after: Duration) -> Failure {
    let after = after.as_millis();
    Failure::new("timeout", format!("no answer within {after} ms"))
}

async fn get(stream: TcpStream, host: &str, path: &str) -> Result<(), Failure> {
    let broken = |e: hyper::Error| Failure::new("http-broken", chain(&e));
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("lateen/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| Failure::new("http-path", e.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::select! {
        answer = sender.send_request(request) => judge(&answer.map_err(broken)?),
        // It ends in order once it has handed on the answer.
        Err(e) = connection => Err(broken(e)),
    }
}

/// 2xx and 3xx pass: a redirect is a sign of life, and is not followed.
fn judge(answer: &Response<Incoming>) -> Result<(), Failure> {
    let status = answer.status();
    match status.is_success() || status.is_redirection() {
        true => Ok(()),
        false => Err(Failure::new("http-status", format!("answered {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;
    use crate::capture::Exemption;

    /// Asks a server that answers with `answer` and closes.
    async fn answered(answer: String) -> (Result<(), Failure>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            // A client that has heard enough may be gone already.
            let _gone = stream.write_all(answer.as_bytes()).await;
            String::from_utf8(request[..read].to_vec()).unwrap()
        });
        let stream = TcpStream::connect(to).await.unwrap();
        let result = get(stream, "10.0.0.1:80", "/healthz?x=1").await;
        (result, server.join_next().await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn http_answers() {
        let long = "x".repeat(HEAD);
        for (name, answer, want) in [
            ("200", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
            ("204", "HTTP/1.1 204 No Content\r\n\r\n", None),
            (
                "301, not followed",
                "HTTP/1.1 301 Moved\r\nlocation: http://192.0.2.1/\r\n\r\n",
                None,
            ),
            ("399", "HTTP/1.1 399 Odd\r\n\r\n", None),
            (
                "an endless body",
                "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\nx",
                None,
            ),
            ("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", None),
            ("404", "HTTP/1.1 404 Not Found\r\n\r\n", Some("http-status")),
            ("503", "HTTP/1.1 503 Busy\r\n\r\n", Some("http-status")),
            (
                "another language",
                "SSH-2.0-OpenSSH\r\n",
                Some("http-broken"),
            ),
            ("nothing", "", Some("http-broken")),
            ("cut short", "HTTP/1.1 200 OK\r\n", Some("http-broken")),
            (
                "too long",
                &format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"),
                Some("http-broken"),
            ),
        ] {
            let (result, asked) = answered(answer.to_owned()).await;
            assert_eq!(result.err().map(|f| f.code), want, "{name}");
            assert!(
                asked.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"),
                "{asked}"
            );
            assert!(asked.contains("host: 10.0.0.1:80\r\n"), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_namespace_that_is_gone_fails_its_workload() {
        let ask = |netns: &str| Asker {
            netns: Some(Arc::from(netns)),
            presence: None,
            address: None,
            question: Question::Existence,
            timeout: Duration::from_secs(1),
            sockets: Sockets::own(Exemption::Mark),
            commands: Arc::new(Semaphore::new(1)),
        };
        let missing = ask("lateen-no-such").ask().await.unwrap_err();
        assert_eq!(
            (missing.code, missing.side),
            ("netns-missing", Side::Workload)
        );
        let odd = ask("/etc/passwd").ask().await.unwrap_err();
        assert_eq!((odd.code, odd.side), ("netns-unusable", Side::Node));
        assert_eq!(ask("/proc/self/ns/net").ask().await, Ok(()));
    }

    #[tokio::test]
    async fn one_of_which_nothing_runs_fails() {
        let (absent, seen) = watch::channel(BTreeSet::new());
        let presence = Presence {
            uid: Arc::from("cart"),
            absent: seen,
        };
        let asker = Asker {
            netns: None,
            presence: Some(presence),
            address: None,
            question: Question::Existence,
            timeout: Duration::from_secs(1),
            sockets: Sockets::own(Exemption::Mark),
            commands: Arc::new(Semaphore::new(1)),
        };
        for (name, gone, want) in [
            ("all are there", &[][..], None),
            ("another is not", &["web"], None),
            ("it is not", &["cart", "web"], Some("not-running")),
        ] {
            absent.send_replace(gone.iter().map(|uid| Arc::from(*uid)).collect());
            let failure = asker.ask().await.err();
            assert_eq!(failure.map(|f| f.code), want, "{name}");
        }
    }

    #[test]
    fn what_the_node_cannot_do_is_not_the_workloads_fault() {
        let to = SocketAddr::from(([10, 0, 0, 1], 80));
        let source = || std::io::Error::from_raw_os_error(24);
        for (error, want) in [
            (ConnectError::TimedOut { to }, ("timeout", Side::Workload)),
            (ConnectError::Refused { to }, ("refused", Side::Workload)),
            (
                ConnectError::Unreachable {
                    to,
                    source: source(),
                },
                ("unreachable", Side::Workload),
            ),
            (
                ConnectError::Local {
                    to,
                    source: source(),
                },
                ("connect-failed", Side::Node),
            ),
        ] {
            let failure = unconnected(&error);
            assert_eq!((failure.code, failure.side), want, "{error}");
        }
    }
}
