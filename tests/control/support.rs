//! A control plane on loopback, in a directory of its own, and a client of it.

use std::fmt::Debug;
use std::fs::{self, File};
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use lateen::admin::client::{AskError, ask};
use lateen::dial::connect;
use lateen::status::token::{TokenAsk, TokenLine};
use lateen::status::{ControlStatus, Status as LateenStatus};
use lateen::tls::{Roots, Trust, control_client};
use lateen::wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen::wire::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The binary under test.
pub(crate) const LATEEN: &str = env!("CARGO_BIN_EXE_lateen");
/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done` holds; fails with what was last seen.
pub(crate) async fn eventually<T, E, F>(what: &str, mut done: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match done().await {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(Instant::now() < deadline, "{what}: last seen {last:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port that stays its own while nobody listens there: the kernel deals out none so low, neither to
/// who connects nor to who asks for any.
fn port() -> u16 {
    const FIRST: u16 = 15_100;
    static NEXT: AtomicU16 = AtomicU16::new(FIRST);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 20_000, "no port is free from {FIRST} on");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The directories and ports of one control plane, whether it runs or not.
pub(crate) struct Site {
    dir: TempDir,
    port: u16,
    metrics: u16,
    /// Where its state is, as this process can reach it.
    pub(crate) state: PathBuf,
}

/// A running control plane. Dropping it is kill -9.
pub(crate) struct Running(Child);

impl Site {
    /// A site whose mesh is [`mesh`] of serial 1.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Self::with_state(dir, &state, state.clone())
    }

    /// The same, with its state at `inside`, which this process sees as `seen`.
    pub(crate) fn with_state(dir: TempDir, inside: &Path, seen: PathBuf) -> Self {
        let [port, metrics] = [port(), port()];
        let site = Self {
            dir,
            port,
            metrics,
            state: seen,
        };
        fs::create_dir(site.mesh_dir()).unwrap();
        let text = format!(
            "node = \"control\"\nstate-dir = \"{}\"\nruntime-dir = \"{}\"\ndrain-deadline = \"1s\"\n\
             [listen]\nmetrics = \"127.0.0.1:{metrics}\"\nreadiness = \"127.0.0.1:0\"\n\
             [control]\nlisten = \"127.0.0.1:{port}\"\nmesh-dir = \"{}\"\n",
            inside.display(),
            site.path("run").display(),
            site.mesh_dir().display(),
        );
        fs::write(site.config(), text).unwrap();
        site.write_mesh("mesh.toml", &mesh(1));
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("lateen.toml")
    }

    fn mesh_dir(&self) -> PathBuf {
        self.path("mesh")
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Replaces a mesh file as an editor does.
    pub(crate) fn write_mesh(&self, name: &str, text: &str) {
        let aside = self.mesh_dir().join(format!(".{name}.swp"));
        fs::write(&aside, text).unwrap();
        fs::rename(&aside, self.mesh_dir().join(name)).unwrap();
    }

    pub(crate) fn remove_mesh(&self, name: &str) {
        fs::remove_file(self.mesh_dir().join(name)).unwrap();
    }

    /// Starts the control role.
    pub(crate) fn start(&self) -> Running {
        let mut command = Command::new(LATEEN);
        command.args(["run", "--control", "--config"]);
        self.spawn(command.arg(self.config()))
    }

    /// Starts it by another command.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        let log = self.path("log");
        let log = File::options().create(true).append(true).open(log);
        let log = log.unwrap();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Running(command.stderr(log).spawn().unwrap())
    }

    /// What it has logged in all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The end of what it has logged, where the reason of an end is.
    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Waits until it has logged something, which it does a moment after it was done.
    pub(crate) async fn logged(&self, what: &str, done: impl Fn(&str) -> bool) {
        eventually(what, || {
            let log = self.log();
            async { if done(&log) { Ok(()) } else { Err(log) } }
        })
        .await;
    }

    /// Asks over the admin socket.
    pub(crate) async fn ask(
        &self,
        method: Method,
        page: &str,
        body: String,
    ) -> Result<String, AskError> {
        ask(&self.path("run/admin.sock"), method, page, body).await
    }

    /// The value of a metric, by its name with its labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.metrics)).await;
        let mut stream = stream.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = lines.find(|(key, _)| *key == name)?;
        value.parse().ok()
    }

    pub(crate) async fn status(&self) -> Result<ControlStatus, String> {
        let asked = self.ask(Method::GET, "/status", String::new()).await;
        let text = asked.map_err(|e| e.to_string())?;
        let status: LateenStatus = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        status.control.ok_or_else(|| "no control role".to_owned())
    }

    /// Waits until it serves a revision; fails when it ends instead.
    pub(crate) async fn up(&self, running: &mut Running) -> ControlStatus {
        eventually("a first revision", || {
            assert!(running.is_alive(), "it ended:\n{}", self.last_lines());
            async {
                let status = self.status().await?;
                match status.revision {
                    Some(_) => Ok(status),
                    None => Err(format!("{status:?}")),
                }
            }
        })
        .await
    }

    /// The text of a new token: for joining, or a bearer.
    pub(crate) async fn token(&self, bearer: bool, ask: &TokenAsk) -> Result<String, AskError> {
        let page = if bearer { "/tokens/node" } else { "/tokens" };
        let body = serde_json::to_string(ask).unwrap();
        self.ask(Method::POST, page, body).await
    }

    /// `lateen join` of a machine with a state directory of its own.
    pub(crate) fn join(&self, node: &str, token: &str) -> Output {
        let (config, file) = (self.path("node.toml"), self.path("node.token"));
        let text = format!(
            "node = \"{node}\"\nstate-dir = \"{}\"\n",
            self.path(node).display()
        );
        fs::write(&config, text).unwrap();
        fs::write(&file, token).unwrap();
        let mut command = Command::new(LATEEN);
        command
            .args(["join", &self.url(), "--token-file"])
            .arg(file);
        command.arg("--config").arg(config).output().unwrap()
    }

    /// A bearer token of `edge-1` for a day.
    pub(crate) async fn bearer(&self) -> String {
        self.token(true, &token_for("edge-1")).await.unwrap()
    }

    pub(crate) async fn tokens(&self) -> Vec<TokenLine> {
        let text = self.ask(Method::GET, "/tokens", String::new()).await;
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    /// A connection to its port, without a certificate.
    pub(crate) async fn channel(&self) -> Result<Channel, String> {
        let root = fs::read(self.state.join("control/ca/root.pem")).map_err(|e| e.to_string())?;
        let roots = Roots::from_pem(&root).map_err(|e| e.to_string())?;
        let trust = Trust::of_roots(Arc::new(roots)).map_err(|e| e.to_string())?;
        let tls = control_client(None, trust).map_err(|e| e.to_string())?;
        connect(&self.url(), tls).await.map_err(|e| e.to_string())
    }

    /// A discovery stream with a bearer token.
    pub(crate) async fn stream(&self, bearer: &str) -> Result<Delta, Status> {
        let channel = self.channel().await.map_err(Status::unavailable)?;
        Delta::open(channel, bearer).await
    }
}

pub(crate) fn token_for(node: &str) -> TokenAsk {
    TokenAsk {
        node: node.to_owned(),
        ttl: None,
        replace: false,
    }
}

/// A mesh of two nodes that says which edit it is.
pub(crate) fn mesh(serial: u64) -> String {
    format!(
        "default-namespace = \"shop\"\n[mesh]\nserial = {serial}\n\
         [[node]]\nname = \"edge-1\"\n[[node]]\nname = \"edge-2\"\n\
         [[namespace]]\nname = \"shop\"\n\
         [[workload]]\nname = \"cart-1\"\nservice-account = \"cart\"\nnode = \"edge-1\"\n\
         addresses = [\"10.1.0.11\"]\nlabels = {{ app = \"cart\" }}\ncapacity = {}\n\
         [[service]]\nname = \"cart\"\nports = [{{ port = 80, target-port = 8080 }}]\n\
         selector = {{ app = \"cart\" }}\n",
        1 + serial % 1_000,
    )
}

/// Serial and number of `<epoch>/<serial>/<number>`.
pub(crate) fn version(info: &str) -> (u64, u64) {
    let mut parts = info.split('/').skip(1).map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

impl Running {
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        eventually("it ends", || {
            let ended = self.0.try_wait().unwrap();
            async move { ended.ok_or("it runs") }
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// One discovery stream.
pub(crate) struct Delta {
    pub(crate) requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    pub(crate) async fn open(channel: Channel, bearer: &str) -> Result<Self, Status> {
        let (requests, sent) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(sent));
        if !bearer.is_empty() {
            let value = format!("Bearer {bearer}").parse();
            let value = value.map_err(|_odd| Status::internal("an odd token"))?;
            request.metadata_mut().insert("authorization", value);
        }
        let client = AggregatedDiscoveryServiceClient::new(channel);
        let mut client = client.max_decoding_message_size(200 << 20);
        let opened = client.delta_aggregated_resources(request).await?;
        Ok(Self {
            requests,
            responses: opened.into_inner(),
        })
    }

    /// Asks for everything of a type.
    pub(crate) async fn ask(&self, type_url: &str) {
        self.send(DeltaDiscoveryRequest {
            node: Some(Node {
                id: "lateen~test".to_owned(),
                ..Node::default()
            }),
            type_url: type_url.to_owned(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    /// A stream that has ended tells why when it is read.
    pub(crate) async fn send(&self, request: DeltaDiscoveryRequest) {
        let _ended = self.requests.send(request).await;
    }

    /// The next response, acknowledged.
    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = self.responses.message().await?;
        let response = response.expect("a stream never ends OK");
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
        Ok(response)
    }
}
