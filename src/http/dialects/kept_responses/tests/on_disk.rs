//! What is kept on disk is there, whole, for the next daemon, within the bounds, and for its client alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::apart::{self, Subject};
use crate::auth::{ApiKey, Keyring, Role, Secret, creation_time};
use crate::durable_write::LockedFolder;
use crate::generation::Weight;
use crate::http::dialects::kept_items::Said;
use crate::http::dialects::kept_responses::file::{self, Kept};
use crate::http::dialects::kept_responses::moment::Moment;

fn settings() -> ResponseSettings {
    ResponseSettings {
        keep_on_disk: true,
        ..limits(10, 1 << 20)
    }
}

fn id(number: usize) -> String {
    format!("resp_{number:024x}")
}

fn said(number: usize) -> KeptResponse {
    let item = |text: &str| {
        let said = Said::Reasoning {
            text: format!("{text} {number}"),
        };
        let id = "rs_1".to_owned();
        Arc::new(Item { id, said })
    };
    KeptResponse {
        id: id(number),
        json: format!("{{\"number\":{number}}}").into(),
        items: vec![item("asked \"é\"\n"), item("said")],
        asked: 1,
        is_answered: true,
        is_background: false,
    }
}

fn key(name: &str) -> ClientKey {
    ClientKey::new(name).of_tenant("")
}

fn made(name: &str) -> ApiKey {
    ApiKey {
        name: name.parse().expect("a name"),
        digest: Secret::generate().expect("randomness").digest(),
        role: Role::User,
        models: None,
        weight: Weight::default(),
        tenant: None,
        created: creation_time(),
    }
}

fn opened(folder: &Path, settings: &ResponseSettings) -> KeptResponses {
    KeptResponses::of_folder(settings, Some(folder))
}

fn root(folder: &Path) -> PathBuf {
    folder.join("responses")
}

fn path(folder: &Path, client: &str, number: usize) -> PathBuf {
    let name = file::file_name(&id(number)).expect("an id");
    root(folder).join(file::folder_name(client)).join(name)
}

/// What was begun before is done: a folder has one call at a time.
fn is_quiet(folder: &Path) {
    let subject = Subject::KeptResponses(root(folder));
    apart::ask_and_wait(subject, Duration::from_secs(60), || ()).expect("an answer");
}

/// As it would lie there.
fn write(folder: &Path, client: &str, number: usize, at: Moment) {
    let kept = Kept {
        client: client.to_owned(),
        is_a_key: false,
        at,
    };
    let path = path(folder, client, number);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let content = file::encode(&said(number), &kept).expect("JSON");
    fs::write(path, content).expect("written");
}

fn has(kept: &KeptResponses, client: &str, number: usize) -> bool {
    kept.find(client, &id(number)).is_some()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn what_is_kept_is_there_for_the_next_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = opened(folder.path(), &settings());
    assert!(before.keep(&key("a"), said(1)) && before.keep(&ClientKey::new("b"), said(2)));
    let (first, second) = (path(folder.path(), "a", 1), path(folder.path(), "b", 2));
    assert_eq!((mode(&first), mode(&second)), (0o600, 0o600));
    let around = first.parent().expect("a folder");
    assert_eq!((mode(around), mode(&root(folder.path()))), (0o700, 0o700));
    drop(before);
    let after = opened(folder.path(), &settings());
    let (found, expected) = (after.find("a", &id(1)).expect("kept"), said(1));
    assert_eq!(
        (&found.json, &found.items),
        (&expected.json, &expected.items)
    );
    assert_eq!(
        (found.asked, found.is_answered, found.is_background),
        (1, true, false)
    );
    assert!(has(&after, "b", 2) && !has(&after, "b", 1) && !has(&after, "a", 2));
    after.delete("a", &id(1)).await.expect("deleted");
    after.delete("a", &id(1)).await.expect("gone");
    assert!(!around.exists() && second.exists() && !has(&after, "a", 1));
    // A client's text as an id names no file.
    after.delete("b", "../../x").await.expect("none");
    assert!(!has(&opened(folder.path(), &settings()), "a", 1));
}

