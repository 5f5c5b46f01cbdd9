//! Each way that files are changed, in real directories.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Far beyond the longest burst, and far below the poll: what comes within it came by an event.
const SOON: Duration = Duration::from_secs(10);

/// A mesh directory with one file, in a directory of its own.
fn mesh() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mesh = dir.path().join("mesh");
    fs::create_dir(&mesh).unwrap();
    fs::write(mesh.join("a.toml"), "1").unwrap();
    (dir, mesh)
}

async fn told(watcher: &mut Watcher, what: &str) {
    assert!(
        timeout(SOON, watcher.changed()).await.is_ok(),
        "{what} was not told"
    );
}

/// Nothing is told: proven by a later change being the first one told.
fn quiet(watcher: &Watcher, what: &str) {
    assert!(!watcher.changes.has_changed().unwrap(), "{what} was told");
}

#[tokio::test]
async fn edits_in_place_and_by_renaming_are_told() {
    let (_dir, mesh) = mesh();
    let mut watcher = Watcher::new(&mesh).unwrap();
    fs::write(mesh.join("a.toml"), "2").unwrap();
    told(&mut watcher, "writing in place").await;
    fs::write(mesh.join("a.toml"), "3").unwrap();
    told(&mut watcher, "writing as much once more").await;
    fs::write(mesh.join(".a.toml.swp"), "4").unwrap();
    fs::rename(mesh.join(".a.toml.swp"), mesh.join("a.toml")).unwrap();
    told(&mut watcher, "renaming over it").await;
    fs::rename(mesh.join("a.toml"), mesh.join("a.toml~")).unwrap();
    fs::write(mesh.join("a.toml"), "5").unwrap();
    told(&mut watcher, "keeping a backup").await;
    fs::write(mesh.join("b.toml"), "1").unwrap();
    told(&mut watcher, "a new file").await;
    fs::remove_file(mesh.join("b.toml")).unwrap();
    told(&mut watcher, "removing a file").await;
    let mut file = File::options()
        .append(true)
        .open(mesh.join("a.toml"))
        .unwrap();
    file.write_all(b"6").unwrap();
    told(&mut watcher, "appending, the file still open").await;
}

#[tokio::test]
async fn directories_are_followed_as_they_come_and_go() {
    let (_dir, mesh) = mesh();
    let mut watcher = Watcher::new(&mesh).unwrap();
    fs::create_dir_all(mesh.join("x/y/z")).unwrap();
    fs::write(mesh.join("x/y/z/c.toml"), "1").unwrap();
    told(&mut watcher, "a file in new directories").await;
    fs::write(mesh.join("x/y/z/c.toml"), "2").unwrap();
    told(&mut watcher, "an edit far down").await;
    fs::rename(mesh.join("x"), mesh.join("w")).unwrap();
    told(&mut watcher, "moving a directory").await;
    fs::write(mesh.join("w/y/z/c.toml"), "3").unwrap();
    told(&mut watcher, "an edit after the move").await;
    fs::remove_dir_all(mesh.join("w")).unwrap();
    told(&mut watcher, "removing a directory").await;
}

#[tokio::test]
async fn a_checkout_of_many_files_is_told_and_nothing_after_it_is_lost() {
    let (_dir, mesh) = mesh();
    let mut watcher = Watcher::new(&mesh).unwrap();
    for i in 0..300 {
        let sub = mesh.join(format!("d{}", i % 7));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("{i}.toml.lock")), "1").unwrap();
        fs::rename(
            sub.join(format!("{i}.toml.lock")),
            sub.join(format!("{i}.toml")),
        )
        .unwrap();
    }
    told(&mut watcher, "the checkout").await;
    // The burst may have been cut in two. What is told last, all of it is there.
    while watcher.changes.borrow_and_update().eq(&0) {
        told(&mut watcher, "the rest").await;
    }
    fs::write(mesh.join("d3/3.toml"), "2").unwrap();
    told(&mut watcher, "an edit in a directory that was new").await;
}

