//! kill -9 at random instants, under writes (`spec/control-plane.md` §10 row 53).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use lateen::identity::token::Token;
use lateen::wire::REVISION;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Delta, Site, mesh, token_for, version};

/// Kills where `LATEEN_KILLS` does not say.
const KILLS: usize = 20;
/// Longest life of the process once it serves.
const LIFE: Duration = Duration::from_millis(300);
/// And of one that is killed while it starts.
const START: Duration = Duration::from_millis(120);

/// What has been acknowledged or seen, over all lives.
#[derive(Default)]
struct Seen {
    pin: Option<[u8; 32]>,
    epoch: Option<Vec<u8>>,
    /// Ids of tokens, and whether revoking them was acknowledged.
    tokens: Mutex<BTreeMap<String, bool>>,
    number: AtomicU64,
    serial: AtomicU64,
    written: AtomicU64,
    revisions: Mutex<BTreeSet<u64>>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "how the full number is asked for"
)]
fn kills() -> usize {
    let told = std::env::var("LATEEN_KILLS").ok();
    told.map_or(KILLS, |n| n.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_every_kill() {
    let begun = Instant::now();
    let site = Arc::new(Site::new());
    let mut seen = Arc::new(Seen::default());
    seen.written.store(1, Ordering::SeqCst);
    let (mut starts, mut killed_starting, mut killed_reading, mut slowest) =
        (0, 0, 0, Duration::ZERO);
    for kill in 0..kills() {
        // In every second life there is only what the last ones kept.
        let broken = kill % 2 == 1;
        if broken {
            site.write_mesh("broken.toml", "[[workload]\n");
        }
        if kill % 3 == 2 {
            let starting = site.start();
            sleep(START.mul_f64(rand::random())).await;
            starting.kill();
            killed_starting += 1;
        }
        let started = Instant::now();
        let mut running = site.start();
        let status = site.up(&mut running).await;
        slowest = slowest.max(started.elapsed());
        starts += 1;
        let before = seen.number.load(Ordering::SeqCst);
        assert!(status.revision > Some(before), "{status:?} after {before}");
        assert_eq!(status.stale, broken, "{status:?}");
        check(&site, Arc::get_mut(&mut seen).unwrap()).await;
        if broken {
            killed_reading += 1;
            site.remove_mesh("broken.toml");
        }
        let mut writers = JoinSet::new();
        writers.spawn(edit(site.clone(), seen.clone()));
        writers.spawn(make_tokens(site.clone(), seen.clone()));
        writers.spawn(follow(site.clone(), seen.clone()));
        sleep(LIFE.mul_f64(rand::random())).await;
        running.kill();
        writers.shutdown().await;
    }
    let tokens = seen.tokens.lock().unwrap();
    let revoked = tokens.values().filter(|revoked| **revoked).count();
    println!(
        "{starts} restarts after kill -9, {killed_starting} more killed while starting, {killed_reading} beside a broken mesh: \
         {} mesh edits, {} revisions followed up to number {}, {} tokens acknowledged, {revoked} of them revoked; \
         slowest start {slowest:?}, all in {:?}",
        seen.written.load(Ordering::SeqCst),
        seen.revisions.lock().unwrap().len(),
        seen.number.load(Ordering::SeqCst),
        tokens.len(),
        begun.elapsed(),
    );
    assert!(tokens.len() > kills(), "the writers had time to write");
}

/// The mesh's authority is the one it was, every token is there, the revision is no older.
async fn check(site: &Site, seen: &mut Seen) {
    let token = site.token(false, &token_for("edge-1")).await.unwrap();
    let token: Token = token.parse().unwrap();
    assert_eq!(*seen.pin.get_or_insert(token.pin), token.pin, "another CA");
    let epoch = fs::read(site.state.join("control/epoch")).unwrap();
    assert_eq!(
        *seen.epoch.get_or_insert_with(|| epoch.clone()),
        epoch,
        "another epoch"
    );
    let listed = site.tokens().await;
    let listed: BTreeMap<_, _> = listed.into_iter().map(|t| (t.id, t.state)).collect();
    let tokens = seen.tokens.get_mut().unwrap();
    for (id, revoked) in &*tokens {
        let state = listed
            .get(id)
            .unwrap_or_else(|| panic!("token {id} is lost"));
        assert!(!revoked || state == "revoked", "{id} is {state} again");
    }
    tokens.insert(token.id, false);
    let mut stream = site.stream(&site.bearer().await).await.unwrap();
    stream.ask(REVISION).await;
    let (serial, number) = version(&stream.next().await.unwrap().system_version_info);
    let before = seen.serial.load(Ordering::SeqCst);
    assert!(
        serial >= before,
        "edit {serial} in force after edit {before} was"
    );
    assert!(number > seen.number.load(Ordering::SeqCst));
}

/// Writes one edit after another.
async fn edit(site: Arc<Site>, seen: Arc<Seen>) {
    loop {
        let serial = seen.written.fetch_add(1, Ordering::SeqCst) + 1;
        site.write_mesh("mesh.toml", &mesh(serial));
        sleep(Duration::from_millis(60).mul_f64(rand::random())).await;
    }
}

/// Makes tokens of both kinds, and takes every third back.
async fn make_tokens(site: Arc<Site>, seen: Arc<Seen>) {
    let note = |id: &str, revoked| {
        let mut tokens = seen.tokens.lock().unwrap();
        tokens.insert(id.to_owned(), revoked);
    };
    for turn in 0_u64.. {
        let bearer = turn % 4 == 3;
        let Ok(token) = site.token(bearer, &token_for("edge-2")).await else {
            // It has been killed: a token without an answer may or may not be there.
            return;
        };
        let Ok(Token { id, .. }) = token.parse() else {
            assert!(bearer, "{token}");
            continue;
        };
        note(&id, false);
        if turn % 3 == 2
            && site
                .ask(Method::POST, "/tokens/revoke", id.clone())
                .await
                .is_ok()
        {
            note(&id, true);
        }
    }
}

/// Notes every revision that is served.
async fn follow(site: Arc<Site>, seen: Arc<Seen>) {
    let Ok(bearer) = site.token(true, &token_for("edge-1")).await else {
        return;
    };
    let Ok(mut stream) = site.stream(&bearer).await else {
        return;
    };
    Delta::ask(&stream, REVISION).await;
    while let Ok(response) = stream.next().await {
        let (serial, number) = version(&response.system_version_info);
        seen.serial.fetch_max(serial, Ordering::SeqCst);
        seen.number.fetch_max(number, Ordering::SeqCst);
        seen.revisions.lock().unwrap().insert(number);
    }
}
