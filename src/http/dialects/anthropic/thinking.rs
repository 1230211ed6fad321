//! How much a model is to think, and how its thoughts are given and come back.
//!
//! A thought is given with a signature, as clients expect it, and is taken back with any: its text is the
//! client's, like all else that it sends. A thought that is not shown travels in its signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use utoipa::ToSchema;

use crate::conversation::{ReasoningWish, Thinking};
use crate::http::request::body::Object;
use crate::http::request::error::RequestError;
use crate::http::request::together::{Inner, Together, fields_of};
use crate::http::response::notices::unread_within;
use crate::models::InstalledModel;

/// What signatures begin with: the version of what follows.
const VERSION: &str = "rkllmd.1.";

/// Whether and how much to think.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct ThinkingParameter {
    /// `enabled`, `disabled` or `adaptive`, which here is `enabled`.
    #[schema(required, nullable = false, example = "enabled")]
    r#type: Option<String>,
    /// The most tokens of thoughts, at least 1; a thought that has used them is closed, and the answer goes
    /// on behind it. Default: the model's own.
    #[schema(minimum = 1)]
    budget_tokens: Option<i64>,
    /// `summarized`: thoughts are given as they are; `omitted`: only with their signatures. Default
    /// `summarized`.
    #[schema(example = "summarized")]
    display: Option<String>,
}

fields_of!(ThinkingParameter {
    r#type,
    budget_tokens,
    display,
});

/// What is wished of thoughts.
#[derive(Debug)]
pub(super) struct Thoughts {
    pub wish: ReasoningWish,
    /// `None`: as many tokens as the model's owner has it.
    pub budget_tokens: Option<u32>,
    pub display: Display,
    pub not_applied: Vec<&'static str>,
    /// Names of what is not known.
    pub unread: Vec<String>,
}

/// What of thoughts is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Display {
    Shown,
    Omitted,
}

const FIELD: &str = "thinking";
pub(super) const BUDGET: &str = "thinking.budget_tokens";
const EFFORT: &str = "output_config.effort";

/// `effort` is what `output_config` says of it.
pub(super) fn read(
    given: Option<Inner<ThinkingParameter>>,
    effort: Option<String>,
    model: &InstalledModel,
) -> Result<Thoughts, RequestError> {
    let mut thoughts = Thoughts {
        wish: ReasoningWish::default(),
        budget_tokens: None,
        display: Display::Shown,
        not_applied: Vec::new(),
        unread: Vec::new(),
    };
    let reply = model.reply.as_ref();
    let thinks = reply.is_some_and(|reply| reply.found.knows_thoughts());
    if let Some(Object(Together(given, unread))) = given {
        thoughts.unread = unread_within(FIELD, &unread);
        let kind = given.r#type;
        let kind = kind.ok_or_else(|| RequestError::missing("thinking.type"))?;
        let budget_tokens = match given.budget_tokens {
            None => None,
            Some(tokens @ 1..) => Some(u32::try_from(tokens).unwrap_or(u32::MAX)),
            Some(_) => return Err(RequestError::out_of_range(BUDGET, "must be at least 1")),
        };
        match (kind.as_str(), thinks) {
            ("disabled", _) => thoughts.wish.thinking = Thinking::Off,
            ("enabled" | "adaptive", true) => {
                thoughts.wish.thinking = Thinking::On;
                thoughts.budget_tokens = budget_tokens;
            }
            // Clients ask it of every model.
            _ => thoughts.not_applied.push(FIELD),
        }
        match given.display.as_deref() {
            None | Some("summarized") => {}
            Some("omitted") => thoughts.display = Display::Omitted,
            Some(_) => thoughts.not_applied.push("thinking.display"),
        }
    }
    match effort.as_deref() {
        None => {}
        Some("low" | "medium" | "high" | "xhigh" | "max")
            if thinks && thoughts.wish.thinking != Thinking::Off =>
        {
            thoughts.wish.effort = effort;
        }
        Some(_) => thoughts.not_applied.push(EFFORT),
    }
    Ok(thoughts)
}

/// The signature of a thought; `omitted` is its text where that is not shown.
pub(super) fn signature(omitted: Option<&str>) -> String {
    let carried = omitted.unwrap_or_default();
    format!("{VERSION}{}", STANDARD.encode(carried))
}

/// The text of a thought that has come back.
pub(super) fn thought(shown: String, signature: Option<&str>) -> String {
    if !shown.is_empty() {
        return shown;
    }
    // One that is not the daemon's own carries nothing.
    let carried = signature.and_then(|signature| signature.strip_prefix(VERSION));
    let carried = carried.and_then(|carried| STANDARD.decode(carried).ok());
    let carried = carried.and_then(|carried| String::from_utf8(carried).ok());
    carried.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thought_comes_back_with_any_signature() {
        let back = |shown: &str, signature: Option<&str>| thought(shown.to_owned(), signature);
        assert_eq!(back("so", Some(&signature(None))), "so");
        assert_eq!(back("so", Some("forged")), "so");
        assert_eq!(back("so", None), "so");
        assert_eq!(back("", Some(&signature(Some("sö\n")))), "sö\n");
        for forged in [
            "",
            "rkllmd.1.",
            "rkllmd.1.?",
            "rkllmd.1./w==",
            "rkllmd.2.c28=",
        ] {
            assert_eq!(back("", Some(forged)), "", "{forged}");
        }
    }
}