#[test]
fn bounds_hold_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = opened(folder.path(), &settings());
    for number in 0..12 {
        assert!(kept.keep(&ClientKey::new("a"), said(number)));
    }
    is_quiet(folder.path());
    let there = |numbers: std::ops::Range<usize>| {
        let is_there = |number: &usize| path(folder.path(), "a", *number).exists();
        numbers.filter(is_there).collect::<Vec<_>>()
    };
    assert_eq!(there(0..12), (2..12).collect::<Vec<_>>());
    let fewer = ResponseSettings {
        max_kept_per_key: 3,
        ..settings()
    };
    let kept = opened(folder.path(), &fewer);
    is_quiet(folder.path());
    assert_eq!(there(0..12), [9, 10, 11]);
    assert!(has(&kept, "a", 9));
    let smaller = ResponseSettings {
        kept_limit_bytes: said(11).bytes(),
        ..fewer
    };
    let kept = opened(folder.path(), &smaller);
    is_quiet(folder.path());
    assert_eq!(there(0..12).len(), 1);
    assert!(kept.shelf.lock().expect("whole").bytes <= smaller.kept_limit_bytes);
    let none = ResponseSettings {
        max_kept_per_key: 0,
        ..smaller
    };
    opened(folder.path(), &none);
    is_quiet(folder.path());
    assert_eq!(there(0..12), [0usize; 0]);
}

#[test]
fn what_is_too_old_is_gone_over_restarts_and_the_rest_grows_older() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = |us: u64| {
        let now = Moment::now();
        Moment {
            // Of an earlier boot.
            boot: "earlier".to_owned(),
            us_since_epoch: now.us_since_epoch - us,
            ..now
        }
    };
    let for_us = u64::try_from(FOR.as_micros()).expect("small");
    write(folder.path(), "a", 1, before(for_us));
    write(folder.path(), "a", 2, before(for_us / 2));
    // A clock that was put back.
    let later = Moment {
        us_since_epoch: before(0).us_since_epoch + 10 * for_us,
        ..before(0)
    };
    write(folder.path(), "a", 3, later);
    let kept = opened(folder.path(), &settings());
    assert!(!has(&kept, "a", 1) && has(&kept, "a", 2) && has(&kept, "a", 3));
    assert!(!path(folder.path(), "a", 1).exists());
    let mut shelf = kept.shelf.lock().expect("whole");
    let later = Instant::now() + FOR / 2;
    assert!(shelf.find("a", &id(2), FOR, later).is_none());
    assert!(shelf.find("a", &id(3), FOR, later).is_some());
}

#[test]
fn what_is_broken_goes_and_what_is_foreign_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = Moment::now();
    for number in 0..6 {
        write(folder.path(), "a", number, now.clone());
    }
    let at = |number: usize| path(folder.path(), "a", number);
    let whole = fs::read(at(0)).expect("read");
    fs::write(at(1), &whole[..whole.len() / 2]).expect("cut");
    fs::write(at(2), "\u{0}").expect("other bytes");
    // Whole, and another's.
    fs::write(at(3), &whole).expect("copied");
    let later = String::from_utf8(whole).expect("UTF-8");
    let later = later.replacen("rkllmd-response 1 ", "rkllmd-response 9 ", 1);
    fs::write(at(4), later).expect("of a later version");
    let around = at(0).parent().expect("a folder").to_owned();
    let name = file::file_name(&id(7)).expect("an id");
    let half = around.join(format!(".{name}.new"));
    fs::write(&half, "half").expect("half written");
    let foreign = [
        root(folder.path()).join("notes.txt"),
        around.join("notes.json"),
        around.join("resp_1.json"),
    ];
    for path in &foreign {
        fs::write(path, "mine").expect("written");
    }
    let link = path(folder.path(), "a", 8);
    symlink(at(0), &link).expect("a link");
    let kept = opened(folder.path(), &settings());
    let found: Vec<usize> = (0..9).filter(|number| has(&kept, "a", *number)).collect();
    assert_eq!(found, [0, 5]);
    for gone in [&at(1), &at(2), &at(3), &half] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    for stays in foreign.iter().chain([&at(0), &at(4), &at(5), &link]) {
        assert!(stays.exists(), "{}", stays.display());
    }
}

