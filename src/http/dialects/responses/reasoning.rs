//! How much a model is to think, and how its thoughts are given to clients to keep: as a text with a seal, so that
//! the daemon knows its own again. A text with another seal, or none, is no thought. What is opened counts as a client's
//! text all the same, since clients may send each other's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use utoipa::ToSchema;

use super::echo::{MOST_OF_A_NAME, refuse_longer};
use crate::auth::{SEAL_BYTES, SealingKey};
use crate::conversation::{ReasoningWish, Thinking};
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::together::{Inner, Together, fields_of};
use crate::http::response::notices::unread_within;
use crate::models::InstalledModel;

/// What a sealed text begins with: what it is, and the version of what follows.
pub(super) const THOUGHT: &str = "rkllmd.1.";
pub(super) const COMPACTION: &str = "rkllmd.compaction.1.";
const EFFORT: &str = "reasoning.effort";
const SUMMARY: &str = "reasoning.summary";

/// Whether and how much to think.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct ReasoningParameter {
    /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`: `none` is not to think, the others are told to
    /// templates that know them.
    #[schema(example = "low")]
    pub effort: Option<String>,
    /// Thoughts are given as they are, and never summarised.
    pub summary: Option<String>,
}

fields_of!(ReasoningParameter { effort, summary });

/// What is wished of thoughts.
#[derive(Debug, Default)]
pub(super) struct Thoughts {
    pub wish: ReasoningWish,
    /// As the request says it.
    pub effort: Option<String>,
    pub summary: Option<String>,
    pub not_applied: Vec<&'static str>,
    /// Names of what is not known.
    pub unread: Vec<String>,
}

pub(super) fn read(
    given: Option<Inner<ReasoningParameter>>,
    model: &InstalledModel,
) -> Result<Thoughts, RequestError> {
    let Some(Object(Together(ReasoningParameter { effort, summary }, unread))) = given else {
        return Ok(Thoughts::default());
    };
    refuse_longer(SUMMARY, summary.as_deref(), MOST_OF_A_NAME)?;
    let thinking = match effort.as_deref() {
        None => Thinking::Default,
        Some("none") => Thinking::Off,
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => Thinking::On,
        Some(other) => {
            return Err(RequestError::out_of_range(
                EFFORT,
                format!(
                    "must be `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`, not `{}`",
                    quote(other)
                ),
            ));
        }
    };
    let reply = model.reply.as_ref();
    let thinks = reply.is_some_and(|reply| reply.found.knows_thoughts());
    let mut not_applied = Vec::new();
    let wish = match (thinking, thinks) {
        // Clients ask it of every model.
        (Thinking::On, false) => {
            not_applied.push(EFFORT);
            ReasoningWish::default()
        }
        (thinking, _) => ReasoningWish {
            effort: effort.clone().filter(|_| thinking == Thinking::On),
            thinking,
        },
    };
    if summary.is_some() {
        not_applied.push(SUMMARY);
    }
    Ok(Thoughts {
        wish,
        effort,
        summary,
        not_applied,
        unread: unread_within("reasoning", &unread),
    })
}

/// What is sealed of a text: what it is too, so that nothing else is taken for it.
fn under_seal(kind: &str, text: &str) -> Vec<u8> {
    [kind.as_bytes(), text.as_bytes()].concat()
}

/// A text for a client to keep.
pub(super) fn sealed(kind: &str, text: &str, key: &SealingKey) -> String {
    let seal = key.seal(&under_seal(kind, text));
    let content = [&seal[..], text.as_bytes()].concat();
    format!("{kind}{}", STANDARD.encode(content))
}

/// The text of what a client has kept, if it is the daemon's own.
pub(super) fn opened(kind: &str, blob: &str, key: &SealingKey) -> Option<String> {
    let content = STANDARD.decode(blob.strip_prefix(kind)?).ok()?;
    let (seal, text) = content.split_at_checked(SEAL_BYTES)?;
    let text = std::str::from_utf8(text).ok()?;
    key.is_seal_of(seal, &under_seal(kind, text))
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_it_was_sealed_is_opened() {
        let key = SealingKey::of_this_process();
        let blob = sealed(THOUGHT, "so\nö", &key);
        assert_eq!(opened(THOUGHT, &blob, &key).as_deref(), Some("so\nö"));
        assert_eq!(opened(THOUGHT, &blob, &SealingKey::of_this_process()), None);
        let plain = STANDARD.encode("so");
        for forged in [
            "",
            THOUGHT,
            "rkllmd.1.?",
            &format!("{THOUGHT}{plain}"),
            &plain,
        ] {
            assert_eq!(opened(THOUGHT, forged, &key), None, "{forged}");
        }
        assert_eq!(
            opened(THOUGHT, &blob.replace("rkllmd.1", "rkllmd.2"), &key),
            None
        );
        // Nor is one kind taken for another.
        let other = blob.replace(THOUGHT, COMPACTION);
        assert_eq!(opened(COMPACTION, &other, &key), None);
        // Of every byte of it one other.
        for place in THOUGHT.len()..blob.len() {
            let mut bytes = blob.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(opened(THOUGHT, &forged, &key), None, "{place}");
        }
    }
}
