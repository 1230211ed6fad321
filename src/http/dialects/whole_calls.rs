//! Calls for clients that take an object as arguments. A call that the budget cut, or whose arguments are no
//! object or one that no text can hold, cannot be told to them as one; what there is of it is content.

use serde_json::value::RawValue;

use crate::chat::WholeCall;
use crate::http::request::half_pairs;

/// What there is of a call, as text.
pub(super) fn as_content(call: &WholeCall) -> String {
    let name = serde_json::Value::from(call.name.as_str());
    let arguments = &call.arguments;
    match object_like(arguments) {
        true => format!(r#"{{"name": {name}, "arguments": {arguments}}}"#),
        false => format!(r#"{{"name": {name}, "arguments": {arguments}"#),
    }
}

fn object_like(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The object that a text is, in one line. One with half of a surrogate pair is none: its client could not
/// send it back, as it is refused in a body.
pub(super) fn object(text: &str) -> Option<Box<RawValue>> {
    let text = match text.trim() {
        // Of a function that takes nothing.
        "" => "{}",
        text => text,
    };
    if !text.starts_with('{') || !object_like(text) || half_pairs::are_in(text.as_bytes()) {
        return None;
    }
    RawValue::from_string(without_white_space(text)).ok()
}

/// JSON without the white space between its tokens, and so without an end of a line.
pub(super) fn without_white_space(json: &str) -> String {
    let (mut in_text, mut is_escaped) = (false, false);
    let keep = |c: &char| {
        match (in_text, is_escaped, c) {
            (true, true, _) => is_escaped = false,
            (true, false, '\\') => is_escaped = true,
            (_, false, '"') => in_text = !in_text,
            _ => {}
        }
        in_text || !c.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}