#[tokio::test]
async fn a_symlink_swapped_is_told_wherever_it_is_in_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path();
    for release in ["41", "42"] {
        let conf = base.join("releases").join(release).join("conf");
        fs::create_dir_all(&conf).unwrap();
        fs::write(conf.join("a.toml"), release).unwrap();
    }
    let swap = |to: &str| {
        symlink(format!("releases/{to}"), base.join("next")).unwrap();
        fs::rename(base.join("next"), base.join("current")).unwrap();
    };
    swap("41");
    symlink("current/conf", base.join("mesh")).unwrap();
    let mut watcher = Watcher::new(&base.join("mesh")).unwrap();
    swap("42");
    told(&mut watcher, "the swap").await;
    fs::write(base.join("releases/42/conf/a.toml"), "43").unwrap();
    told(&mut watcher, "an edit of the new release").await;
    swap("41");
    told(&mut watcher, "the swap back").await;
    fs::write(base.join("releases/41/conf/b.toml"), "44").unwrap();
    told(&mut watcher, "a new file in the old release").await;
    fs::remove_file(base.join("mesh")).unwrap();
    symlink("releases/42/conf", base.join("mesh")).unwrap();
    told(&mut watcher, "the directory's own symlink").await;
}

#[tokio::test]
async fn files_projected_as_kubernetes_does_are_told() {
    let (_dir, mesh) = mesh();
    fs::remove_file(mesh.join("a.toml")).unwrap();
    let project = |version: &str| {
        fs::create_dir(mesh.join(version)).unwrap();
        fs::write(mesh.join(version).join("a.toml"), version).unwrap();
        symlink(version, mesh.join("..data_tmp")).unwrap();
        fs::rename(mesh.join("..data_tmp"), mesh.join("..data")).unwrap();
    };
    project("..1");
    symlink("..data/a.toml", mesh.join("a.toml")).unwrap();
    let mut watcher = Watcher::new(&mesh).unwrap();
    project("..2");
    told(&mut watcher, "the second projection").await;
    fs::remove_dir_all(mesh.join("..1")).unwrap();
    project("..3");
    told(&mut watcher, "the third projection").await;
}

#[tokio::test]
async fn a_linked_file_edited_where_it_lies_is_told() {
    let (dir, mesh) = mesh();
    let elsewhere = dir.path().join("elsewhere.txt");
    fs::write(&elsewhere, "1").unwrap();
    symlink(&elsewhere, mesh.join("b.toml")).unwrap();
    let mut watcher = Watcher::new(&mesh).unwrap();
    fs::write(&elsewhere, "2").unwrap();
    told(&mut watcher, "the edit").await;
}

#[tokio::test]
async fn a_directory_removed_and_made_again_is_told() {
    let (dir, mesh) = mesh();
    let mut watcher = Watcher::new(&mesh).unwrap();
    fs::remove_dir_all(&mesh).unwrap();
    told(&mut watcher, "the removal").await;
    fs::create_dir(&mesh).unwrap();
    fs::write(mesh.join("a.toml"), "1").unwrap();
    told(&mut watcher, "the return").await;
    fs::write(mesh.join("a.toml"), "2").unwrap();
    told(&mut watcher, "an edit after it").await;
    fs::rename(&mesh, dir.path().join("old")).unwrap();
    told(&mut watcher, "moving it away").await;
    fs::rename(dir.path().join("old"), &mesh).unwrap();
    told(&mut watcher, "moving it back").await;
}

#[tokio::test]
async fn a_parent_moved_away_and_back_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("etc");
    fs::create_dir_all(parent.join("lateen/mesh")).unwrap();
    fs::write(parent.join("lateen/mesh/a.toml"), "1").unwrap();
    let mut watcher = Watcher::new(&parent.join("lateen/mesh")).unwrap();
    fs::rename(&parent, dir.path().join("old")).unwrap();
    told(&mut watcher, "moving the parent away").await;
    fs::rename(dir.path().join("old"), &parent).unwrap();
    told(&mut watcher, "moving it back").await;
}

