//! Many requests over few connections.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Tally;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests at a steady rate that share a connection: the next may pass another waypoint.
const ON_ONE: usize = 20;

/// The same request many times, as fast as the answers come.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Many {
    pub(crate) to: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) count: usize,
    pub(crate) connections: usize,
}

/// The same request at a steady rate, for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Load {
    pub(crate) request: Many,
    pub(crate) per_second: u64,
    pub(crate) seconds: u64,
}

impl Many {
    /// By whom requests were answered, or how else.
    pub(super) async fn tally(self) -> Tally {
        let tally = Arc::new(Mutex::new(Tally::new()));
        let left = Arc::new(Mutex::new(self.count));
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let (request, tally, left) = (self.clone(), Arc::clone(&tally), Arc::clone(&left));
            connections.spawn(async move {
                let mut connection = Connection::default();
                let next = || {
                    let mut left = left.lock().unwrap();
                    *left = left.checked_sub(1)?;
                    Some(())
                };
                while next().is_some() {
                    let outcome = connection.ask(&request).await;
                    *tally.lock().unwrap().entry(outcome).or_default() += 1;
                }
            });
        }
        while connections.join_next().await.is_some() {}
        std::mem::take(&mut *tally.lock().unwrap())
    }
}

impl Load {
    /// The same; what was not answered well also says when.
    pub(super) async fn tally(self) -> Tally {
        let begun = Instant::now();
        let connections = u64::try_from(self.request.connections).unwrap();
        let period = Duration::from_nanos(1_000_000_000 * connections / self.per_second);
        let end = Duration::from_secs(self.seconds);
        let tally = Arc::new(Mutex::new(Tally::new()));
        let mut tasks = JoinSet::new();
        for number in 0..self.request.connections {
            let (request, tally) = (self.request.clone(), Arc::clone(&tally));
            tasks.spawn(async move {
                let offset =
                    period * u32::try_from(number).unwrap() / u32::try_from(connections).unwrap();
                tokio::time::sleep(offset).await;
                let mut ticks = tokio::time::interval(period);
                let mut connection = Connection::default();
                let mut asked = 0;
                while begun.elapsed() < end {
                    ticks.tick().await;
                    let at = begun.elapsed();
                    let mut outcome = connection.ask(&request).await;
                    if !outcome.starts_with("200 ") {
                        outcome = format!("{outcome} @ {}", at.as_millis());
                    }
                    *tally.lock().unwrap().entry(outcome).or_default() += 1;
                    asked += 1;
                    if asked % ON_ONE == 0 {
                        connection = Connection::default();
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        std::mem::take(&mut *tally.lock().unwrap())
    }
}

/// One to a server, opened again when it has ended.
#[derive(Default)]
struct Connection {
    sender: Option<http1::SendRequest<Full<Bytes>>>,
    driver: JoinSet<()>,
}

impl Connection {
    /// `200 v1` where v1 has answered, the status and the text where somebody else has.
    async fn ask(&mut self, request: &Many) -> String {
        match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            Ok(Ok((status, body))) => {
                let told: Value = serde_json::from_slice(&body).unwrap_or_default();
                let name = told["name"].as_str().map(str::to_owned);
                let text = name.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
                format!("{status} {text}")
            }
            Ok(Err(reason)) => {
                self.sender = None;
                reason
            }
            Err(_elapsed) => {
                self.sender = None;
                "no answer in time".to_owned()
            }
        }
    }

    async fn exchange(&mut self, request: &Many) -> Result<(u16, Bytes), String> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|e| format!("body: {e}"))?;
        Ok((status, body.to_bytes()))
    }

    async fn send(&mut self, request: &Many) -> Result<Response<Incoming>, String> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.open(&request.to).await?,
        };
        if sender.ready().await.is_err() {
            sender = self.open(&request.to).await?;
        }
        let mut made = Request::builder()
            .method(&*request.method)
            .uri(&*request.path)
            .header("host", "echo");
        for (name, value) in &request.headers {
            made = made.header(name, value);
        }
        let made = made.body(Full::from(request.body.clone())).unwrap();
        let response = sender.send_request(made).await;
        self.sender = Some(sender);
        response.map_err(|e| format!("request: {e}"))
    }

    async fn open(&mut self, to: &str) -> Result<http1::SendRequest<Full<Bytes>>, String> {
        let tcp = TcpStream::connect(to).await;
        let tcp = tcp.map_err(|e| format!("connect: {e}"))?;
        let opened = http1::handshake(TokioIo::new(tcp)).await;
        let (sender, driver) = opened.map_err(|e| format!("open: {e}"))?;
        self.driver.abort_all();
        self.driver.spawn(async move {
            // Whoever waits for an answer hears of it.
            let _ended = driver.await;
        });
        Ok(sender)
    }
}
