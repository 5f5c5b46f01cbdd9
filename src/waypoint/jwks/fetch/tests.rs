use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::resolve::testing::{Reply, Server};
use crate::resolve::{self, System};
use crate::tls::testing::TestCa;
use crate::waypoint::testing::Mapped;
use crate::waypoint::tests::secure::certified;

const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIuaKvVLlA"}]}"#;

/// A server that answers every request alike, and what it was asked.
struct Website {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Website {
    async fn saying(pages: Vec<(&'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&asked);
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let page = request.split(' ').nth(1).unwrap_or_default();
                let page = pages.iter().find(|(path, _)| *path == page);
                let answer = page.map_or("HTTP/1.1 404 No\r\n\r\n", |(_, answer)| answer);
                seen.lock().unwrap().push(request.clone());
                // Who has heard enough may be gone.
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self {
            at,
            asked,
            _tasks: tasks,
        }
    }
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Who asks, and whom for names.
struct Asking {
    connector: Mapped,
    resolver: Server,
    names: Names,
    materials: Materials,
    _tasks: JoinSet<()>,
}

impl Asking {
    async fn new() -> Self {
        let resolver = Server::new().await;
        let system = System::of(&[resolver.at], std::path::PathBuf::new());
        let (names, refresher) = resolve::names(system);
        let mut tasks = JoinSet::new();
        tasks.spawn(refresher.run(CancellationToken::new()));
        Self {
            connector: Mapped::default(),
            resolver,
            names,
            materials: Materials::default(),
            _tasks: tasks,
        }
    }

    async fn fetch(&self, at: RemoteAt) -> Result<usize, FetchError> {
        let fetcher = Fetcher {
            connector: &self.connector,
            names: &self.names,
            materials: &self.materials,
            fetching: Arc::new(Fetching::usual()),
        };
        let timeout = Duration::from_secs(5);
        let fetched = fetcher.fetch(&Remote { at, timeout }).await;
        fetched.map(|fetched| fetched.keys.len())
    }

    async fn get(&self, uri: &str) -> Result<usize, FetchError> {
        self.fetch(RemoteAt::Uri(Arc::from(uri))).await
    }
}

#[tokio::test]
async fn answers_are_key_sets_or_none() {
    let asking = Asking::new().await;
    let long = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(LONGEST));
    let site = Website::saying(vec![
        ("/keys", ok(KEYS)),
        ("/none", ok("{}")),
        ("/html", ok("<html>")),
        (
            "/moved",
            "HTTP/1.1 302 Found\r\nlocation: /keys\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "/cut",
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"keys\"".to_owned(),
        ),
        ("/long", ok(&long)),
        ("/odd", "SSH-2.0-server\r\n\r\n".to_owned()),
    ])
    .await;
    let address = "10.0.0.9:80".parse().unwrap();
    asking.connector.map(address, site.at);
    for (url, want) in [
        ("http://10.0.0.9/keys", Ok(1)),
        ("http://10.0.0.9:80/keys", Ok(1)),
        (
            "http://10.0.0.9/none",
            Err("has no key set: it has no list `keys`"),
        ),
        ("http://10.0.0.9/html", Err("it is no JSON object")),
        ("http://10.0.0.9/moved", Err("answers 302 Found")),
        ("http://10.0.0.9/gone", Err("answers 404 Not Found")),
        ("http://10.0.0.9/cut", Err("breaks off")),
        ("http://10.0.0.9/long", Err("says more than 1 MiB")),
        ("http://10.0.0.9/odd", Err("does not answer in HTTP")),
        ("http://10.0.0.8/keys", Err("cannot connect to 10.0.0.8:80")),
        ("ftp://10.0.0.9/keys", Err("is no URL of http or https")),
    ] {
        let fetched = asking.get(url).await.map_err(|e| e.to_string());
        match (fetched, want) {
            (Ok(keys), Ok(want)) => assert_eq!(keys, want, "{url}"),
            (Err(said), Err(want)) => assert!(said.contains(want), "{url}: {said}"),
            (fetched, _) => panic!("{url}: {fetched:?}"),
        }
    }
    let asked = site.asked.lock().unwrap();
    let first = asked[0].to_ascii_lowercase();
    assert!(first.contains("host: 10.0.0.9\r\n"), "{first}");
    assert!(!asked.iter().any(|a| a.contains("/ssh")), "{asked:?}");
}

#[tokio::test]
async fn nothing_of_this_host_and_its_link_is_asked() {
    let asking = Asking::new().await;
    let site = Website::saying(vec![("/", ok(KEYS))]).await;
    for (name, kind, address) in [
        ("inside.example", "A", "10.0.0.9"),
        ("meta.example", "A", "169.254.169.254"),
        ("mapped.example", "AAAA", "::ffff:169.254.169.254"),
        ("home.example", "A", "127.0.0.1"),
        ("six.example", "AAAA", "::1"),
        ("cloud.example", "AAAA", "fd00:ec2::254"),
    ] {
        let record = Reply::records(&format!("{name} {kind} {address} 60"));
        asking.resolver.say(name, kind, record);
        let to: IpAddr = address.parse().unwrap();
        asking.connector.map(SocketAddr::new(to, 80), site.at);
        asking
            .connector
            .map(SocketAddr::new(to.to_canonical(), 80), site.at);
    }
    for (url, reached) in [
        ("http://inside.example/", true),
        ("http://10.0.0.9/", true),
        ("http://meta.example/", false),
        ("http://mapped.example/", false),
        ("http://home.example/", false),
        ("http://six.example/", false),
        ("http://cloud.example/", false),
        ("http://169.254.169.254/", false),
        ("http://127.0.0.1/", false),
        ("http://[::1]/", false),
        ("http://[::ffff:169.254.169.254]/", false),
        ("http://[64:ff9b::a9fe:a9fe]/", false),
    ] {
        let before = asking
            .connector
            .dials
            .load(std::sync::atomic::Ordering::Relaxed);
        let fetched = asking.get(url).await;
        let dials = asking
            .connector
            .dials
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(fetched.is_ok(), reached, "{url}: {fetched:?}");
        assert_eq!(dials > before, reached, "{url} is dialled");
    }
}

#[tokio::test]
async fn configurations_name_keys_that_are_as_safe_as_themselves() {
    let says = |issuer: &str, keys: &str| {
        ok(&format!(
            "{{\"issuer\": \"{issuer}\", \"jwks_uri\": \"{keys}\"}}"
        ))
    };
    for (name, configuration, want) in [
        (
            "its own",
            says("http://10.0.0.9/i/", "http://10.0.0.9/keys"),
            Ok(1),
        ),
        (
            "another issuer's",
            says("http://10.0.0.9/other", "http://10.0.0.9/keys"),
            Err("of another issuer"),
        ),
        (
            "a file",
            says("http://10.0.0.9/i/", "file:///etc/passwd"),
            Err("which is no place for them"),
        ),
        (
            "a metadata service",
            says("http://10.0.0.9/i/", "http://169.254.169.254/keys"),
            Err("is not asked"),
        ),
        ("no keys", ok("{}"), Err("names no `jwks_uri`")),
        ("no JSON", ok("<html>"), Err("names no `jwks_uri`")),
    ] {
        let asking = Asking::new().await;
        let site = Website::saying(vec![
            ("/i/.well-known/openid-configuration", configuration),
            ("/keys", ok(KEYS)),
        ])
        .await;
        asking
            .connector
            .map("10.0.0.9:80".parse().unwrap(), site.at);
        let issuer = RemoteAt::Discovery(Arc::from("http://10.0.0.9/i/"));
        match (asking.fetch(issuer).await, want) {
            (Ok(keys), Ok(want)) => assert_eq!(keys, want, "{name}"),
            (Err(e), Err(want)) => assert!(e.to_string().contains(want), "{name}: {e}"),
            (fetched, _) => panic!("{name}: {fetched:?}"),
        }
    }
    let (issuer, keys) = ("https://i", r#"{"jwks_uri": "http://i/keys"}"#);
    let downgraded = keys_of(issuer, configuration_of(issuer), keys.as_bytes());
    assert!(matches!(downgraded, Err(FetchError::OddPlace { .. })));
}

#[tokio::test]
async fn files_of_this_host_are_read() {
    let asking = Asking::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let uri = format!("file://{}", path.display());
    assert!(
        matches!(asking.get(&uri).await, Err(FetchError::File { .. })),
        "absent"
    );
    fs::write(&path, KEYS).unwrap();
    assert_eq!(asking.get(&uri).await.unwrap(), 1);
    fs::write(&path, vec![b' '; LONGEST + 1]).unwrap();
    assert!(
        matches!(asking.get(&uri).await, Err(FetchError::TooLong { .. })),
        "too long"
    );
    let directory = format!("file://{}", dir.path().display());
    assert!(
        matches!(asking.get(&directory).await, Err(FetchError::File { .. })),
        "no file"
    );
}

#[tokio::test]
async fn who_is_silent_is_not_waited_for() {
    let asking = Asking::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = "10.0.0.9:80".parse().unwrap();
    asking.connector.map(at, listener.local_addr().unwrap());
    let fetcher = Fetcher {
        connector: &asking.connector,
        names: &asking.names,
        materials: &asking.materials,
        fetching: Arc::new(Fetching::usual()),
    };
    let silent = Remote {
        at: RemoteAt::Uri(Arc::from("http://10.0.0.9/")),
        timeout: Duration::from_millis(50),
    };
    let late = fetcher.fetch(&silent).await;
    assert!(matches!(late, Err(FetchError::Late { .. })));
}

/// Answers one connection by TLS as `name`, under the authority.
async fn secured(ca: &TestCa, name: &str) -> (SocketAddr, JoinSet<()>) {
    let acceptor = TlsAcceptor::from(Arc::new(certified(ca, name)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        let mut request = [0; 4096];
        let _read = stream.read(&mut request).await.unwrap();
        stream.write_all(ok(KEYS).as_bytes()).await.unwrap();
    });
    (at, tasks)
}

#[tokio::test]
async fn by_https_only_whoever_this_host_believes_is_heard() {
    let (believed, other) = (TestCa::new(), TestCa::new());
    let mut roots = RootCertStore::empty();
    roots.add(believed.root.clone()).unwrap();
    let roots = Arc::new(roots);
    for (case, ca, name, heard) in [
        ("itself", &believed, "keys.example", true),
        ("another's certificate", &believed, "other.example", false),
        ("an authority unknown", &other, "keys.example", false),
    ] {
        let mut asking = Asking::new().await;
        asking.materials = Materials::believing(Arc::clone(&roots));
        let record = Reply::records("keys.example A 10.0.0.9 60");
        asking.resolver.say("keys.example", "A", record);
        let (at, _tasks) = secured(ca, name).await;
        asking.connector.map("10.0.0.9:443".parse().unwrap(), at);
        match asking.get("https://keys.example/").await {
            Ok(keys) => assert!(heard && keys == 1, "{case}"),
            Err(e) => assert!(
                !heard && matches!(e, FetchError::Unsecured(_)),
                "{case}: {e}"
            ),
        }
    }
}
