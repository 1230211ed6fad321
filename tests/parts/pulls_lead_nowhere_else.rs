//! Where pulls connect to, and what they show there: the endpoint first, others only where a redirect may lead,
//! and the token to the endpoint alone.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::hub_support::{Hub, REPOSITORY, Reply, Repo, Request, random_bytes};
use crate::pulls_support::{Folder, MODEL, PLACE, hub_of, repo};
use rkllmd::confinement::Landlock;
use rkllmd::hub::{Job, PullError, pull};
use rkllmd::ipc::RawPath;

const TOKEN: &str = "hf_secret0123456789";
const SIZE: usize = 300_000;

/// A storage that gives the model whatever is asked for, and a hub that leads downloads there.
fn hub_with_storage(storage_at: impl Fn(&Hub) -> String) -> (Hub, Hub) {
    let content = repo(SIZE).files[MODEL].clone();
    let storage = Hub::start(move |request, _| repo(SIZE).file(request, &content));
    let base = storage_at(&storage);
    let hub = Hub::start(move |request, _| {
        let reply = repo(SIZE).answer(request);
        match request.is_for_file() {
            true => Reply {
                status: 302,
                body: Vec::new(),
                ..reply
            }
            .header(
                "location",
                format!("{base}/resolve/signed?X-Signature=secret"),
            ),
            false => reply,
        }
    });
    (hub, storage)
}

fn with_token(folder: &Folder, hub: &Hub) -> Job {
    let mut job = folder.job(hub, PLACE);
    let file = folder.path().join(".token");
    fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    job.hub.token_file = Some(RawPath::from(&file));
    job
}

