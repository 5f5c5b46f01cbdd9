//! Questions to one network's answering, and servers that do as they are told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::dns::hostile::{answered, record, said};
use crate::dns::{Edns, Question, ask, shown};
use crate::model::service::{Service, Visibility};
use crate::model::testing::{service, view, workload};
use crate::wire::convert::RevisionSummary;

/// How a server treats a name.
#[derive(Clone, Debug)]
enum Manner {
    /// It says this, after so many milliseconds.
    Says(u64, Vec<u8>, u8, [u16; 3]),
    /// It says nothing.
    Silent,
    /// It says it under another number first.
    OtherNumber,
    /// It answers another question.
    OtherName,
    /// It refuses EDNS.
    Old,
    /// It says by UDP that it does not fit.
    Long(u16),
    /// It sends these octets behind the question.
    Junk(Vec<u8>),
}

fn a(name: &str, life: u32) -> Vec<u8> {
    record(name, 1, life, &[192, 0, 2, 1])
}

fn says(name: &str, life: u32) -> Manner {
    Manner::Says(0, a(name, life), 0, [1, 0, 0])
}

/// A name server on loopback.
struct Server {
    at: SocketAddr,
    manners: Arc<Mutex<HashMap<String, Manner>>>,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

fn replies(message: &[u8], manner: &Manner, tcp: bool) -> Vec<Vec<u8>> {
    let good = |octets: &[u8], code, counts| answered(message, code, counts, octets);
    let query = Query::read(message).unwrap();
    let name = query.question.name.to_string();
    match manner {
        Manner::Says(_, octets, code, counts) => vec![good(octets, *code, *counts)],
        Manner::Silent => vec![],
        Manner::OtherNumber => {
            let mut wrong = good(&record(&name, 1, 60, &[6, 6, 6, 6]), 0, [1, 0, 0]);
            wrong[0] ^= 1;
            vec![wrong, good(&a(&name, 60), 0, [1, 0, 0])]
        }
        Manner::OtherName => {
            let mut wrong = good(&a(&name, 60), 0, [1, 0, 0]);
            wrong[13] ^= 1;
            vec![wrong; 40]
        }
        Manner::Old if query.edns.is_some() => vec![good(&[], 1, [0, 0, 0])],
        Manner::Old => vec![good(&a(&name, 60), 0, [1, 0, 0])],
        Manner::Long(count) if tcp => {
            let one = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
            vec![good(&one.repeat(usize::from(*count)), 0, [*count, 0, 0])]
        }
        Manner::Long(_) => {
            let mut short = good(&[], 0, [0, 0, 0]);
            short[2] |= 2;
            vec![short]
        }
        Manner::Junk(octets) => vec![good(octets, 0, [1, 0, 0])],
    }
}

impl Server {
    async fn new() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let at = udp.local_addr().unwrap();
        let manners = Arc::<Mutex<HashMap<String, Manner>>>::default();
        let asked = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        let known = Arc::clone(&manners);
        let manner = move |message: &[u8]| {
            let name = Query::read(message).unwrap().question.name.to_string();
            let known = known.lock().unwrap().get(&name).cloned();
            known.unwrap_or(Manner::Says(0, vec![], 3, [0, 0, 0]))
        };
        let (of_udp, count) = (manner.clone(), Arc::clone(&asked));
        tasks.spawn(async move {
            let (mut heard, udp) = (vec![0; 2048], Arc::new(udp));
            let mut late = JoinSet::new();
            loop {
                let (length, from) = udp.recv_from(&mut heard).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (message, udp) = (heard[..length].to_vec(), Arc::clone(&udp));
                let manner = of_udp(&message);
                late.spawn(async move {
                    if let Manner::Says(after, ..) = manner {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                    }
                    for reply in replies(&message, &manner, false) {
                        udp.send_to(&reply, from).await.unwrap();
                    }
                });
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _from) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut message = vec![0; length.into()];
                stream.read_exact(&mut message).await.unwrap();
                for reply in replies(&message, &manner(&message), true) {
                    let length = u16::try_from(reply.len()).unwrap();
                    stream.write_u16(length).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        });
        Self {
            at,
            manners,
            asked,
            _tasks: tasks,
        }
    }

