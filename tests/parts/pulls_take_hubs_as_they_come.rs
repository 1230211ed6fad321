//! Hubs, mirrors and what stands before them speak one protocol in many ways: what is right in any of them is brought.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::hub_support::{COMMIT, Hub, Reply, Repo, Request, digits_of, random_bytes};
use crate::pulls_support::{Folder, MODEL, PLACE, hub_of, repo};
use rkllmd::hub::{PullError, pull};

const SIZE: usize = 300_000;

/// In pieces, each of which tells its length; the whole has none.
fn chunked(reply: Reply) -> Reply {
    let mut body = Vec::new();
    for piece in reply.body.chunks(7000) {
        body.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        body.extend(piece);
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n\r\n");
    Reply {
        body,
        has_no_length: true,
        ..reply
    }
    .header("transfer-encoding", "chunked")
}

fn gzipped(reply: Reply) -> Reply {
    let mut coder = GzEncoder::new(Vec::new(), Compression::fast());
    coder.write_all(&reply.body).expect("memory takes it");
    let body = coder.finish().expect("memory takes it");
    Reply { body, ..reply }.header("content-encoding", "gzip")
}

fn is_brought(hub: &Hub, asked: &str, when: &str) {
    let folder = Folder::new();
    let pulled = pull(&folder.job(hub, asked), &mut |_| {});
    pulled.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(
        folder.model().as_deref() == Some(&repo(SIZE).files[MODEL]),
        "{when}"
    );
}

/// Percent-encoded bytes as they are.
fn decoded(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).filter(|_| *first == b'%');
        let digits = digits.map(|it| str::from_utf8(it).expect("digits"));
        match digits {
            Some(digits) => {
                bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn bodies_come_in_pieces_and_coded() {
    type Shape = fn(Reply) -> Reply;
    let shapes: [(&str, Shape); 3] = [
        ("in pieces", chunked),
        ("coded", gzipped),
        ("both", |reply| chunked(gzipped(reply))),
    ];
    for (when, shape) in shapes {
        let hub = Hub::start(move |request, _| {
            let reply = repo(SIZE).answer(request);
            match request.method == "HEAD" {
                true => reply,
                false => shape(reply),
            }
        });
        is_brought(&hub, PLACE, when);
        // What is cut then comes to its end all the same.
        let hub = hub_of(repo(SIZE), move |reply, nth| {
            let reply = shape(reply);
            let half = reply.body.len() / 2;
            match nth {
                0 => reply.cut_at(half),
                _ => reply,
            }
        });
        is_brought(&hub, PLACE, when);
    }
}

/// Each way to say where a file lies, and what only the first answer tells of it.
#[test]
fn redirects_lead_in_every_spelling() {
    for status in [301, 302, 303, 307, 308] {
        for location in [
            "../../../../storage/x?sig=a/../b",
            "./../../../../storage/./x",
            "/storage/x",
            "//HOST/storage/x",
            "http://HOST/storage/x",
        ] {
            let hub = Hub::start(move |request: &Request, _| {
                let repo = Repo {
                    lists_hashes: false,
                    ..repo(SIZE)
                };
                let model = repo.files[MODEL].clone();
                if request.path.starts_with("/storage/x") {
                    // Its own checksum is none that anybody knows.
                    let storage = Repo {
                        tells_hashes: false,
                        ..repo
                    };
                    let reply = storage.file(request, &model);
                    return reply.header("etag", "\"0123456789abcdef0123456789abcdef\"");
                }
                let reply = repo.answer(request);
                let host = request.headers.get("host").expect("a host");
                match request.path.contains("/resolve/") {
                    true => Reply {
                        status,
                        body: Vec::new(),
                        ..reply
                    }
                    .header("location", location.replace("HOST", host)),
                    false => reply,
                }
            });
            is_brought(&hub, PLACE, &format!("{status} {location}"));
        }
    }
}

#[test]
fn a_repository_that_was_renamed_is_found() {
    let hub = Hub::start(|request, _| {
        let mut inner = request.clone();
        inner.path = request.path.replace("new/home", "owner/name");
        match inner.path == request.path {
            true => Reply::status(307)
                .header("location", request.path.replace("owner/name", "new/home")),
            false => repo(SIZE).answer(&inner),
        }
    });
    is_brought(&hub, PLACE, "renamed");
}

#[test]
fn revisions_are_asked_for_as_they_are_called() {
    for (asked, revision) in [
        ("owner/name@refs/pr/1", "refs%2Fpr%2F1"),
        (
            "hf.co/owner/name@w8a8_g512-toolkitv1.1.1",
            "w8a8_g512-toolkitv1.1.1",
        ),
        ("https://huggingface.co/owner/name/tree/v1.2", "v1.2"),
        (
            "https://huggingface.co/owner/name/blob/v1.2/model-Q4_0.gguf?download=true",
            "v1.2",
        ),
    ] {
        let hub = Hub::start(move |request, _| {
            let mut inner = request.clone();
            let own = format!("/revision/{revision}?");
            inner.path = request.path.replace(&own, "/revision/main?");
            match inner.path == request.path && request.path.contains("/revision/") {
                true => Reply::status(404).header("x-error-code", "RevisionNotFound"),
                false => repo(SIZE).answer(&inner),
            }
        });
        is_brought(&hub, asked, asked);
    }
}

#[test]
fn names_are_asked_for_as_they_are_spelled() {
    for name in [
        "a model-Q4_0.gguf",
        "50%25 #1?-Q4_0.gguf",
        "模型-Q4_0.gguf",
        "d e/ü+&-Q4_0.gguf",
    ] {
        let content = random_bytes(3, SIZE);
        let repo = Repo::new(&[(name, &content)]);
        let hub = Hub::start(move |request, _| {
            let path = request.path.split('?').next().unwrap_or_default();
            let inner = Request {
                path: decoded(path),
                ..request.clone()
            };
            let own = format!("/owner/name/resolve/{COMMIT}/{name}");
            match inner.path == own {
                true => repo.file(request, &repo.files[name]),
                false => repo.answer(&inner),
            }
        });
        let folder = Folder::new();
        folder
            .pull(&hub)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let last = name.rsplit('/').next().expect("a name");
        let brought = std::fs::read(folder.place().join(last));
        assert!(brought.expect("the model") == content, "{name}");
    }
}

#[test]
fn checksums_are_known_in_every_spelling() {
    let digits = digits_of(&repo(SIZE).files[MODEL]);
    for (name, etag) in [
        ("etag", format!("\"{digits}\"")),
        ("etag", format!("W/\"{digits}\"")),
        ("ETag", digits.clone()),
        ("x-linked-etag", digits.to_uppercase()),
    ] {
        let repo = Repo {
            lists_hashes: false,
            tells_hashes: false,
            ..repo(SIZE)
        };
        let shown = etag.clone();
        let hub = Hub::start(move |request, _| repo.answer(request).header(name, etag.clone()));
        is_brought(&hub, PLACE, &format!("{name}: {shown}"));
    }
    // Without any there is nothing to verify it by.
    let hub = Hub::of(Repo {
        lists_hashes: false,
        tells_hashes: false,
        ..repo(SIZE)
    });
    let folder = Folder::new();
    let refused = folder.pull(&hub);
    assert!(
        matches!(refused, Err(PullError::NoHash { .. })),
        "{refused:?}"
    );
    assert!(!folder.place().exists());
    // The listing's count, where the file's address tells another one.
    let hub = hub_of(repo(SIZE), |reply, _| reply.header("x-linked-size", "7"));
    is_brought(&hub, PLACE, "another size");
}

/// Fields that nobody here knows, and others without which a hub is one all the same.
#[test]
fn listings_tell_more_and_less() {
    let digits = digits_of(&repo(SIZE).files[MODEL]);
    for (when, file) in [
        (
            "with a store's own hash",
            json!({"rfilename": MODEL, "size": SIZE, "xetHash": "cd".repeat(32),
                "lfs": {"sha256": digits, "size": SIZE, "pointerSize": 134}}),
        ),
        (
            "as lists of folders call it",
            json!({"rfilename": MODEL, "size": SIZE, "lfs": {"oid": digits}}),
        ),
        (
            "as both",
            json!({"rfilename": MODEL, "size": SIZE, "lfs": {"oid": digits, "sha256": digits}}),
        ),
        ("by its name alone", json!({"rfilename": MODEL})),
        (
            "with nothing in place of something",
            json!({"rfilename": MODEL, "size": null, "blobId": null, "lfs": null}),
        ),
    ] {
        let hub = Hub::start(move |request, _| {
            let reply = repo(SIZE).answer(request);
            let reply = reply.header("x-xet-hash", "cd".repeat(32));
            match request.path.starts_with("/api/") {
                true => Reply::json(&json!({
                    "_id": "0", "id": "owner/name", "sha": COMMIT, "gated": "auto", "usedStorage": 1,
                    "gguf": {"total": 1}, "siblings": [file], "spaces": [],
                })),
                false => reply,
            }
        });
        is_brought(&hub, PLACE, when);
    }
}
