//! A pulled model is there whole and verified, or not at all, whatever its hub does; and what comes twice is no
//! more than what was thrown away.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use crate::hub_support::{COMMIT, Hub, Reply, Repo, digits_of, random_bytes};
use crate::pulls_support::{Folder, MODEL, PLACE, files_told, hub_of, repo};
use rkllmd::hub::{PullError, pull};
use serde_json::json;

const SIZE: usize = 300_000;

#[test]
fn a_model_comes_with_what_belongs_to_it_and_says_where_from() {
    let model = random_bytes(1, SIZE);
    let tokenizer = random_bytes(2, 2000);
    let repo = Repo::new(&[
        (MODEL, &model),
        ("tokenizer.json", &tokenizer),
        ("tokenizer_config.json", b"{}"),
        ("README.md", b"# A model"),
        ("onnx/tokenizer.json", b"another"),
    ]);
    let (folder, hub) = (Folder::new(), Hub::of(repo));
    let (pulled, told) = files_told(&folder.job(&hub, "hf.co/owner/name:Q4_0"));
    let pulled = pulled.expect("it is brought");
    assert_eq!((&*pulled.id, pulled.was_there), (PLACE, false));
    assert!(pulled.notes.is_empty(), "{:?}", pulled.notes);
    assert_eq!(folder.model().as_deref(), Some(&model[..]));
    assert_eq!(
        fs::read(folder.place().join("tokenizer.json")).unwrap(),
        tokenizer
    );
    let mut names: Vec<_> = fs::read_dir(folder.place())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            MODEL,
            "model.toml",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    let manifest = fs::read_to_string(folder.place().join("model.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().expect("a table");
    assert_eq!(
        manifest["aliases"][0].as_str(),
        Some("hf.co/owner/name:Q4_0")
    );
    let source = &manifest["source"];
    for (key, value) in [
        ("repository", PLACE),
        ("revision", "main"),
        ("commit", COMMIT),
        ("file", MODEL),
        ("sha256", &digits_of(&model)),
        ("licence", "apache-2.0"),
        ("endpoint", &hub.endpoint()),
    ] {
        assert_eq!(source[key].as_str(), Some(value), "{key}");
    }
    let last = told.last().expect("progress");
    assert_eq!((&*last.file, last.total), (MODEL, SIZE as u64));
    assert_eq!(last.digest, format!("sha256:{}", digits_of(&model)));
    assert!(!folder.has_leftovers());
    // The same once more, which brings nothing.
    let (asked, sent) = (hub.seen().len(), hub.sent());
    let again = folder.pull(&hub).expect("it is there");
    assert!(again.was_there && again.id == PLACE);
    assert_eq!((hub.seen().len(), hub.sent()), (asked + 1, sent));
}

#[test]
fn what_a_repository_lacks_comes_from_the_one_it_was_made_of() {
    let mut repo = Repo::new(&[
        ("m.rkllm", &random_bytes(1, 2000)),
        ("tokenizer.json", b"own"),
    ]);
    repo.card = json!({"base_model": "base/model"});
    let base = Repo::new(&[
        ("tokenizer.json", b"base"),
        ("chat_template.jinja", b"template"),
    ]);
    let hub = Hub::start(move |request, _| {
        let mut inner = request.clone();
        inner.path = request.path.replace("base/model", "owner/name");
        match inner.path == request.path {
            true => repo.answer(request),
            false => base.answer(&inner),
        }
    });
    let folder = Folder::new();
    let mut job = folder.job(&hub, "owner/name:m.rkllm");
    // Wherever this runs.
    job.force = true;
    pull(&job, &mut |_| {}).expect("it is brought");
    let read = |name: &str| fs::read_to_string(folder.place().join(name)).unwrap();
    let brought = [read("tokenizer.json"), read("chat_template.jinja")];
    assert_eq!(brought, ["own", "template"]);
    assert!(read("model.toml").contains("tokenizer = \"base/model\""));
    // Without it, it is there all the same, and says so.
    let mut repo = Repo::new(&[("m.rkllm", &random_bytes(1, 2000))]);
    repo.card = json!({"base_model": "gated/model"});
    let hub = Hub::start(move |request, _| match request.path.contains("gated") {
        true => Reply::status(401).header("x-error-code", "GatedRepo"),
        false => repo.answer(request),
    });
    let folder = Folder::new();
    let mut job = folder.job(&hub, "owner/name:m.rkllm");
    job.force = true;
    let pulled = pull(&job, &mut |_| {}).expect("it is brought");
    assert!(pulled.notes[0].contains("token-file"), "{:?}", pulled.notes);
}

#[test]
fn connections_that_break_anywhere_cost_nothing_twice() {
    for seed in 0..20 {
        let repo = repo(SIZE);
        let model = repo.files[MODEL].clone();
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let hub = hub_of(repo, move |reply, _| {
            let cut = random.lock().unwrap().usize(..=reply.body.len());
            reply.cut_at(cut)
        });
        let folder = Folder::new();
        let mut job = folder.job(&hub, PLACE);
        job.hub.max_tries = 1000;
        let (pulled, told) = files_told(&job);
        pulled.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(folder.model(), Some(model), "seed {seed}");
        assert_eq!(hub.sent(), SIZE as u64, "seed {seed}: every byte once");
        let completed: Vec<u64> = told.iter().map(|file| file.completed).collect();
        assert!(completed.is_sorted(), "seed {seed}: {completed:?}");
    }
}

#[test]
fn tries_that_bring_nothing_end_and_what_came_is_gone_on_with() {
    let broken = hub_of(repo(SIZE), |reply, nth| {
        reply.cut_at(if nth == 0 { 100_000 } else { 0 })
    });
    let folder = Folder::new();
    let refused = folder.pull(&broken);
    assert!(
        matches!(refused, Err(PullError::Network { tries: 6, .. })),
        "{refused:?}"
    );
    assert!(!folder.place().exists() && folder.has_leftovers());
    let hub = Hub::of(repo(SIZE));
    folder.pull(&hub).expect("it is brought");
    let asked: Vec<usize> = hub
        .seen()
        .iter()
        .filter(|it| it.is_for_file())
        .map(|it| it.offset())
        .collect();
    assert_eq!((asked, hub.sent()), (vec![100_000], 200_000));
    assert!(folder.model().is_some() && !folder.has_leftovers());
}

#[test]
fn wrong_bytes_are_never_a_model() {
    let spoil = |mut reply: Reply| {
        reply.body[10] ^= 1;
        reply
    };
    let hub = hub_of(repo(SIZE), move |reply, _| spoil(reply));
    let folder = Folder::new();
    let refused = folder.pull(&hub);
    assert!(
        matches!(refused, Err(PullError::Corrupt { .. })),
        "{refused:?}"
    );
    assert!(!folder.place().exists());
    assert_eq!(
        hub.sent(),
        SIZE as u64,
        "a file of one piece is not asked for again"
    );
    // Of pieces that do not belong together: anew, once, and right.
    let hub = hub_of(repo(SIZE), move |reply, nth| match nth {
        0 => spoil(reply).cut_at(1000),
        _ => reply,
    });
    folder.pull(&hub).expect("it is brought");
    assert_eq!(
        hub.sent(),
        SIZE as u64 + SIZE as u64,
        "1000, the rest, and all of it"
    );
    // Cut and spoiled each time: anew once, and not for ever.
    let hub = hub_of(repo(SIZE), move |reply, _| {
        let whole = reply.body.len();
        match whole == SIZE {
            true => spoil(reply).cut_at(whole / 2),
            false => reply,
        }
    });
    let folder = Folder::new();
    let refused = folder.pull(&hub);
    assert!(
        matches!(refused, Err(PullError::Corrupt { .. })),
        "{refused:?}"
    );
    assert!(!folder.place().exists());
    assert_eq!(hub.sent(), 2 * SIZE as u64);
}

#[test]
fn servers_that_cannot_go_on_begin_anew() {
    // Each gives the whole file whatever is asked for.
    let whole = repo(SIZE);
    let content = whole.files[MODEL].clone();
    let hub = hub_of(whole, move |reply, nth| {
        let mut reply = Reply {
            status: 200,
            body: content.clone(),
            headers: Vec::new(),
            ..reply
        };
        reply.cut_at = (nth == 0).then_some(1000);
        reply
    });
    let folder = Folder::new();
    folder.pull(&hub).expect("it is brought");
    assert_eq!(hub.sent(), SIZE as u64 + 1000);
    // Another part than the one that was asked for, and one that does not exist.
    let wrong_part = |reply: Reply| Reply {
        headers: vec![("content-range".to_owned(), "bytes 5-9/10".to_owned())],
        ..reply
    };
    let wrongs: [fn(Reply) -> Reply; 2] = [wrong_part, |_| Reply::status(416)];
    for wrong in wrongs {
        let hub = hub_of(repo(SIZE), move |reply, nth| match nth {
            0 => reply.cut_at(1000),
            1 => wrong(reply).cut_at(0),
            _ => reply,
        });
        let folder = Folder::new();
        folder.pull(&hub).expect("it is brought");
        assert_eq!(hub.sent(), SIZE as u64 + 1000);
    }
}

#[test]
fn what_a_hub_answers_instead_is_told_by_its_kind() {
    let code = |status, code: &str| Reply::status(status).header("x-error-code", code);
    let is = |error: &PullError, kind: &str| match error {
        PullError::NotFound { .. } => kind == "not found",
        PullError::Refused { .. } => kind == "refused",
        PullError::Busy { .. } => kind == "busy",
        PullError::Network { .. } => kind == "network",
        PullError::BadAnswer { .. } => kind == "bad answer",
        _ => false,
    };
    let table = [
        (code(401, "RepoNotFound"), "not found"),
        (code(404, "RepoNotFound"), "not found"),
        (code(404, "RevisionNotFound"), "not found"),
        (code(403, "GatedRepo"), "refused"),
        (Reply::status(401), "refused"),
        (Reply::status(404), "not found"),
        (Reply::status(400), "bad answer"),
        (Reply::status(429).header("retry-after", "3600"), "busy"),
        (Reply::status(503), "busy"),
        (Reply::status(500), "network"),
        (Reply::json(&json!({"sha": "../x"})), "bad answer"),
        (Reply::json(&json!([])), "bad answer"),
    ];
    for (reply, kind) in table {
        let shown = reply.clone();
        let hub = Hub::start(move |_, _| reply.clone());
        let folder = Folder::new();
        let error = folder.pull(&hub).expect_err("it is refused");
        assert!(is(&error, kind), "{shown:?}: {error:?}");
        assert!(!folder.place().exists());
    }
    // Those of files.
    for (reply, kind) in [
        (code(404, "EntryNotFound"), "not found"),
        (code(403, "GatedRepo"), "refused"),
        (Reply::status(500), "network"),
    ] {
        let hub = hub_of(repo(SIZE), move |_, _| reply.clone());
        let folder = Folder::new();
        let error = folder.pull(&hub).expect_err("it is refused");
        assert!(is(&error, kind), "{error:?}");
    }
}

#[test]
fn a_hub_that_is_busy_for_a_while_is_asked_again() {
    let hub = hub_of(repo(SIZE), |reply, nth| match nth {
        0 => Reply::status(500),
        1 => Reply::status(429).header("retry-after", "0"),
        2 => Reply::status(503),
        _ => reply,
    });
    let folder = Folder::new();
    folder.pull(&hub).expect("it is brought");
    assert!(folder.model().is_some());
}

#[test]
fn what_drips_or_stands_still_is_given_up() {
    let dripping = hub_of(repo(SIZE), |reply, _| Reply {
        drip: Some((100, Duration::from_millis(5))),
        ..reply
    });
    let standing = hub_of(repo(SIZE), |reply, _| Reply {
        hold_at: Some(1000),
        ..reply
    });
    let listing = Hub::start(|request, _| Reply {
        drip: (!request.is_for_file()).then_some((1, Duration::from_millis(5))),
        ..repo(SIZE).answer(request)
    });
    for hub in [dripping, standing, listing] {
        let folder = Folder::new();
        let mut job = folder.job(&hub, PLACE);
        job.hub.stall_timeout = Duration::from_millis(300);
        job.hub.slowest_bytes_per_second = 10_000_000;
        job.hub.max_tries = 2;
        let refused = pull(&job, &mut |_| {});
        assert!(
            matches!(refused, Err(PullError::Network { tries: 2, .. })),
            "{refused:?}"
        );
        assert!(!folder.place().exists());
    }
}

#[test]
fn two_pulls_of_one_model_do_not_meet() {
    let hub = hub_of(repo(SIZE), |reply, nth| Reply {
        hold_at: (nth == 0).then_some(1000),
        ..reply
    });
    let folder = Folder::new();
    std::thread::scope(|scope| {
        let mut job = folder.job(&hub, PLACE);
        job.hub.stall_timeout = Duration::from_secs(2);
        let first = scope.spawn(move || pull(&job, &mut |_| {}));
        hub.wait_for_hold(0);
        let second = folder.pull(&hub);
        assert!(matches!(second, Err(PullError::InUse { .. })), "{second:?}");
        first
            .join()
            .expect("no panic")
            .expect("it is brought after a stall");
    });
    assert_eq!(hub.sent(), SIZE as u64);
}

#[test]
fn another_model_in_its_place_stays() {
    let (hub, folder) = (Hub::of(repo(SIZE)), Folder::new());
    fs::create_dir_all(folder.place()).unwrap();
    fs::write(folder.place().join("own.gguf"), "own").unwrap();
    let refused = folder.pull(&hub);
    assert!(
        matches!(refused, Err(PullError::Exists { .. })),
        "{refused:?}"
    );
    let names = fs::read_dir(folder.place()).unwrap().count();
    assert_eq!((names, hub.sent()), (1, 0));
    let mut job = folder.job(&hub, PLACE);
    job.name = Some("other".to_owned());
    let pulled = pull(&job, &mut |_| {}).expect("it has another place");
    assert_eq!(pulled.id, "owner/other");
}
