//! A prompt cache has its name only when it is whole. What a run, a worker or a daemon left
//! unfinished is an error to the client that asks for it, and is gone; what had the name before stays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon_support::Setup;
use crate::handle_support::{MODEL, TestSupervisor, call, prompt, run, saving};
use crate::root_support::is_root_for;
use rkllmd::library_calls::{Call, LibraryError, PromptCacheParam};

fn load(cache: &str) -> Call {
    Call::LoadPromptCache {
        prompt_cache_path: cache.to_owned(),
    }
}

fn caches(test: &TestSupervisor) -> PathBuf {
    test.folder.path().join("state/prompt-caches")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn is_broken(error: &LibraryError, cache: &str) -> bool {
    matches!(error, LibraryError::PromptCacheBroken { name, .. } if name == cache)
}

/// The vendor's 1.3.1: a header, ids, keys and values.
fn vendors(tokens: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [0_u32, 8, tokens]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    bytes.extend((0..tokens).flat_map(u32::to_le_bytes));
    bytes.extend(vec![0; tokens as usize * 32]);
    bytes
}

fn writes(bytes: &[u8]) -> String {
    format!("tokens = [\"a\"]\nsaved-cache = {bytes:?}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_was_not_written_whole_is_an_error_and_is_removed() {
    let whole = vendors(4);
    let cpu = [&b"rkllm-cpu cache2"[..], &[1; 80]].concat();
    for scenario in [
        writes(&whole[..9]),
        writes(&whole[..20]),
        writes(&whole[..28]),
        writes(&whole[..whole.len() - 1]),
        writes(&cpu),
        writes(&[]),
        "tokens = [\"a\"]\nsaves-no-cache = true\n".to_owned(),
    ] {
        let test = TestSupervisor::new("1_3_1", &scenario);
        fs::create_dir_all(caches(&test)).unwrap();
        fs::write(caches(&test).join("kept"), "of before").unwrap();
        let handle = test.open().await;
        for name in ["new", "kept"] {
            let error = run(&handle, saving("one two", name)).await.unwrap_err();
            assert!(is_broken(&error, name), "{scenario}: {error}");
            assert_eq!(names(&caches(&test)), ["kept"], "{scenario}");
        }
        assert_eq!(
            fs::read_to_string(caches(&test).join("kept")).unwrap(),
            "of before"
        );
        // The handle lives on.
        run(&handle, prompt("three")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cache_gets_its_name_at_the_end_of_its_run() {
    let test = TestSupervisor::new("1_3_1", &writes(&vendors(4)));
    let handle = test.open().await;
    for _ in 0..2 {
        run(&handle, saving("one two", "p")).await.unwrap();
        assert_eq!(names(&caches(&test)), ["p"]);
        assert_eq!(fs::read(caches(&test).join("p")).unwrap(), vendors(4));
    }
}

/// A small tmpfs is the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_for_which_the_disk_has_no_room_is_an_error_and_is_removed() {
    if !is_root_for("mounting a small disk") {
        return;
    }
    let size = 64 << 10;
    let filler = format!("tokens = [\"a\"]\nsaved-cache = [{}]\n", "1, ".repeat(size));
    let test = TestSupervisor::new("1_3_1", &filler);
    fs::create_dir_all(caches(&test)).unwrap();
    let disk = SmallDisk::mount(&caches(&test), 32 << 10);
    let handle = test.open().await;
    let error = run(&handle, saving("one", "p")).await.unwrap_err();
    assert!(is_broken(&error, "p"), "{error}");
    assert!(error.to_string().contains("no room"), "{error}");
    assert!(
        names(&caches(&test)).is_empty(),
        "{:?}",
        names(&caches(&test))
    );
    drop(handle);
    drop(disk);
}

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, bytes: u32) -> Self {
        let options = format!("size={bytes}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(folder)
            .status();
        assert!(mounted.expect("mount").success());
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_saves_leaves_nothing() {
    let dies = "tokens = [\"a\", \"b\", \"c\"]\n\
        [[fault]]\ncall = \"run\"\nkind = \"segv\"\nafter-tokens = 1\n";
    let test = TestSupervisor::new("1_3_1", dies);
    let handle = test.open().await;
    let error = run(&handle, saving("one", "p")).await.unwrap_err();
    assert!(matches!(error, LibraryError::WorkerDied { .. }), "{error}");
    crate::handle_support::in_time(async {
        while !names(&caches(&test)).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Lost before its first result, the run is made again, and its cache is that of the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_made_again_saves_its_own() {
    let once = "tokens = [\"a\"]\n\
        [[fault]]\ncall = \"run\"\nkind = \"segv\"\nin-prefill = true\nonce = \"died\"\n";
    let test = TestSupervisor::new("1_3_1", &format!("prefill-delay-ms = 20\n{once}"));
    let handle = test.open().await;
    run(&handle, saving("one", "p")).await.unwrap();
    assert_eq!(names(&caches(&test)), ["p"]);
    call(&handle, load("p")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_was_cut_off_is_not_loaded_and_is_removed() {
    let test = TestSupervisor::new("1_3_1", "tokens = [\"a\"]");
    fs::create_dir_all(caches(&test)).unwrap();
    let handle = test.open().await;
    let whole = vendors(4);
    for (name, bytes) in [("empty", &[][..]), ("cut", &whole[..28])] {
        fs::write(caches(&test).join(name), bytes).unwrap();
        let error = call(&handle, load(name)).await.unwrap_err();
        assert!(is_broken(&error, name), "{error}");
        assert!(!caches(&test).join(name).exists(), "{name}");
    }
    let mut request = prompt("x");
    request.infer.prompt_cache_params = Some(PromptCacheParam {
        save_prompt_cache: 0,
        prompt_cache_path: "again".to_owned(),
    });
    fs::write(caches(&test).join("again"), &whole[..28]).unwrap();
    let error = run(&handle, request).await.unwrap_err();
    assert!(is_broken(&error, "again"), "{error}");
    assert!(names(&caches(&test)).is_empty());
}

#[test]
fn what_a_daemon_left_when_it_was_killed_is_removed_by_the_next_one() {
    let setup = Setup::new();
    let caches = setup.folder().join("state/prompt-caches");
    fs::create_dir_all(caches.join(".saving-281474976710657")).unwrap();
    fs::write(caches.join(".saving-281474976710657/p"), "half").unwrap();
    fs::write(caches.join("p"), "whole").unwrap();
    let daemon = setup.start();
    assert_eq!(names(&caches), ["p"]);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_save_one_name_at_once_the_last_one_has_it() {
    let test = TestSupervisor::with("1_3_1", &[(MODEL, &writes(&vendors(4)))], |settings| {
        settings.models.max_loaded = 2;
    });
    let (first, second) = (test.open().await, test.open().await);
    for _ in 0..5 {
        let (one, other) = tokio::join!(
            run(&first, saving("hello", "p")),
            run(&second, saving("good day", "p"))
        );
        one.unwrap();
        other.unwrap();
        assert_eq!(names(&caches(&test)), ["p"]);
        assert_eq!(fs::read(caches(&test).join("p")).unwrap(), vendors(4));
    }
}
