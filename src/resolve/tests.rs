use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::testing::{Reply, Server};
use super::*;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|a| a.parse().unwrap()).collect()
}

fn asking(servers: &[&Server]) -> System {
    let at: Vec<_> = servers.iter().map(|s| s.at).collect();
    System::of(&at, PathBuf::from("/dev/null"))
}

#[tokio::test]
async fn servers_are_asked_for_both_families() {
    let (server, dumb) = (Server::new().await, Server::new().await);
    for (name, v4, v6) in [
        (
            "both.example",
            Reply::records("both.example A 192.0.2.1 60"),
            Reply::records("both.example AAAA 2001:db8::1 30"),
        ),
        (
            "v6.example",
            Reply::records(""),
            Reply::records("v6.example AAAA 2001:db8::2 30"),
        ),
        (
            "half.example",
            Reply::records("half.example A 192.0.2.3 60"),
            Reply::Code(2),
        ),
        (
            "long.example",
            Reply::Long("long.example A 192.0.2.4 60".to_owned()),
            Reply::records(""),
        ),
        ("ill.example", Reply::Code(2), Reply::Code(3)),
    ] {
        server.say(name, "A", v4);
        server.say(name, "AAAA", v6);
    }
    for name in ["both.example", "ill.example"] {
        for kind in ["A", "AAAA"] {
            dumb.say(name, kind, Reply::Code(5));
        }
    }
    let found = |texts: &[&str], life| {
        Ok(Found {
            addresses: addresses(texts),
            life: Duration::from_secs(life),
        })
    };
    for (name, servers, want) in [
        (
            "both.example",
            &[&server][..],
            found(&["192.0.2.1", "2001:db8::1"], 30),
        ),
        (
            "both.example",
            &[&dumb, &server],
            found(&["192.0.2.1", "2001:db8::1"], 30),
        ),
        ("v6.example", &[&server], found(&["2001:db8::2"], 30)),
        ("half.example", &[&server], found(&["192.0.2.3"], 60)),
        ("long.example", &[&server], found(&["192.0.2.4"], 60)),
        ("ill.example", &[&server], Err(LookupError::Unanswered)),
        ("none.example", &[&server], Err(LookupError::NoAddress)),
        ("none.example", &[], Err(LookupError::NoResolver)),
    ] {
        let got = asking(servers).lookup(name).await;
        assert_eq!(got, want, "{name}");
    }
}

#[tokio::test]
async fn hosts_come_before_servers() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "192.0.2.5 a.example\n").unwrap();
    let system = System::of(&[], hosts);
    let found = system.lookup("a.example").await.unwrap();
    assert_eq!(found.addresses, addresses(&["192.0.2.5"]));
}

/// Says of every name what it was last told to.
struct Scripted {
    says: Arc<Mutex<Result<Found, LookupError>>>,
    asked: Arc<AtomicUsize>,
}

impl Lookup for Scripted {
    async fn lookup(&self, _name: &str) -> Result<Found, LookupError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.says.lock().unwrap().clone()
    }
}

struct Rig {
    names: Names,
    says: Arc<Mutex<Result<Found, LookupError>>>,
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

fn found(texts: &[&str], life: u64) -> Result<Found, LookupError> {
    Ok(Found {
        addresses: addresses(texts),
        life: Duration::from_secs(life),
    })
}

impl Rig {
    fn saying(says: Result<Found, LookupError>) -> Self {
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::<AtomicUsize>::default());
        let (names, refresher) = names(Scripted {
            says: Arc::clone(&says),
            asked: Arc::clone(&asked),
        });
        let mut task = JoinSet::new();
        task.spawn(refresher.run(CancellationToken::new()));
        Self {
            names,
            says,
            asked,
            _task: task,
        }
    }

    fn say(&self, says: Result<Found, LookupError>) {
        *self.says.lock().unwrap() = says;
    }

