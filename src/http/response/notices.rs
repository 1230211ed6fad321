//! What a client is told of its request beside the answer, in headers.

use std::borrow::Borrow;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use crate::generation::RunStart;
use crate::http::request::unread::Unread;

static X_NOT_APPLIED: HeaderName = HeaderName::from_static("x-rkllmd-not-applied");
static X_DROPPED: HeaderName = HeaderName::from_static("x-rkllmd-dropped-messages");
static X_DROPPED_TOKENS: HeaderName = HeaderName::from_static("x-rkllmd-dropped-tokens");
static X_TRUNCATED: HeaderName = HeaderName::from_static("x-rkllmd-truncated-inputs");
static X_RUN_MODE: HeaderName = HeaderName::from_static("x-rkllmd-run-mode");
static X_NEUTRALISED: HeaderName = HeaderName::from_static("x-rkllmd-neutralised");

/// The most bytes of one of them.
const LONGEST_NAMED: usize = 100;
/// Names of a client's that are told of one kind; of more the rest is not.
const MOST_TOLD: usize = 16;

/// So many messages were left out of a history that was too long.
pub(crate) fn tell_dropped(response: &mut Response, messages: usize) {
    if messages > 0 {
        let headers = response.headers_mut();
        headers.insert(X_DROPPED.clone(), HeaderValue::from(messages));
    }
}

/// So many tokens were left out of a conversation in tokens that was too long.
pub(crate) fn tell_dropped_tokens(response: &mut Response, tokens: usize) {
    if tokens > 0 {
        let headers = response.headers_mut();
        headers.insert(X_DROPPED_TOKENS.clone(), HeaderValue::from(tokens));
    }
}

/// How the library is run for it, where that is not as ever.
pub(crate) fn tell_run_mode(response: &mut Response, start: &RunStart) {
    let mode = match (start.reads_logits, start.has_loaded_penalties) {
        (false, false) => return,
        (true, false) => "logits",
        (false, true) => "loaded-penalties",
        (true, true) => "logits, loaded-penalties",
    };
    let headers = response.headers_mut();
    headers.insert(X_RUN_MODE.clone(), HeaderValue::from_static(mode));
}

/// Of so many inputs only the beginnings were embedded.
pub(crate) fn tell_truncated(response: &mut Response, inputs: usize) {
    if inputs > 0 {
        let headers = response.headers_mut();
        headers.insert(X_TRUNCATED.clone(), HeaderValue::from(inputs));
    }
}

/// `not_applied` are parameters that were asked for in vain; `neutralised` are the fields whose
/// control tokens were made plain text.
pub(crate) fn add_notices(
    response: &mut Response,
    not_applied: &[impl Borrow<str>],
    neutralised: &[&'static str],
) {
    let headers = response.headers_mut();
    for (name, listed) in [
        (&X_NOT_APPLIED, not_applied.join(", ")),
        (&X_NEUTRALISED, neutralised.join(", ")),
    ] {
        if !listed.is_empty()
            && let Ok(value) = HeaderValue::from_str(&listed)
        {
            headers.insert(name.clone(), value);
        }
    }
}

/// A name or a JSON pointer, of which a header can hold every character and a comma ends none.
pub(crate) fn in_a_header(pointer: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'%');
    pointer
        .bytes()
        .take(LONGEST_NAMED)
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// What is not read of the object at `at`.
pub(crate) fn unread_within(at: &str, unread: &Unread) -> Vec<String> {
    let names = unread.names.iter();
    names
        .map(|name| in_a_header(&format!("{at}.{name}")))
        .collect()
}

/// Adds what is not read of a request to its names, each once.
pub(crate) fn tell_unread(names: &mut Vec<String>, name: &str) {
    if names.len() < MOST_TOLD {
        let name = in_a_header(name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_once_and_not_without_end() {
        let mut names = Vec::new();
        for place in 0..100 {
            tell_unread(&mut names, &format!("tools[].{}", place / 2));
        }
        assert_eq!(names.len(), MOST_TOLD);
        assert_eq!(names[..2], ["tools[].0", "tools[].1"]);
    }

    #[test]
    fn a_pointer_is_one_entry_of_a_header() {
        assert_eq!(in_a_header("/a,b/ü%"), "/a%2Cb/%C3%BC%25");
    }
}