#[tokio::test]
async fn a_directory_that_does_not_exist_yet_is_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = dir.path().join("not/yet");
    let mut watcher = Watcher::new(&mesh).unwrap();
    fs::create_dir_all(&mesh).unwrap();
    fs::write(mesh.join("a.toml"), "1").unwrap();
    told(&mut watcher, "its arrival").await;
}

#[tokio::test]
async fn other_files_and_reading_are_not_told() {
    let (dir, mesh) = mesh();
    fs::create_dir(mesh.join(".git")).unwrap();
    let mut watcher = Watcher::new(&mesh).unwrap();
    fs::write(mesh.join(".git/index"), "1").unwrap();
    fs::write(mesh.join("notes.txt"), "1").unwrap();
    fs::write(mesh.join(".a.toml.swp"), "1").unwrap();
    fs::write(dir.path().join("neighbour.toml"), "1").unwrap();
    let _read = fs::read(mesh.join("a.toml")).unwrap();
    quiet(&watcher, "a file that is none of the mesh");
    fs::write(mesh.join("a.toml"), "2").unwrap();
    told(&mut watcher, "an edit").await;
    assert_eq!(*watcher.changes.borrow(), 1, "told once, for the edit");
}

#[tokio::test]
async fn a_change_outlives_a_dropped_future() {
    let (_dir, mesh) = mesh();
    let mut watcher = Watcher::new(&mesh).unwrap();
    for round in 0..5 {
        // Raced against something that is ready at once, many times over.
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = std::future::ready(()) => {}
                () = watcher.changed() => panic!("round {round}"),
            }
        }
        fs::write(mesh.join("a.toml"), format!("{round}")).unwrap();
        let lost = timeout(Duration::from_millis(1), watcher.changed()).await;
        if lost.is_err() {
            told(&mut watcher, "the change after a dropped wait").await;
        }
    }
}

#[tokio::test]
async fn what_no_event_tells_is_found_by_looking() {
    let (_dir, mesh) = mesh();
    let mut watcher = Watcher::polling_every(&mesh, Duration::from_millis(20)).unwrap();
    // Without a watch of its own there is only the poll.
    let (signal, (sender, changes)) = (Arc::new(Signal::default()), watch::channel(0));
    let mut look = Lookout::new(
        mesh.clone(),
        Duration::from_millis(20),
        Arc::clone(&signal),
        sender,
    );
    look.plan = Arc::new(Plan::new(&mesh));
    drop(std::mem::replace(&mut watcher.changes, changes));
    fs::write(mesh.join("a.toml"), "22").unwrap();
    let thread = thread::spawn(move || look.run());
    told(&mut watcher, "the change").await;
    signal.lock().stop = true;
    signal.woken.notify_one();
    thread.join().unwrap();
}

#[test]
fn a_burst_ends_when_it_is_quiet_and_in_any_case() {
    let signal = Signal::default();
    let begin = Instant::now();
    signal.event(false);
    signal.event(true);
    assert!(matches!(signal.wait(POLL), Wake::Settled { certain: true }));
    assert!(begin.elapsed() >= QUIET);
    assert!(matches!(signal.wait(Duration::ZERO), Wake::Poll));
    let now = Instant::now();
    *signal.lock() = Burst {
        first: now.checked_sub(LONGEST_BURST),
        last: Some(now + Duration::from_secs(60)),
        certain: false,
        stop: false,
    };
    assert!(matches!(
        signal.wait(POLL),
        Wake::Settled { certain: false }
    ));
    signal.lock().stop = true;
    assert!(matches!(signal.wait(POLL), Wake::Stop));
}

#[test]
fn dropping_the_watcher_ends_its_thread() {
    let (_dir, mesh) = mesh();
    let watcher = Watcher::new(&mesh).unwrap();
    let signal = Arc::downgrade(&watcher.signal);
    drop(watcher);
    // The library's own thread holds on to its handler until it has ended, too.
    let deadline = Instant::now() + SOON;
    while signal.strong_count() > 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(signal.strong_count(), 0);
}
