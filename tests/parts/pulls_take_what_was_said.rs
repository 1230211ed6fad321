//! A pull takes no more than its hub has said and its disk has room for, and believes nothing that cannot be.

use std::fs;

use crate::hub_support::{Hub, Reply, Repo, random_bytes};
use crate::pulls_support::{Folder, MODEL, PLACE, hub_of, repo};
use crate::root_support::is_root_for;
use rkllmd::hub::{PullError, pull};

const SIZE: usize = 300_000;

#[test]
fn a_body_of_another_length_costs_nothing_that_has_come() {
    let others: [fn(Reply) -> Reply; 2] = [
        // A page of words, whatever was asked for.
        |_| Reply {
            body: b"Sign in first".to_vec(),
            ..Reply::status(200)
        },
        // Longer than was said.
        |reply| Reply {
            body: vec![0; SIZE + 1],
            headers: Vec::new(),
            status: 200,
            ..reply
        },
    ];
    for other in others {
        let folder = Folder::new();
        let hub = hub_of(repo(SIZE), move |reply, nth| match nth {
            0 => reply.cut_at(1000),
            _ => other(reply).cut_at(0),
        });
        let refused = folder.pull(&hub);
        assert!(
            matches!(refused, Err(PullError::Corrupt { .. })),
            "{refused:?}"
        );
        assert!(!folder.place().exists());
        let hub = Hub::of(repo(SIZE));
        folder.pull(&hub).expect("it is brought");
        assert_eq!(hub.sent(), SIZE as u64 - 1000);
    }
}

#[test]
fn a_body_without_a_length_is_cut_off_at_the_files() {
    let without = |reply: Reply| Reply {
        has_no_length: true,
        ..reply
    };
    let hub = hub_of(repo(SIZE), move |reply, nth| match nth {
        0 => without(reply).cut_at(1000),
        _ => without(reply),
    });
    let folder = Folder::new();
    folder.pull(&hub).expect("it is brought");
    assert_eq!(hub.sent(), SIZE as u64, "every byte once");
    // One that would never end.
    let hub = hub_of(repo(SIZE), move |mut reply, _| {
        reply.body.resize(10 * SIZE, 0);
        without(reply)
    });
    let folder = Folder::new();
    match folder.pull(&hub) {
        // What comes behind the last byte of the file may come in a piece of its own, and is nobody's.
        Ok(_) => assert_eq!(folder.model(), Some(repo(SIZE).files[MODEL].clone())),
        Err(PullError::Corrupt { .. }) => assert!(!folder.place().exists()),
        Err(other) => panic!("{other}"),
    }
    let held = fs::read_dir(folder.path()).expect("the folder");
    assert!(held.count() <= 1, "the model, or what has come of it");
}

#[test]
fn a_size_that_only_an_address_tells_is_not_believed_blindly() {
    for (file, size) in [
        (MODEL, u64::MAX),
        (MODEL, (1 << 42) + 1),
        ("tokenizer.json", 1 << 30),
    ] {
        let mut silent = Repo::new(&[
            (MODEL, &random_bytes(1, SIZE)),
            ("tokenizer.json", &random_bytes(2, 2000)),
        ]);
        silent.lists_hashes = false;
        let hub = Hub::start(move |request, _| {
            let mut reply = silent.answer(request);
            let is_told = request.method == "HEAD" && request.path.ends_with(file);
            for (name, value) in &mut reply.headers {
                if is_told && name == "x-linked-size" {
                    *value = size.to_string();
                }
            }
            reply
        });
        let folder = Folder::new();
        let refused = folder.pull(&hub);
        assert!(
            matches!(refused, Err(PullError::BadAnswer { .. })),
            "{file} of {size}: {refused:?}"
        );
        assert_eq!(hub.sent(), 0);
    }
}

