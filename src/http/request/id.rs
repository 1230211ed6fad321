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

/// The same header in Anthropic's API.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

static COUNT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn for_request(uri: &Uri) -> RequestId {
    let (prefix, between) = match uri.path() {
        "/v1/chat/completions" => ("chatcmpl", '-'),
        "/v1/completions" => ("cmpl", '-'),
        "/v1/messages" | "/v1/messages/count_tokens" => ("req", '_'),
        _ => ("req", '-'),
    };
    RequestId(random(prefix, between).into())
}

/// Of a run of a JSON-RPC handle.
pub(crate) fn for_run() -> RequestId {
    RequestId(random("run", '-').into())
}

/// Of a request that is a message on a connection.
pub(crate) fn for_a_message() -> RequestId {
    RequestId(random("req", '-').into())
}

/// Of an answer with an id of its own, which has its request's digits.
pub(crate) fn for_message(request: &RequestId) -> String {
    let digits = request.0.rsplit(['_', '-']).next().unwrap_or_default();
    format!("msg_{digits}")
}

/// The id of a call in whose format there is none.
pub(crate) fn for_call() -> String {
    random("call", '_')
}

/// Likewise in the words of Anthropic's API.
pub(crate) fn for_tool_use() -> String {
    random("toolu", '_')
}

/// Of a response, which has its request's digits.
pub(crate) fn for_response(request: &RequestId) -> String {
    let digits = request.0.rsplit(['_', '-']).next().unwrap_or_default();
    format!("resp_{digits}")
}

/// Of an item of a response, whose `kind` it begins with.
pub(crate) fn for_item(kind: &str) -> String {
    random(kind, '_')
}

/// Tells this start of the daemon from every other, without a hyphen.
pub(crate) fn of_this_start() -> &'static str {
    static START: LazyLock<String> =
        LazyLock::new(|| format!("{:012x}", KEY.hash_one("start") >> 16));
    &START
}

fn random(prefix: &str, between: char) -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let high = KEY.hash_one((count, 0u8));
    let low = KEY.hash_one((count, 1u8)) as u32;
    format!("{prefix}{between}{high:016x}{low:08x}")
}
