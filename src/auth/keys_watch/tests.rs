use std::fs;

use super::*;

fn count(current: &CurrentKeys) -> Option<usize> {
    current.get().map(|keyring| keyring.keys().count())
}

fn follower(file: &KeysFile, current: &CurrentKeys) -> Follower {
    let mut follower = Follower::new(file.clone(), current.clone());
    follower.stamp = Some(Stamp::of(file));
    follower
}

fn with_keys(names: &[&str]) -> String {
    let digest = "0".repeat(64);
    let keys = names.iter().map(|name| {
        format!("[[key]]\nname = '{name}'\nsha256 = '{digest}'\nrole = 'user'\ncreated = ''\n")
    });
    format!("version = 1\n{}", keys.collect::<String>())
}

#[test]
fn a_file_that_appears_locks_also_when_it_is_broken_or_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["broken", "unreadable"] {
        let file = KeysFile::new(folder.path().join(name));
        let current = CurrentKeys::default();
        let mut follower = follower(&file, &current);
        match name {
            "broken" => fs::write(file.path(), "version = ").unwrap(),
            // Root can read any file, but no folder.
            _ => fs::create_dir(file.path()).unwrap(),
        }
        follower.look();
        assert_eq!(count(&current), Some(0), "{name}");
    }
}

#[test]
fn the_file_can_lock_but_never_open() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeysFile::new(folder.path().join("keys.toml"));
    let current = CurrentKeys::default();
    let mut follower = follower(&file, &current);
    follower.look();
    assert_eq!(count(&current), None, "no file, no keys, no lock");

    let one = with_keys(&["a"]);
    fs::write(file.path(), &one).unwrap();
    follower.look();
    assert_eq!(count(&current), Some(1));

    fs::write(file.path(), "version = ").unwrap();
    follower.look();
    assert_eq!(count(&current), Some(1), "a broken file changes nothing");

    fs::write(file.path(), "version = 1\n").unwrap();
    follower.look();
    assert_eq!(
        count(&current),
        Some(0),
        "revoking the last key opens nothing"
    );

    fs::write(file.path(), &one).unwrap();
    follower.look();
    fs::remove_file(file.path()).unwrap();
    follower.look();
    assert_eq!(count(&current), Some(0), "nor does removing the file");
}

/// Whatever lies at the path, the keys that were read before stay, it is said, and what is then
/// put there counts.
#[test]
fn whatever_lies_there_is_outlived() {
    use rustix::fs::{CWD, FileType, Mode};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let file = KeysFile::new(&path);
    let current = CurrentKeys::default();
    let mut follower = follower(&file, &current);
    let mend = |names: &[&str]| {
        let new = folder.path().join("new");
        fs::write(&new, with_keys(names)).unwrap();
        fs::rename(new, &path).unwrap();
    };
    mend(&["a", "b"]);
    follower.look();
    let lay: [(&str, &dyn Fn()); 6] = [
        ("a folder", &|| fs::create_dir(&path).unwrap()),
        ("a named pipe", &|| {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        }),
        ("cannot be read", &|| {
            std::os::unix::fs::symlink(&path, &path).unwrap();
        }),
        ("bytes", &|| {
            let file = fs::File::create(&path).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
        ("UTF-8", &|| fs::write(&path, [0xff; 100]).unwrap()),
        ("keys.toml", &|| {
            fs::write(&path, "x".repeat(1 << 20)).unwrap();
        }),
    ];
    for (what, lay) in lay {
        fs::remove_file(&path).unwrap();
        lay();
        follower.look();
        follower.look();
        let trouble = current.trouble().expect(what);
        assert!(
            trouble.contains(what) && trouble.contains("stay valid") && trouble.len() < 1000,
            "{what}: {trouble}"
        );
        assert_eq!(count(&current), Some(2), "{what}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        mend(&["b"]);
        follower.look();
        assert_eq!(count(&current), Some(1), "after {what}");
        assert_eq!(current.trouble(), None, "after {what}");
        mend(&["a", "b"]);
        follower.look();
    }
}

/// The clock of files ticks slowly, and inodes are used again.
#[test]
fn a_change_that_leaves_the_stamp_as_it_was_is_seen_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeysFile::new(folder.path().join("keys.toml"));
    fs::write(file.path(), with_keys(&["a"])).unwrap();
    let current = CurrentKeys::default();
    let mut follower = follower(&file, &current);
    for name in ["b", "c", "d"].repeat(50) {
        fs::write(file.path(), with_keys(&[name])).unwrap();
        follower.look();
        let keys = current.get().unwrap();
        let names: Vec<_> = keys.keys().map(|key| key.name.to_string()).collect();
        assert_eq!(names, [name]);
    }
}

#[tokio::test]
async fn who_has_changed_the_file_waits_for_no_look_of_the_followers_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeysFile::new(folder.path().join("keys.toml"));
    let (orders, ordered) = mpsc::channel();
    let current = CurrentKeys::followed(orders.clone());
    let follower = follower(&file, &current);
    let never = Duration::from_secs(24 * 60 * 60);
    let following = thread::spawn(move || follower.run(&ordered, never));
    fs::write(file.path(), with_keys(&["a"])).unwrap();
    current.look_now();
    let has_one = current.wait_for(|keys| keys.is_some_and(|keys| keys.keys().count() == 1));
    tokio::time::timeout(Duration::from_secs(20), has_one)
        .await
        .expect("the key");
    orders.send(Order::End).unwrap();
    following.join().unwrap();
}