    async fn get(&self) -> Result<Vec<IpAddr>, LookupError> {
        let got = self.names.addresses("a.example").await;
        got.map(|addresses| addresses.to_vec())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_its_life_and_the_last_one_while_the_resolver_fails() {
    let rig = Rig::saying(found(&["192.0.2.1"], 30));
    let both = tokio::join!(rig.get(), rig.get());
    assert_eq!(both.0, Ok(addresses(&["192.0.2.1"])));
    assert_eq!(rig.asked(), 1, "asked once for all who ask");
    rig.say(found(&["192.0.2.2"], 30));
    assert_eq!(rig.get().await, both.1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(rig.get().await, Ok(addresses(&["192.0.2.2"])));
    rig.say(Err(LookupError::Unanswered));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(rig.get().await, Ok(addresses(&["192.0.2.2"])));
    rig.say(found(&["192.0.2.3"], 30));
    tokio::time::sleep(AGAIN * 2).await;
    assert_eq!(rig.get().await, Ok(addresses(&["192.0.2.3"])));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_never_known_is_asked_for_again() {
    let rig = Rig::saying(Err(LookupError::NoAddress));
    assert_eq!(rig.get().await, Err(LookupError::NoAddress));
    rig.say(found(&["192.0.2.1"], 30));
    tokio::time::sleep(AGAIN * 2).await;
    assert_eq!(rig.get().await, Ok(addresses(&["192.0.2.1"])));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_asks_for_is_forgotten() {
    let rig = Rig::saying(found(&["192.0.2.1"], 60));
    rig.get().await.unwrap();
    tokio::time::sleep(UNUSED * 2).await;
    let asked = rig.asked();
    tokio::time::sleep(UNUSED).await;
    assert_eq!(rig.asked(), asked);
    assert!(lock(&rig.names.known).is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_names_are_known_than_there_is_room_for() {
    let rig = Rig::saying(found(&["192.0.2.1"], 60));
    for n in 0..MOST_NAMES + 8 {
        tokio::time::advance(Duration::from_millis(1)).await;
        rig.names.addresses(&format!("{n}.example")).await.unwrap();
    }
    let known = lock(&rig.names.known);
    assert_eq!(known.len(), MOST_NAMES);
    assert!(!known.contains_key("0.example") && known.contains_key("8.example"));
}

#[tokio::test(start_paused = true)]
async fn a_name_without_an_address_is_forgotten_first() {
    let rig = Rig::saying(found(&["192.0.2.1"], 3600));
    rig.get().await.unwrap();
    rig.say(Err(LookupError::NoAddress));
    for n in 0..MOST_NAMES + 8 {
        // Before it is forgotten for its age.
        tokio::time::advance(Duration::from_micros(1)).await;
        let got = rig.names.addresses(&format!("{n}.example")).await;
        assert_eq!(got, Err(LookupError::NoAddress));
    }
    let known = lock(&rig.names.known);
    assert_eq!(known.len(), MOST_NAMES);
    assert!(known.contains_key("a.example"));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_led_to_this_host_or_link() {
    for (name, says, want) in [
        ("loopback", &["127.0.0.1"][..], None),
        ("loopback, v6", &["::1"], None),
        ("link", &["169.254.169.254"], None),
        ("link, v6", &["fe80::1"], None),
        ("mapped", &["::ffff:127.0.0.1"], None),
        ("nobody", &["0.0.0.0", "::"], None),
        ("this network", &["0.0.0.1"], None),
        ("one of two", &["127.0.0.1", "192.0.2.1"], Some("192.0.2.1")),
    ] {
        let want = want.map(|a| addresses(&[a])).ok_or(LookupError::Local);
        assert_eq!(Rig::saying(found(says, 30)).get().await, want, "{name}");
    }
}

#[tokio::test]
async fn names_that_are_forgotten_take_no_room() {
    let (names, mut refresher) = names(Scripted {
        says: Arc::new(Mutex::new(found(&[], 0))),
        asked: Arc::default(),
    });
    for at in 0..3 * MOST_NAMES {
        let name = format!("{at}.example");
        names.entry(&name).unwrap();
        let asked = refresher.asked.try_recv().unwrap();
        refresher.heard(asked, found(&["192.0.2.1"], 3600));
    }
    assert_eq!(lock(&refresher.known).len(), MOST_NAMES);
    assert!(refresher.due.len() <= MOST_DUE, "{}", refresher.due.len());
    let due = |(at, name): &(Instant, Arc<str>)| {
        let known = lock(&refresher.known);
        known.get(name).is_none_or(|entry| entry.due == Some(*at))
    };
    assert!(
        refresher.due.iter().all(due),
        "and those that are known stay"
    );
}
