use super::*;
use crate::supervisor::prefixes::marks::Marked;
use crate::supervisor::prefixes::record::{Identity, Owner};

fn record(bytes: u64) -> Record {
    Record {
        version: VERSION,
        of: Identity {
            model: "m".into(),
            file: "f".to_owned(),
            runtime: "r".to_owned(),
            adapter: None,
        },
        owner: Owner {
            tenant: String::new(),
            client: 1,
            has_key: true,
            is_shared: false,
        },
        marks: Marked::new("text").marks().clone(),
        tokens: 3,
        bytes,
        cell_bytes: None,
    }
}

fn store(folder: &Folder, id: PrefixId, content: &[u8]) {
    fs::write(folder.cache(id), content).unwrap();
    let bytes = folder.written(id).unwrap();
    folder.publish(id, &record(bytes)).unwrap();
}

fn ids(contents: &Contents) -> Vec<PrefixId> {
    contents.records.iter().map(|(id, _)| *id).collect()
}

#[test]
fn what_is_whole_survives_a_restart_and_is_its_users_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state/prefixes");
    let (folder, contents) = Folder::open(&path).unwrap();
    assert!(contents.records.is_empty());
    store(&folder, 7, b"cells");
    let mut daily = Daily::default();
    daily.add(5, 100);
    folder.remember(&daily).unwrap();
    drop(folder);
    let (folder, contents) = Folder::open(&path).unwrap();
    assert_eq!(contents.records, [(7, record(5))]);
    assert_eq!(contents.daily, daily);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(
        [mode(&folder.cache(7)), mode(&folder.record(7))],
        [0o600; 2]
    );
    folder.remove(&[7]);
    drop(folder);
    assert!(Folder::open(&path).unwrap().1.records.is_empty());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "written.json");
}

/// In whatever step of a save the daemon ends.
#[test]
fn what_is_half_done_goes_at_the_next_start_and_nothing_else_does() {
    let place = tempfile::tempdir().unwrap();
    let (folder, _) = Folder::open(place.path()).unwrap();
    store(&folder, 1, b"whole");
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at(".saving-9")).unwrap();
    fs::create_dir_all(at(".worker-9-1/saved/.saving-9")).unwrap();
    fs::write(at(".saving-9/0000000000000002.cache"), "half").unwrap();
    fs::write(folder.cache(3), "named and without a record").unwrap();
    fs::write(folder.cache(4), "with half a record").unwrap();
    fs::write(at("0000000000000004.json.new"), "{\"version\":1,").unwrap();
    fs::write(folder.cache(5), "cut").unwrap();
    folder.publish(5, &record(900)).unwrap();
    fs::write(folder.record(6), "{\"version\":1,").unwrap();
    folder.publish(8, &record(5)).unwrap();
    fs::write(folder.cache(9), "of another format").unwrap();
    let newer = Record {
        version: VERSION + 1,
        ..record(17)
    };
    folder.publish(9, &newer).unwrap();
    store(&folder, 10, &b"rkllm-cpu cache2 cut"[..]);
    for foreign in ["notes.txt", "abc.cache", "written.json"] {
        fs::write(at(foreign), "not the daemon's").unwrap();
    }
    drop(folder);
    let (_, contents) = Folder::open(place.path()).unwrap();
    assert_eq!(ids(&contents), [1]);
    let mut left: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let expected = [
        "0000000000000001.cache",
        "0000000000000001.json",
        "abc.cache",
        "notes.txt",
        "written.json",
    ];
    assert_eq!(left, expected);
}

/// By any program, after it was kept.
#[test]
fn what_is_not_as_long_as_it_was_is_not_whole() {
    let place = tempfile::tempdir().unwrap();
    let (folder, _) = Folder::open(place.path()).unwrap();
    store(&folder, 1, b"whole");
    assert!(folder.read_through(1, 5).unwrap());
    assert!(!folder.read_through(1, 6).unwrap());
    fs::write(folder.cache(1), "who").unwrap();
    assert!(!folder.read_through(1, 5).unwrap());
    fs::remove_file(folder.cache(1)).unwrap();
    assert!(folder.read_through(1, 5).is_err());
    fs::write(place.path().join("elsewhere"), "whole").unwrap();
    std::os::unix::fs::symlink(place.path().join("elsewhere"), folder.cache(1)).unwrap();
    assert!(folder.read_through(1, 5).is_err(), "no link is followed");
}

#[test]
fn a_folder_has_one_daemon() {
    let place = tempfile::tempdir().unwrap();
    let (first, _) = Folder::open(place.path()).unwrap();
    assert!(Folder::open(place.path()).is_err());
    drop(first);
    assert!(Folder::open(place.path()).is_ok());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Folder::open(&file.join("prefixes")).is_err());
}
