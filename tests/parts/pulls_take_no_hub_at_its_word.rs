//! What a hub says or gives that cannot be right is refused by its kind, and never a model; and none that leads elsewhere
//! learns the token.

use std::sync::{Arc, OnceLock};

use crate::hub_support::{Hub, Reply, Repo};
use crate::pulls_support::{Folder, MODEL, PLACE, hub_of, repo};
use rkllmd::hub::{PullError, pull};
use rkllmd::ipc::RawPath;

const SIZE: usize = 300_000;
const TOKEN: &str = "hf_secret0123456789";

fn is_bad(hub: &Hub, words: &str) {
    let folder = Folder::new();
    let error = folder.pull(hub).expect_err("it is refused");
    let is_kind = matches!(
        error,
        PullError::BadAnswer { .. } | PullError::Corrupt { .. }
    );
    assert!(
        is_kind && error.to_string().contains(words),
        "{words}: {error:?}"
    );
    assert!(!folder.place().exists(), "{words}");
}

fn brings(hub: &Hub, when: &str) {
    let folder = Folder::new();
    let pulled = folder.pull(hub);
    pulled.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(
        folder.model().as_ref() == Some(&repo(SIZE).files[MODEL]),
        "{when}"
    );
}

/// Nobody has asked for it, and it is not known.
#[test]
fn a_coding_that_is_not_known_is_said_to_be_that() {
    let strange = |reply: Reply| reply.header("content-encoding", "br");
    is_bad(&hub_of(repo(SIZE), move |reply, _| strange(reply)), "`br`");
    let hub = Hub::start(move |request, _| strange(repo(SIZE).answer(request)));
    is_bad(&hub, "`br`");
}

#[test]
fn what_stands_in_a_models_place_is_none() {
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {SIZE}\n",
        "ab".repeat(32)
    );
    // In the place of a file whose size is known, and as a file of its own, whose checksum is right.
    let text = pointer.clone().into_bytes();
    let hub = hub_of(repo(SIZE), move |reply, _| Reply {
        body: text.clone(),
        ..reply
    });
    is_bad(&hub, &format!("it has {} bytes", pointer.len()));
    let hub = Hub::of(Repo::new(&[(MODEL, pointer.as_bytes())]));
    is_bad(&hub, "a pointer of Git LFS");
    let hub = Hub::of(Repo::new(&[(MODEL, b"")]));
    is_bad(&hub, "is empty");
    // Beside a model that is well an empty file is not taken.
    let hub = Hub::of(Repo::new(&[
        (MODEL, &repo(SIZE).files[MODEL]),
        ("tokenizer.json", b""),
        ("generation_config.json", b"{}"),
    ]));
    let folder = Folder::new();
    folder.pull(&hub).expect("it is brought");
    assert!(folder.model().is_some() && !folder.place().join("tokenizer.json").exists());
    assert!(folder.place().join("generation_config.json").exists());
}

/// Parts that are right, but not those that were asked for, and none at all.
#[test]
fn parts_that_were_not_asked_for_are_none() {
    let range = |from: usize, to: usize| format!("bytes {from}-{to}/{SIZE}");
    // Less than what is left, again and again.
    let content = repo(SIZE).files[MODEL].clone();
    let hub = Hub::start(move |request, _| {
        let offset = request.offset();
        match request.is_for_file() && offset > 0 {
            true => {
                let end = (offset + 90_000).min(SIZE);
                Reply {
                    body: content[offset..end].to_vec(),
                    ..Reply::status(206)
                }
                .header("content-range", range(offset, end - 1))
            }
            false if request.is_for_file() => repo(SIZE).answer(request).cut_at(1000),
            false => repo(SIZE).answer(request),
        }
    });
    brings(&hub, "less than was asked for");
    assert_eq!(hub.sent(), SIZE as u64, "every byte once");
    // Another beginning, another whole, no words, and a part although all was asked for.
    for wrong in [
        Some("bytes 0-299999/300000"),
        Some("bytes 1001-299999/300000"),
        Some("bytes 1000-299999/300001"),
        Some("bytes 1000-299999/*"),
        Some("1000-299999/300000"),
        None,
    ] {
        let hub = hub_of(repo(SIZE), move |reply, nth| match nth {
            0 => reply.cut_at(1000),
            1 => {
                let mut reply = reply;
                reply.headers.retain(|(name, _)| name != "content-range");
                match wrong {
                    Some(range) => reply.header("content-range", range),
                    None => reply,
                }
                .cut_at(0)
            }
            _ => reply,
        });
        brings(&hub, &format!("{wrong:?}"));
    }
}

/// Who is led away and back asks for what others say, and shows the token for none of it.
#[test]
fn the_token_is_not_shown_where_others_lead() {
    let storage = Arc::new(OnceLock::<String>::new());
    let away = Arc::clone(&storage);
    let hub = Hub::start(move |request, _| {
        let reply = repo(SIZE).answer(request);
        let model = repo(SIZE).files[MODEL].clone();
        match request.path.strip_prefix("/back") {
            Some(_) => repo(SIZE).file(request, &model),
            None if request.is_for_file() => {
                let base = away.get().expect("the storage");
                Reply::status(302).header("location", format!("{base}/x"))
            }
            None => reply,
        }
    });
    let home = hub.endpoint();
    let other = Hub::start(move |_, _| {
        Reply::status(302).header("location", format!("{home}/back/resolve/x"))
    });
    storage.set(other.endpoint()).expect("once");
    let folder = Folder::new();
    let mut job = folder.job(&hub, PLACE);
    let file = folder.path().join(".token");
    std::fs::write(&file, TOKEN).expect("a file");
    job.hub.token_file = Some(RawPath::from(&file));
    job.hub.redirect_hosts = vec!["127.0.0.1".to_owned()];
    pull(&job, &mut |_| {}).expect("it is brought");
    assert!(folder.model().is_some());
    for request in hub.seen() {
        let is_shown = request.headers.contains_key("authorization");
        let is_back = request.path.starts_with("/back");
        assert_eq!(is_shown, !is_back, "{request:?}");
    }
    let shown = format!("{:?}", other.seen());
    assert!(!shown.contains(TOKEN), "{shown}");
}

/// Whoever has to agree or sign in first is told so, in the hub's words, whichever of its answers says it.
#[test]
fn closed_repositories_say_that_they_are() {
    for (status, code) in [
        (401, Some("GatedRepo")),
        (403, Some("GatedRepo")),
        (403, None),
        (401, None),
    ] {
        for at_listing in [true, false] {
            let hub = Hub::start(move |request, _| {
                let refusal =
                    Reply::status(status).header("x-error-message", "Access to it is restricted.");
                let refusal = match code {
                    Some(code) => refusal.header("x-error-code", code),
                    None => refusal,
                };
                match at_listing || request.path.contains("/resolve/") {
                    true => refusal,
                    false => repo(SIZE).answer(request),
                }
            });
            let folder = Folder::new();
            let error = folder.pull(&hub).expect_err("it is refused");
            assert!(
                matches!(error, PullError::Refused { .. }),
                "{status} {code:?}: {error:?}"
            );
            let text = error.to_string();
            assert!(text.contains("Access to it is restricted."), "{text}");
            assert!(text.contains("token-file"), "{text}");
            assert!(!folder.place().exists());
        }
    }
}