#[test]
fn room_that_others_take_meanwhile_is_noticed() {
    const LARGE: usize = 20 << 20;
    let folder = Folder::new();
    let other = folder.path().join("other");
    let hub = hub_of(repo(LARGE), move |reply, _| {
        fs::write(&other, b"two").expect("it fits");
        reply
    });
    let mut job = folder.job(&hub, PLACE);
    job.hub.quota_bytes = Some(LARGE as u64 + 2);
    let refused = pull(&job, &mut |_| {});
    let over = PullError::Quota {
        would_hold: LARGE as u64 + 3,
        quota: LARGE as u64 + 2,
    };
    assert_eq!(refused, Err(over));
    assert!(!folder.place().exists());
}

#[test]
fn a_file_without_a_checksum_is_not_brought() {
    let mut silent = repo(SIZE);
    silent.lists_hashes = false;
    let hub = Hub::of(silent.clone());
    let folder = Folder::new();
    folder.pull(&hub).expect("its own address tells it");
    assert!(hub.seen().iter().any(|request| request.method == "HEAD"));
    silent.tells_hashes = false;
    let (hub, folder) = (Hub::of(silent), Folder::new());
    let refused = folder.pull(&hub);
    assert!(
        matches!(refused, Err(PullError::NoHash { .. })),
        "{refused:?}"
    );
    assert_eq!(hub.sent(), 0);
}

#[test]
fn room_is_asked_for_before_anything_comes() {
    let (hub, folder) = (Hub::of(repo(SIZE)), Folder::new());
    let mut job = folder.job(&hub, PLACE);
    job.hub.quota_bytes = Some(SIZE as u64 - 1);
    let refused = pull(&job, &mut |_| {}).expect_err("it is refused");
    let over = PullError::Quota {
        would_hold: SIZE as u64,
        quota: SIZE as u64 - 1,
    };
    assert_eq!(refused, over);
    job.hub.quota_bytes = None;
    job.hub.keep_free_bytes = u64::MAX;
    let refused = pull(&job, &mut |_| {}).expect_err("it is refused");
    assert!(
        matches!(refused, PullError::NoSpace { needed, free, .. } if needed == SIZE as u64 && free > 0),
        "{refused:?}"
    );
    assert_eq!(hub.sent(), 0);
}

/// A file system of one MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(mounted.expect("mount").success());
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
    }
}

#[test]
fn a_full_disk_is_told_with_what_is_needed_and_what_is_free() {
    if !is_root_for("mounting a small disk") {
        return;
    }
    let disk = SmallDisk::mount();
    let folder = Folder::new();
    let job_on = |hub: &Hub| {
        let mut job = folder.job(hub, PLACE);
        job.models = rkllmd::ipc::RawPath::from(disk.0.path());
        job
    };
    let hub = Hub::of(repo(2 << 20));
    let refused = pull(&job_on(&hub), &mut |_| {}).expect_err("it has no room");
    assert!(
        matches!(refused, PullError::NoSpace { needed, free, .. } if needed == 2 << 20 && free <= 1 << 20),
        "{refused:?}"
    );
    assert_eq!(hub.sent(), 0);
    // There was room when it began.
    let filler = disk.0.path().join("filler");
    let written = filler.clone();
    let hub = hub_of(repo(600 << 10), move |reply, _| {
        fs::write(&written, vec![1u8; 700 << 10]).expect("it fits");
        reply
    });
    let refused = pull(&job_on(&hub), &mut |_| {}).expect_err("the disk is full");
    assert!(
        matches!(refused, PullError::NoSpace { needed, .. } if needed > 0),
        "{refused:?}"
    );
    assert!(!disk.0.path().join(PLACE).exists());
    // What has come is gone on with once there is room.
    fs::remove_file(filler).expect("it is there");
    let hub = Hub::of(repo(600 << 10));
    pull(&job_on(&hub), &mut |_| {}).expect("it is brought");
    assert!(hub.sent() < 600 << 10, "{} bytes came", hub.sent());
}
