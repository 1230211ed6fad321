//! Ids of requests and of calls: a prefix that tells the kind and 24 random hexadecimal digits.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderName, Uri};

use crate::generation::RequestId;

/// The standard library's keyed hash over a counter: the key is the operating system's randomness,
/// drawn once, and the counter keeps ids of one process apart.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
/// The header that gives a request's id to its client.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static COUNT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn for_request(uri: &Uri) -> RequestId {
    let prefix = match uri.path() {
        "/v1/chat/completions" => "chatcmpl",
        "/v1/completions" => "cmpl",
        _ => "req",
    };
    RequestId(random(prefix, '-').into())
}

/// The id of a call in whose format there is none.
pub(crate) fn for_call() -> String {
    random("call", '_')
}

fn random(prefix: &str, between: char) -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let high = KEY.hash_one((count, 0u8));
    let low = KEY.hash_one((count, 1u8)) as u32;
    format!("{prefix}{between}{high:016x}{low:08x}")
}