    fn on(&self, name: &str, manner: Manner) {
        self.manners
            .lock()
            .unwrap()
            .insert(format!("{name}."), manner);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A port of loopback at which nobody is.
async fn nobody() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

fn mesh() -> MeshState {
    let mut google = service("google", &["240.240.0.9"]);
    google.key.hostname = Arc::from("www.google.com");
    let mut wild = service("wild", &["240.240.0.8"]);
    wild.key.hostname = Arc::from("*.wildcard");
    let secret = service("secret", &["240.240.0.7"]);
    let mut secret = secret.in_namespace("bank", Visibility::Namespace);
    secret.key.hostname = Arc::from("secret.bank.mesh.internal");
    let remote = service("remote", &["240.240.0.6"]).vips_on("elsewhere");
    let mut nowhere = service("nowhere", &[]);
    nowhere.key.hostname = Arc::from("nowhere.example");
    let services: Vec<Service> = vec![
        service("cart", &["10.9.0.1"]),
        service("heads", &[]),
        google,
        wild,
        secret,
        remote,
        nowhere,
    ];
    let workloads = vec![
        workload("web", &["10.0.0.1"]),
        workload("a", &["10.0.0.2", "fd00::2"]).of("heads"),
        workload("b", &["fd00::3", "10.0.0.3"]).of("heads"),
    ];
    MeshState {
        view: Arc::new(view(workloads, services)),
        revision: Some(RevisionSummary {
            epoch: [1; 16],
            serial: 1,
            number: 1,
            digest: [0; 32],
            source: String::new(),
            compiled_at: std::time::SystemTime::UNIX_EPOCH,
            totals: Default::default(),
            warnings: 0,
            expired_grace: Duration::ZERO,
            domain: "mesh.internal".to_owned(),
        }),
        ..MeshState::default()
    }
}

/// An answering of `client` that asks these servers, and the mesh as it is told to it.
fn answering(
    client: Client,
    servers: &[SocketAddr],
    mesh: MeshState,
) -> (Answering, watch::Sender<Arc<MeshState>>) {
    let (tell, seen) = watch::channel(Arc::new(mesh));
    let common = Common::new(seen, Settings::default(), Arc::default());
    let upstream = Upstream::of_host(Servers::these(servers));
    (Answering::new(client, common, upstream), tell)
}

fn web(servers: &[SocketAddr]) -> (Answering, watch::Sender<Arc<MeshState>>) {
    answering(Client::Workload(Arc::from("web")), servers, mesh())
}

fn query(name: &str, kind: Kind) -> Query {
    let question = Question {
        name: Name::of(name).unwrap(),
        kind,
        class: IN,
    };
    Query::new(7, question)
}

async fn asked(answering: &Answering, name: &str, kind: Kind) -> String {
    let query = query(name, kind);
    let reply = answering.in_time(&query, Transport::Udp, 0).await;
    let mut said = said(&reply);
    said.records.sort();
    said.to_string()
}

/// Vectors 60 to 66 of `spec/hbone-dataplane.md` §12, under the domain of this mesh.
#[tokio::test]
async fn names_are_answered_as_the_vectors_say() {
    let server = Server::new().await;
    server.on(
        "cart.shop.mesh.internal",
        says("cart.shop.mesh.internal", 60),
    );
    server.on(
        "secret.bank.mesh.internal",
        says("secret.bank.mesh.internal", 60),
    );
    server.on("nowhere.example", says("nowhere.example", 60));
    let (web, _mesh) = web(&[server.at]);
    for (name, asked_for, kind, want) in [
        (
            "60",
            "cart",
            Kind::A,
            "NOERROR aa ra rd cart. A: cart. 30 A 10.9.0.1",
        ),
        (
            "61",
            "www.google.com.shop.mesh.internal",
            Kind::A,
            "NOERROR aa ra rd www.google.com.shop.mesh.internal. A: \
             www.google.com. 30 A 240.240.0.9 \
             www.google.com.shop.mesh.internal. 30 CNAME www.google.com.",
        ),
        (
            "62",
            "foo.wildcard",
            Kind::A,
            "NOERROR aa ra rd foo.wildcard. A: foo.wildcard. 30 A 240.240.0.8",
        ),
        (
            "62, through a search suffix",
            "foo.wildcard.shop.mesh.internal",
            Kind::A,
            "NOERROR aa ra rd foo.wildcard.shop.mesh.internal. A: \
             foo.wildcard.shop.mesh.internal. 30 A 240.240.0.8",
        ),
        ("63", "cart", Kind::AAAA, "NOERROR aa ra rd cart. AAAA:"),
        (
            "64",
            "remote.shop",
            Kind::A,
            "NOERROR aa ra rd remote.shop. A:",
        ),
        (
            "65, IPv4",
            "heads.shop.mesh.internal",
            Kind::A,
            "NOERROR aa ra rd heads.shop.mesh.internal. A: \
             heads.shop.mesh.internal. 30 A 10.0.0.2 heads.shop.mesh.internal. 30 A 10.0.0.3",
        ),
        (
            "65, IPv6",
            "heads",
            Kind::AAAA,
            "NOERROR aa ra rd heads. AAAA: heads. 30 AAAA fd00::2 heads. 30 AAAA fd00::3",
        ),
        (
            "65, outside",
            "nowhere.example",
            Kind::A,
            "NOERROR ra rd nowhere.example. A: nowhere.example. 60 A 192.0.2.1",
        ),
        (
            "66, another kind",
            "cart.shop.mesh.internal",
            Kind::MX,
            "NOERROR ra rd cart.shop.mesh.internal. MX: cart.shop.mesh.internal. 60 A 192.0.2.1",
        ),
        (
            "66, hidden",
            "secret.bank.mesh.internal",
            Kind::A,
            "NOERROR ra rd secret.bank.mesh.internal. A: secret.bank.mesh.internal. 60 A 192.0.2.1",
        ),
        (
            "unknown",
            "nobody.shop.mesh.internal",
            Kind::A,
            "NXDOMAIN ra rd nobody.shop.mesh.internal. A:",
        ),
    ] {
        assert_eq!(asked(&web, asked_for, kind).await, want, "{name}");
    }
}

/// What is asked there may come from the resolver that would be asked.
#[tokio::test]
async fn on_the_host_nobody_else_is_asked_for_names_of_the_mesh() {
    let server = Server::new().await;
    server.on("www.example", says("www.example", 60));
    let (host, _mesh) = answering(Client::Host, &[server.at], mesh());
    for (name, kind, want) in [
        (
            "cart.shop.mesh.internal",
            Kind::A,
            "NOERROR aa ra rd cart.shop.mesh.internal. A: cart.shop.mesh.internal. 30 A 10.9.0.1",
        ),
        (
            "cart.shop.mesh.internal",
            Kind::MX,
            "NOERROR aa ra rd cart.shop.mesh.internal. MX:",
        ),
        (
            "none.shop.mesh.internal",
            Kind::A,
            "NXDOMAIN aa ra rd none.shop.mesh.internal. A:",
        ),
        // Whoever is told that there is none takes it that there is nothing below (RFC 8020).
        (
            "mesh.internal",
            Kind::A,
            "NOERROR aa ra rd mesh.internal. A:",
        ),
        (
            "shop.mesh.internal",
            Kind::MX,
            "NOERROR aa ra rd shop.mesh.internal. MX:",
        ),
        (
            "secret.bank.mesh.internal",
            Kind::A,
            "NXDOMAIN aa ra rd secret.bank.mesh.internal. A:",
        ),
    ] {
        assert_eq!(asked(&host, name, kind).await, want, "{name}");
    }
    assert_eq!(server.asked(), 0);
    let outside = asked(&host, "www.example", Kind::A).await;
    assert_eq!(
        outside,
        "NOERROR ra rd www.example. A: www.example. 60 A 192.0.2.1"
    );
}

/// A mesh of which nobody has told is waited for, one in which nobody is is not.
#[tokio::test]
async fn in_an_empty_mesh_the_rest_of_the_world_is_asked() {
    let server = Server::new().await;
    server.on("www.example", says("www.example", 60));
    let empty = MeshState {
        view: Arc::default(),
        ..mesh()
    };
    let (host, tell) = answering(Client::Host, &[server.at], empty);
    let outside = asked(&host, "www.example", Kind::A).await;
    assert_eq!(
        outside,
        "NOERROR ra rd www.example. A: www.example. 60 A 192.0.2.1"
    );
    tell.send_replace(Arc::default());
    assert!(host.known(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_yet_is_waited_for() {
    let (unknown, tell) = answering(
        Client::Workload(Arc::from("web")),
        &[],
        MeshState::default(),
    );
    let begun = tokio::time::Instant::now();
    assert_eq!(
        asked(&unknown, "cart", Kind::A).await,
        "SERVFAIL ra rd cart. A:"
    );
    assert_eq!(begun.elapsed(), WAIT);
    let query = query("cart", Kind::A);
    let asking = unknown.in_time(&query, Transport::Udp, 0);
    let telling = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell.send_replace(Arc::new(mesh()));
    };
    let (reply, ()) = tokio::join!(asking, telling);
    assert_eq!(said(&reply).records, ["cart. 30 A 10.9.0.1"]);
}

#[tokio::test]
async fn servers_that_lie_are_not_believed() {
    let server = Server::new().await;
    let itself = [0xc0, 0x1e, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 6, 6, 6, 6];
    for (name, manner) in [
        ("number.example", Manner::OtherNumber),
        ("name.example", Manner::OtherName),
        ("old.example", Manner::Old),
        ("long.example", Manner::Long(1000)),
        ("loop.example", Manner::Junk(itself.to_vec())),
        ("huge.example", Manner::Junk(vec![0; 9000])),
        ("cut.example", Manner::Junk(vec![0xc0])),
    ] {
        server.on(name, manner);
    }
    let (web, _mesh) = web(&[server.at]);
    let good = |name: &str| format!("NOERROR ra rd {name}. A: {name}. 60 A 192.0.2.1");
    let bad = |name: &str| format!("SERVFAIL ra rd {name}. A:");
    for (name, want) in [
        ("number.example", good("number.example")),
        ("name.example", bad("name.example")),
        ("old.example", good("old.example")),
        (
            "long.example",
            "NOERROR ra rd tc long.example. A:".to_owned(),
        ),
        ("loop.example", bad("loop.example")),
        ("huge.example", bad("huge.example")),
        ("cut.example", bad("cut.example")),
    ] {
        assert_eq!(asked(&web, name, Kind::A).await, want, "{name}");
    }
    let long = web
        .in_time(&query("long.example", Kind::A), Transport::Tcp, 0)
        .await;
    assert_eq!(said(&long).records.len(), 1000);
}

#[tokio::test]
async fn another_server_is_asked_while_the_first_is_silent_or_knows_nothing() {
    let (dumb, poor, good) = (
        Server::new().await,
        Server::new().await,
        Server::new().await,
    );
    for (name, of_dumb, of_poor) in [
        (
            "a.example",
            Manner::Silent,
            Manner::Says(0, vec![], 2, [0, 0, 0]),
        ),
        (
            "b.example",
            Manner::Silent,
            Manner::Says(0, vec![], 5, [0, 0, 0]),
        ),
    ] {
        dumb.on(name, of_dumb);
        poor.on(name, of_poor);
        good.on(name, says(name, 60));
    }
    poor.on("poor.example", Manner::Says(0, vec![], 5, [0, 0, 0]));
    let gone = nobody().await;
    for servers in [
        vec![dumb.at, good.at],
        vec![poor.at, good.at],
        vec![gone, poor.at, good.at],
    ] {
        let (web, _mesh) = web(&servers);
        for name in ["a.example", "b.example"] {
            let want = format!("NOERROR ra rd {name}. A: {name}. 60 A 192.0.2.1");
            assert_eq!(asked(&web, name, Kind::A).await, want, "{servers:?}");
        }
    }
    // Once it has answered, the good one comes first.
    assert_eq!(dumb.asked(), 1);
    let (web, _mesh) = web(&[gone, poor.at]);
    let refused = asked(&web, "poor.example", Kind::A).await;
    assert_eq!(refused, "REFUSED ra rd poor.example. A:");
    let (web, _mesh) = self::web(&[gone]);
    let failed = asked(&web, "a.example", Kind::A).await;
    assert_eq!(failed, "SERVFAIL ra rd a.example. A:");
}

#[tokio::test]
async fn what_many_ask_is_asked_once_and_kept() {
    let server = Server::new().await;
    server.on(
        "a.example",
        Manner::Says(50, a("a.example", 60), 0, [1, 0, 0]),
    );
    let (web, _mesh) = web(&[server.at]);
    let all = (0..50).map(|number| {
        let name = if number % 2 == 0 {
            "a.example"
        } else {
            "A.Example"
        };
        asked(&web, name, Kind::A)
    });
    let all = futures::future::join_all(all).await;
    assert!(all.iter().all(|said| said.contains("192.0.2.1")), "{all:?}");
    assert_eq!(server.asked(), 1);
    asked(&web, "a.example", Kind::A).await;
    assert_eq!(server.asked(), 1, "it is kept");
    // In the letters of who asks.
    assert!(
        all[1].starts_with("NOERROR ra rd A.Example. A:"),
        "{}",
        all[1]
    );
}

#[tokio::test]
async fn while_servers_are_gone_answers_past_their_end_are_given() {
    let server = Server::new().await;
    server.on("a.example", says("a.example", 1));
    let (web, _mesh) = web(&[server.at]);
    let fresh = asked(&web, "a.example", Kind::A).await;
    assert_eq!(
        fresh,
        "NOERROR ra rd a.example. A: a.example. 1 A 192.0.2.1"
    );
    // The cache's clock, without that of the sockets.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let stale = "NOERROR ra rd a.example. A: a.example. 30 A 192.0.2.1";
    server.on("a.example", Manner::Says(0, vec![], 2, [0, 0, 0]));
    assert_eq!(
        asked(&web, "a.example", Kind::A).await,
        stale,
        "a failure is no news"
    );
    let before = server.asked();
    assert_eq!(asked(&web, "a.example", Kind::A).await, stale);
    assert_eq!(server.asked(), before, "nobody is asked again at once");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    server.on("a.example", Manner::Silent);
    let begun = std::time::Instant::now();
    assert_eq!(
        asked(&web, "a.example", Kind::A).await,
        stale,
        "nor is silence"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    server.on("a.example", Manner::Says(0, vec![], 3, [0, 0, 0]));
    let (other, _mesh) = self::web(&[server.at]);
    let none = asked(&other, "a.example", Kind::A).await;
    assert_eq!(
        none, "NXDOMAIN ra rd a.example. A:",
        "but that there is no such name is"
    );
}

/// Sockets of loopback, answered by `web`'s answering.
async fn listening() -> (SocketAddr, Server, JoinSet<()>, CancellationToken) {
    let server = Server::new().await;
    let (at, udp, tcp) = loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        if let Ok(tcp) = std::net::TcpListener::bind(at) {
            break (at, udp, tcp);
        }
    };
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let (web, mesh) = web(&[server.at]);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let stopped = stop.clone();
    tasks.spawn(async move {
        let listeners = Listeners {
            udp: vec![udp],
            tcp: vec![tcp],
        };
        serve(web, listeners, stopped).await.unwrap();
        drop(mesh);
    });
    (at, server, tasks, stop)
}

#[tokio::test]
async fn the_ports_answer_and_go_on_after_what_is_no_question() {
    let (at, server, mut tasks, stop) = listening().await;
    server.on(
        "slow.example",
        Manner::Says(300, a("slow.example", 9), 0, [1, 0, 0]),
    );
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    let mut heard = vec![0; 4096];
    for junk in [&b""[..], b"x", &[0; 11], &[0xff; 300]] {
        socket.send(junk).await.unwrap();
    }
    // Two that are told apart by their numbers, the second of which is answered first.
    socket
        .send(&ask(1, &query("slow.example", Kind::A), false))
        .await
        .unwrap();
    socket
        .send(&ask(2, &query("cart", Kind::A), true))
        .await
        .unwrap();
    let mut said = Vec::new();
    while said.len() < 3 {
        let length = socket.recv(&mut heard).await.unwrap();
        let shown = shown(&heard[..length]).unwrap();
        said.push((shown.id, shown.records.join(" ")));
    }
    // The 300 octets are an answer; the rest of the junk is not even a message.
    let want = [
        (65_535, ""),
        (2, "cart. 30 A 10.9.0.1"),
        (1, "slow.example. 9 A 192.0.2.1"),
    ];
    assert_eq!(said, want.map(|(id, text)| (id, text.to_owned())));

    let mut stream = TcpStream::connect(at).await.unwrap();
    for id in 3..6 {
        let message = ask(id, &query("cart", Kind::A), false);
        stream
            .write_u16(u16::try_from(message.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&message).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await.unwrap();
        assert_eq!(shown(&message).unwrap().id, id);
    }
    // Announced and never sent.
    stream.write_u16(500).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut heard).await.unwrap(), 0, "it is closed");

    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    UdpSocket::bind(at).await.expect("nobody holds the port");
}

#[tokio::test]
async fn who_asks_for_everything_is_told_that_it_is_too_much() {
    let server = Server::new().await;
    server.on("kept.example", says("kept.example", 60));
    let (web, _mesh) = web(&[server.at]);
    asked(&web, "kept.example", Kind::A).await;
    let way = Arc::clone(web.ways.own());
    let all = u32::try_from(ways::FLYING).unwrap();
    let _all = way.flying.try_acquire_many(all).unwrap();
    assert_eq!(
        asked(&web, "a.example", Kind::A).await,
        "SERVFAIL ra rd a.example. A:"
    );
    assert_eq!(
        asked(&web, "cart", Kind::A).await,
        "NOERROR aa ra rd cart. A: cart. 30 A 10.9.0.1"
    );
    let kept = asked(&web, "kept.example", Kind::A).await;
    assert_eq!(
        kept,
        "NOERROR ra rd kept.example. A: kept.example. 60 A 192.0.2.1"
    );
    assert_eq!(server.asked(), 1);
    let page = web.common.metrics.render().unwrap();
    assert!(page.contains("lateen_dns_overload_total 1"), "{page}");
    let of_web =
        "request_query_type=\"A\",request_protocol=\"udp\",source_canonical_service=\"web\"";
    assert!(
        page.contains(&format!("istio_dns_requests_total{{{of_web}")),
        "{page}"
    );
}

#[tokio::test]
async fn what_servers_are_asked_is_counted() {
    let server = Server::new().await;
    server.on("a.example", says("a.example", 60));
    let (known, _mesh) = web(&[server.at, nobody().await]);
    asked(&known, "a.example", Kind::A).await;
    asked(&known, "a.example", Kind::A).await;
    let page = known.common.metrics.render().unwrap();
    let count = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next())
            .map(str::to_owned)
    };
    assert_eq!(
        count("istio_dns_requests_total{").as_deref(),
        Some("2"),
        "{page}"
    );
    assert_eq!(
        count("istio_dns_upstream_requests_total{").as_deref(),
        Some("1")
    );
    assert_eq!(count("istio_dns_upstream_failures_total{"), None);
    let durations = "istio_dns_upstream_request_duration_seconds_count{";
    assert_eq!(count(durations).as_deref(), Some("1"));
    let (unknown, _mesh) = web(&[nobody().await]);
    asked(&unknown, "a.example", Kind::A).await;
    let page = unknown.common.metrics.render().unwrap();
    assert!(
        page.contains("istio_dns_upstream_failures_total{"),
        "{page}"
    );
}

#[test]
fn edns_of_the_client_is_answered() {
    let mut query = query("cart", Kind::A);
    query.edns = Some(Edns {
        payload: 4096,
        version: 0,
        dnssec_ok: false,
    });
    let (web, _mesh) = web(&[]);
    let reply = web.at_once(&query, Transport::Udp, 0).unwrap();
    assert_eq!(said(&reply).edns.as_deref(), Some("edns 4096"));
}

#[test]
fn a_workload_on_the_hosts_network_is_known_by_its_mark() {
    let (host, _mesh) = answering(Client::Host, &[], mesh());
    let marks = [(0x601, Arc::from("web")), (0x602, Arc::from("gone"))];
    host.common.know(marks.into());
    let short = query("cart", Kind::A);
    for (name, mark, known) in [
        ("nobody's", 0, false),
        ("another's", 0x603, false),
        ("its own", 0x601, true),
        ("with bits that are not ours", 0xabc_0601, true),
        ("of one that is not there yet", 0x602, false),
    ] {
        // What nobody knows is forwarded, which takes time.
        let said = host.at_once(&short, Transport::Udp, mark);
        assert_eq!(said.is_some(), known, "{name}");
    }
}

/// One that asks for what never comes has all its sockets wait; the others, and the host, have theirs.
#[tokio::test]
async fn a_workload_that_asks_too_much_is_in_nobody_elses_way() {
    let server = Server::new().await;
    server.on("a.example", says("a.example", 60));
    let (host, _mesh) = answering(Client::Host, &[server.at], mesh());
    let marks = [(0x601, Arc::from("web")), (0x602, Arc::from("a"))];
    host.common.know(marks.into());
    let flood: Vec<_> = (0..200).map(|n| format!("n{n}.slow.example")).collect();
    for name in &flood {
        server.on(name, Manner::Silent);
    }
    let of_web = async |name: &str| {
        let query = query(name, Kind::A);
        host.in_time(&query, Transport::Udp, 0x601).await
    };
    let flooding = futures::future::join_all(flood.iter().map(|name| of_web(name)));
    let others = async {
        // Once its sockets wait, so does the rest of the flood.
        while server.asked() < 128 {
            tokio::task::yield_now().await;
        }
        let query = query("a.example", Kind::A);
        for mark in [0x602, 0] {
            let answer = host.in_time(&query, Transport::Udp, mark);
            let answer = timeout(Duration::from_secs(2), answer).await;
            let answer = answer.unwrap_or_else(|_| panic!("{mark:#x} waits"));
            assert_eq!(said(&answer).records, ["a.example. 60 A 192.0.2.1"]);
        }
        assert_eq!(server.asked(), 130, "neither is told what the other was");
    };
    tokio::select! {
        _all = flooding => panic!("nobody answers them"),
        () = others => {}
    }
    host.ways.stop().await;
}