#[test]
fn what_came_from_a_key_goes_with_it_from_disk_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = opened(folder.path(), &settings());
    for (number, name) in ["one", "other"].iter().enumerate() {
        assert!(kept.keep(&key(name), said(number)));
    }
    assert!(kept.keep(&ClientKey::new("address"), said(2)));
    let is_there = |client: &str, number| {
        let path = path(folder.path(), client, number);
        path.parent().is_some_and(Path::exists)
    };
    kept.keep_keys(&HashSet::from(["other".to_owned()]));
    is_quiet(folder.path());
    assert!(!is_there("one", 0) && is_there("other", 1) && is_there("address", 2));
    // Revoked while no daemon was there.
    let kept = opened(folder.path(), &settings());
    assert!(has(&kept, "other", 1));
    kept.keep_keys(&HashSet::new());
    is_quiet(folder.path());
    assert!(!is_there("other", 1) && is_there("address", 2));
}

#[test]
fn what_a_key_is_answered_after_its_end_is_on_no_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = CurrentKeys::default();
    let kept = opened(folder.path(), &settings()).with_keys(keys.clone());
    let [one, two, three] = ["one", "two", "three"].map(made);
    let are = |there: &[&ApiKey]| {
        let mut keyring = Keyring::default();
        for &key in there {
            keyring.add(key.clone()).expect("another name");
        }
        keys.set(keyring);
    };
    let client = one.client();
    are(&[&one, &two]);
    are(&[&two]);
    // Its request was under way, through other changes as well.
    are(&[&two, &three]);
    assert!(!kept.keep(&client, said(1)) && !has(&kept, client.name(), 1));
    is_quiet(folder.path());
    assert!(!path(folder.path(), client.name(), 1).exists());
    // Nothing was told of them.
    assert!(kept.keep(&two.client(), said(2)) && kept.keep(&three.client(), said(3)));
    assert!(kept.keep(&ClientKey::new(client.name()), said(4)));
    are(&[&one, &two]);
    assert!(kept.keep(&client, said(5)));
}

#[test]
fn without_the_setting_a_start_removes_what_is_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = opened(folder.path(), &settings());
    assert!(kept.keep(&ClientKey::new("a"), said(1)) && kept.keep(&ClientKey::new("b"), said(2)));
    let foreign = path(folder.path(), "b", 2).with_file_name("notes.txt");
    fs::write(&foreign, "mine").expect("written");
    let off = ResponseSettings {
        keep_on_disk: false,
        ..settings()
    };
    let kept = opened(folder.path(), &off);
    assert!(!has(&kept, "a", 1) && kept.disk_failures().is_none());
    assert!(!path(folder.path(), "a", 1).exists() && !path(folder.path(), "b", 2).exists());
    assert!(foreign.exists());
    fs::remove_file(&foreign).expect("removed");
    opened(folder.path(), &off);
    assert!(!root(folder.path()).exists());
    assert!(kept.keep(&ClientKey::new("a"), said(1)) && !root(folder.path()).exists());
}

#[tokio::test]
async fn what_cannot_be_written_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(root(folder.path()), "in the way").expect("written");
    for kept in [
        opened(folder.path(), &settings()),
        KeptResponses::of_folder(&settings(), None),
    ] {
        assert!(!kept.keep(&ClientKey::new("a"), said(1)) && !has(&kept, "a", 1));
        assert_eq!(kept.disk_failures(), Some(1));
    }
    fs::remove_file(root(folder.path())).expect("removed");
    let kept = opened(folder.path(), &settings());
    assert!(kept.keep(&ClientKey::new("a"), said(1)));
    // What cannot be removed is kept, and told.
    let around = path(folder.path(), "a", 1);
    fs::remove_file(&around).expect("removed");
    fs::create_dir(&around).expect("in the way");
    assert!(kept.delete("a", &id(1)).await.is_err() && has(&kept, "a", 1));
}

#[test]
fn what_is_written_too_late_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut kept = opened(folder.path(), &settings());
    let client = ClientKey::new("a");
    assert!(kept.keep(&client, said(1)));
    let first = path(folder.path(), "a", 1);
    let lock = LockedFolder::lock(first.parent().expect("a folder")).expect("locked");
    let limit = |kept: &mut KeptResponses, limit| {
        kept.disk.as_mut().expect("on disk").limit = limit;
    };
    limit(&mut kept, Duration::from_millis(50));
    assert!(!kept.keep(&client, said(2)) && !has(&kept, "a", 2));
    assert_eq!(kept.disk_failures(), Some(1));
    drop(lock);
    is_quiet(folder.path());
    assert!(first.exists() && !path(folder.path(), "a", 2).exists());
    limit(&mut kept, Duration::from_secs(60));
    assert!(kept.keep(&client, said(3)) && path(folder.path(), "a", 3).exists());
}