fn authorization(request: &Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

#[test]
fn no_redirect_finds_this_machine_or_its_network() {
    let localhost = |storage: &Hub| format!("http://localhost:{}", storage.address.port());
    for to in [&localhost as &dyn Fn(&Hub) -> String, &Hub::endpoint] {
        let (hub, storage) = hub_with_storage(to);
        let folder = Folder::new();
        let refused = pull(&with_token(&folder, &hub), &mut |_| {});
        match refused {
            Err(PullError::Led { reason, .. }) => {
                assert!(reason.contains("redirect-hosts"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(storage.seen().len(), 0, "nothing was connected to");
        assert!(!folder.place().exists());
    }
    for location in [
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "ftp://10.0.0.1/",
        "http://user@127.0.0.1/",
        "relative",
    ] {
        let hub = Hub::start(move |request, _| match request.is_for_file() {
            true => Reply::status(302).header("location", location),
            false => repo(SIZE).answer(request),
        });
        let folder = Folder::new();
        let refused = folder.pull(&hub);
        let is_refused = matches!(
            refused,
            Err(PullError::Led { .. } | PullError::BadAnswer { .. })
        );
        assert!(is_refused, "{location}: {refused:?}");
    }
}

#[test]
fn a_named_host_is_led_to_without_the_token() {
    let (hub, storage) =
        hub_with_storage(|storage| format!("http://localhost:{}", storage.address.port()));
    let folder = Folder::new();
    let mut job = with_token(&folder, &hub);
    job.hub.redirect_hosts = vec!["localhost".to_owned()];
    pull(&job, &mut |_| {}).expect("it is brought");
    assert!(folder.model().is_some());
    let expected = format!("Bearer {TOKEN}");
    assert!(
        hub.seen()
            .iter()
            .all(|request| authorization(request) == Some(&expected))
    );
    let seen = storage.seen();
    assert!(!seen.is_empty());
    for request in seen {
        assert_eq!(authorization(&request), None, "{request:?}");
        assert!(!format!("{request:?}").contains(TOKEN));
    }
}

#[test]
fn redirects_end() {
    let hub = Hub::start(|request, _| match request.is_for_file() {
        true => Reply::status(302).header("location", request.path.clone()),
        false => repo(SIZE).answer(request),
    });
    let folder = Folder::new();
    let refused = folder.pull(&hub);
    assert!(
        matches!(refused, Err(PullError::BadAnswer { .. })),
        "{refused:?}"
    );
    let files = hub
        .seen()
        .iter()
        .filter(|request| request.is_for_file())
        .count();
    assert_eq!(files, 6, "the first and five more");
}

#[test]
fn a_repository_that_has_another_name_now_is_found() {
    let hub = Hub::start(|request, _| {
        let moved = request.path.replace("old/name", REPOSITORY);
        match moved == request.path {
            true => repo(SIZE).answer(request),
            false => Reply::status(307).header("location", moved),
        }
    });
    let folder = Folder::new();
    let mut job = with_token(&folder, &hub);
    job.asked = "old/name".to_owned();
    pull(&job, &mut |_| {}).expect("it is brought");
    let is_shown = |request: &Request| authorization(request).is_some();
    assert!(hub.seen().iter().all(is_shown), "it is the same hub");
}

#[test]
fn names_by_an_attacker_make_no_file() {
    for path in [
        "../../../evil-Q4_0.gguf",
        "/tmp/evil-Q4_0.gguf",
        "a/../../evil.gguf",
        "..",
        "a\nb.gguf",
    ] {
        let hub = Hub::of(Repo::new(&[(path, &random_bytes(1, 2000))]));
        let folder = Folder::new();
        let refused = folder.pull(&hub);
        assert!(
            matches!(refused, Err(PullError::BadAnswer { .. })),
            "{path}: {refused:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{path}");
    }
    // Links in the models folder lead no file out of it.
    let (folder, other) = (Folder::new(), Folder::new());
    std::os::unix::fs::symlink(other.path(), folder.path().join(".pulls")).unwrap();
    let refused = folder.pull(&Hub::of(repo(SIZE)));
    assert!(
        matches!(refused, Err(PullError::Folder { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

/// `rkllmd pull` with a token, which waits for nothing.
fn command(folder: &Folder, hub: &Hub, asked: &str) -> Command {
    let file: PathBuf = folder.path().join(".token");
    fs::write(&file, TOKEN).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rkllmd"));
    command
        .args(["pull", asked, "--config", "/dev/null", "--models"])
        .arg(folder.path())
        .env_clear()
        .env("RKLLMD_HUB__ENDPOINT", hub.endpoint())
        .env("RKLLMD_HUB__TOKEN_FILE", file)
        .env("RKLLMD_HUB__RETRY_WAIT", "0s")
        .env("RKLLMD_HUB__KEEP_FREE_BYTES", "0")
        .stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn the_command_says_how_it_ended() {
    let hub = Hub::of(repo(SIZE));
    let folder = Folder::new();
    let output = command(&folder, &hub, PLACE).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let line = format!("owner/name is in {}\n", folder.place().display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), line);
    let progress = said(&output);
    assert!(
        progress.contains("100%") && !progress.contains('\r'),
        "{progress}"
    );
    assert!(!progress.contains(TOKEN));
    for (hub, asked, code, words) in [
        (
            Hub::of(repo(SIZE)),
            "owner/absent",
            1,
            "the hub has no repository owner/absent",
        ),
        (
            Hub::of(repo(SIZE)),
            "owner/name:Q9_9",
            1,
            "\n  model-Q4_0.gguf would suit this machine",
        ),
        (
            Hub::of(repo(SIZE)),
            "https://evil.example/a/b",
            2,
            "names a host",
        ),
        (
            Hub::start(|_, _| Reply::status(500)),
            PLACE,
            75,
            "after 6 tries",
        ),
    ] {
        let folder = Folder::new();
        let output = command(&folder, &hub, asked).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{asked}: {output:?}");
        let text = said(&output);
        assert!(
            text.contains(words) && !text.contains(TOKEN),
            "{asked}: {text}"
        );
        assert!(!folder.place().exists());
    }
}

/// What gives up files with Landlock can gain no privileges either, which the kernel shows.
#[test]
fn the_command_gives_up_what_it_does_not_need() {
    let gains_nothing = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("of ours");
        let line = status.lines().find_map(|it| it.strip_prefix("NoNewPrivs:"));
        line.expect("the kernel tells").trim() == "1"
    };
    let is_there = Landlock::of_this_machine().lets_folders_move();
    if !is_there || gains_nothing("self") {
        eprintln!("NOT TESTED: whether the command is confined does not show on this machine");
    }
    for (setting, expected) in [("true", is_there), ("false", false)] {
        let hub = hub_of(repo(SIZE), |reply, _| Reply {
            hold_at: Some(1000),
            ..reply
        });
        let folder = Folder::new();
        let mut child = command(&folder, &hub, PLACE)
            .env("RKLLMD_CONFINEMENT__PULLS", setting)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        hub.wait_for_hold(0);
        let confined = gains_nothing(&child.id().to_string());
        child.kill().expect("it runs still");
        child.wait().expect("it has ended");
        assert_eq!(confined, expected || gains_nothing("self"), "{setting}");
    }
}

/// At fifty places of its file, in the middle of which the process is killed.
#[test]
fn a_killed_pull_leaves_no_model_and_is_gone_on_with() {
    const KILLS: usize = 50;
    let content = random_bytes(7, 2 << 20);
    let repo = Repo::new(&[(MODEL, &content)]);
    let hub = {
        let random = std::sync::Mutex::new(fastrand::Rng::with_seed(7));
        let files = std::sync::atomic::AtomicUsize::new(0);
        Hub::start(move |request, _| {
            let reply = repo.answer(request);
            let is_first = |count: &std::sync::atomic::AtomicUsize| {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < KILLS
            };
            match request.is_for_file() && is_first(&files) {
                true => Reply {
                    hold_at: Some(random.lock().unwrap().usize(..reply.body.len() / 8)),
                    ..reply
                },
                false => reply,
            }
        })
    };
    let folder = Folder::new();
    for kill in 0..KILLS {
        let mut child = command(&folder, &hub, PLACE)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("it runs");
        hub.wait_for_hold(kill);
        child.kill().expect("it runs still");
        child.wait().expect("it has ended");
        assert!(!folder.place().exists(), "after kill {kill}");
    }
    let output = command(&folder, &hub, PLACE).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(folder.model(), Some(content.clone()));
    let offsets: Vec<usize> = hub
        .seen()
        .iter()
        .filter(|it| it.is_for_file())
        .map(Request::offset)
        .collect();
    assert!(
        offsets.is_sorted(),
        "each goes on where another was killed: {offsets:?}"
    );
    assert!(offsets[KILLS] > 0, "{offsets:?}");
}
