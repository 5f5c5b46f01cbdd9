//! Keeper and proxy in one process, on the network that the tests have: what takes no powers.

use std::os::unix::fs::symlink;
use std::path::Path;

use tokio::time::timeout;

use super::*;
use crate::capture::kept::link::Linked;
use crate::capture::{AttachError, Sockets, Target};

const LONG: Duration = Duration::from_secs(20);

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Does something while a keeper for user `caller` runs in `directory`.
async fn beside<T>(directory: &Path, caller: u32, work: impl Future<Output = T>) -> T {
    let door = Door::open(directory, caller).unwrap();
    let stop = CancellationToken::new();
    let keeper = Keeper::new(door, Exemption::Mark);
    let working = async {
        let done = timeout(LONG, work).await.expect("in time");
        stop.cancel();
        done
    };
    let (done, kept) = tokio::join!(working, keeper.run(stop.clone()));
    kept.unwrap();
    done
}

/// Does something with sockets of whichever keeper is in `directory`.
async fn asking<T, F: Future<Output = T>>(
    directory: &Path,
    work: impl FnOnce(Sockets, tokio::sync::watch::Receiver<Linked>) -> F,
) -> T {
    let (sockets, link) = Sockets::kept(&directory.join(door::SOCKET));
    let stop = CancellationToken::new();
    let state = link.state();
    let working = async {
        let done = work(sockets, state).await;
        stop.cancel();
        done
    };
    tokio::join!(working, link.run(stop.clone())).0
}

fn words<const N: usize>(words: [&str; N]) -> [Arc<str>; N] {
    words.map(Arc::from)
}

#[tokio::test]
async fn what_is_asked_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let asked = asking(directory.path(), async |sockets, _state| {
        let here = sockets.host().await.unwrap();
        let ran = sockets.run(&here, &words(["echo", "hello"]), LONG).await;
        let ran = ran.unwrap().unwrap();
        assert!(ran.success && ran.said == "hello", "{ran:?}");
        let slow = words(["sleep", "60"]);
        let slow = sockets.run(&here, &slow, Duration::from_millis(20)).await;
        assert_eq!(slow.unwrap(), None);
        let none = sockets.run(&here, &words(["/nonexistent"]), LONG).await;
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::NotFound);
        let refused = sockets.listen(&here, 80).await.unwrap_err();
        assert!(
            refused.to_string().contains("none of the mesh's"),
            "{refused}"
        );
        for (name, missing) in [("lateen-no-such", true), ("/etc/passwd", false)] {
            let target = Target::Netns(Arc::from(name));
            let error = sockets.attach(&target).await.unwrap_err();
            assert_eq!(
                matches!(error, AttachError::Missing { .. }),
                missing,
                "{error}"
            );
        }
        // Longer than a message may be: who asked is told, and everybody else goes on.
        let long = "x".repeat(40 << 10);
        let error = sockets.run(&here, &words(["echo", &long]), LONG).await;
        assert!(error.is_err());
        assert!(sockets.run(&here, &words(["true"]), LONG).await.is_ok());
    });
    beside(directory.path(), me(), asked).await;
}

#[tokio::test]
async fn a_place_outlives_its_keeper() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("cart");
    symlink("/proc/self/ns/net", &link).unwrap();
    asking(directory.path(), async |sockets, mut state| {
        let target = Target::Netns(Arc::from(link.to_str().unwrap()));
        let truth = words(["true"]);
        let first = async {
            let stays = sockets.host().await.unwrap();
            let goes = sockets.attach(&target).await.unwrap();
            (stays, goes)
        };
        let (stays, goes) = beside(directory.path(), me(), first).await;
        state.wait_for(|s| *s != Linked::Up).await.unwrap();
        let error = sockets.run(&stays, &truth, LONG).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
        std::fs::remove_file(&link).unwrap();
        let again = async {
            state.wait_for(|s| *s == Linked::Up).await.unwrap();
            assert!(sockets.run(&stays, &truth, LONG).await.is_ok());
            goes.gone().await;
        };
        beside(directory.path(), me(), again).await;
    })
    .await;
}

#[tokio::test]
async fn another_user_is_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let asked = asking(directory.path(), async |sockets, mut state| {
        let error = sockets.host().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
        let down =
            |s: &Linked| matches!(s, Linked::Down { reason, .. } if reason.contains("hung up"));
        state.wait_for(down).await.unwrap();
    });
    beside(directory.path(), me() + 1, asked).await;
}
