//! A program that notes what it is asked and answers as planned; and a shop of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, Response, Version};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http::{Text, text};
use crate::model::waypoint::Resources;
use crate::waypoint::testing::Rig;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    /// The body as it came.
    pub(super) octets: Bytes,
}

impl Asked {
    /// The fields of a name, joined.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let fields = self.headers.get_all(name).iter();
        let fields: Vec<_> = fields.map(|v| v.to_str().unwrap()).collect();
        (!fields.is_empty()).then(|| fields.join(","))
    }
}

/// What becomes of one request.
pub(super) enum Plan {
    /// It is answered so.
    Answer(Response<Text>),
    /// It is answered after a while.
    Late(Duration),
    /// Never.
    Never,
    /// It is answered once this is over.
    Until(oneshot::Receiver<()>),
}

/// Answers as planned, then with its name.
#[derive(Clone)]
pub(super) struct Program {
    name: &'static str,
    asked: Arc<Mutex<Vec<Asked>>>,
    plan: Arc<Mutex<VecDeque<Plan>>>,
    gone: CancellationToken,
}

impl Program {
    pub(super) fn named(name: &'static str) -> Self {
        Self {
            name,
            asked: Arc::default(),
            plan: Arc::default(),
            gone: CancellationToken::new(),
        }
    }

    /// Plans what becomes of the next request that has nothing planned.
    pub(super) fn plan(&self, plan: Plan) {
        self.plan.lock().unwrap().push_back(plan);
    }

    /// Plans an answer with a status, which is its text too.
    pub(super) fn answers(&self, status: u16) {
        let answer = Response::builder().status(status);
        self.plan(Plan::Answer(answer.body(text(status.to_string())).unwrap()));
    }

    /// It closes its connections, and answers on no further ones.
    pub(super) fn leaves(&self) {
        self.gone.cancel();
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// What it was asked last.
    pub(super) fn last(&self) -> Asked {
        self.asked().pop().unwrap()
    }

    pub(super) async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _from) = listener.accept().await.unwrap();
            let program = self.clone();
            connections.spawn(async move { program.converse(tcp).await });
        }
    }

    /// Serves one connection.
    pub(super) async fn converse(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let program = self;
        let gone = program.gone.clone();
        let service = service_fn(move |request| {
            let program = program.clone();
            async move { Ok::<_, Infallible>(program.answer(request).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let served = builder.serve_connection(TokioIo::new(io), service);
        let _ended = gone.run_until_cancelled(served).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Text> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            // Whoever asked has given it up.
            return std::future::pending().await;
        };
        let body = body.to_bytes();
        self.asked.lock().unwrap().push(Asked {
            method: head.method,
            version: head.version,
            target: head.uri.path_and_query().unwrap().to_string(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            octets: body,
        });
        let plan = self.plan.lock().unwrap().pop_front();
        match plan {
            Some(Plan::Answer(answer)) => return answer,
            Some(Plan::Late(wait)) => tokio::time::sleep(wait).await,
            Some(Plan::Never) => std::future::pending().await,
            Some(Plan::Until(over)) => drop(over.await),
            None => {}
        }
        Response::new(text(self.name))
    }
}

/// Services `cart`, `v1`, `v2` and `v3`, with an endpoint each, before which a waypoint stands that is
/// told of them.
pub(super) struct Shop {
    pub(super) rig: Rig,
    pub(super) cart: Program,
    pub(super) v1: Program,
    pub(super) v2: Program,
    pub(super) v3: Program,
}

impl Shop {
    pub(super) async fn new(resources: Resources) -> Self {
        let mut rig = Rig::new().await;
        let names = ["cart", "v1", "v2", "v3"];
        let [cart, v1, v2, v3] = names.map(Program::named);
        for (at, program) in [&cart, &v1, &v2, &v3].into_iter().enumerate() {
            if at > 0 {
                rig.add_service(program.name, &format!("10.96.0.{}", 20 + at));
            }
            let (name, address) = (format!("{}-1", program.name), format!("10.1.0.{}", 20 + at));
            let listener = rig.endpoint_of(program.name, &name, &address).await;
            rig.run(program.clone().serve(listener));
        }
        rig.resources = Some(resources);
        rig.publish().await;
        Self {
            rig,
            cart,
            v1,
            v2,
            v3,
        }
    }

    /// Tells the waypoint something else.
    pub(super) async fn tell(&mut self, resources: Resources) {
        self.rig.resources = Some(resources);
        self.rig.publish().await;
    }
}
