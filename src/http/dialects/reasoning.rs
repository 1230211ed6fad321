//! How a request says whether and how much a model is to think, and where its thoughts go.

use serde_json::{Map, Value};

use crate::conversation::{ReasoningWish, Thinking};
use crate::http::request::error::{RequestError, quote};

/// Whether thoughts stay in the content.
pub(super) fn keeps_thoughts(format: Option<&str>) -> Result<bool, RequestError> {
    match format {
        None | Some("auto" | "deepseek") => Ok(false),
        Some("none") => Ok(true),
        Some(other) => Err(RequestError::unsupported(
            "reasoning_format",
            format!(
                "only `none`, `deepseek` and `auto` are, not `{}`",
                quote(other)
            ),
        )),
    }
}

/// What is wished by either name.
pub(super) fn wish(
    effort: Option<String>,
    enable_thinking: Option<bool>,
) -> Result<ReasoningWish, RequestError> {
    let thinking = match effort.as_deref() {
        None => None,
        Some("none") => Some(false),
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => Some(true),
        Some(other) => {
            return Err(RequestError::out_of_range(
                "reasoning_effort",
                format!(
                    "must be `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`, not `{}`",
                    quote(other)
                ),
            ));
        }
    };
    if let (Some(one), Some(other)) = (thinking, enable_thinking)
        && one != other
    {
        return Err(RequestError::out_of_range(
            "enable_thinking",
            "says the contrary of `reasoning_effort`",
        ));
    }
    Ok(ReasoningWish {
        thinking: match thinking.or(enable_thinking) {
            None => Thinking::Default,
            Some(false) => Thinking::Off,
            Some(true) => Thinking::On,
        },
        effort: effort.filter(|_| thinking == Some(true)),
    })
}

/// How much may be thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// As much as the model's owner has it.
    NotSaid,
    /// As much as the model likes.
    None,
    /// So many tokens, by the name that the client gave.
    Tokens(&'static str, u32),
}

/// The budget that is given by one or several of its names.
pub(super) fn budget(given: [(&'static str, Option<i64>); 3]) -> Result<Budget, RequestError> {
    let mut given = given
        .into_iter()
        .filter_map(|(name, tokens)| Some((name, tokens?)));
    let Some((name, tokens)) = given.next() else {
        return Ok(Budget::NotSaid);
    };
    if let Some((other, _)) = given.find(|(_, other)| *other != tokens) {
        return Err(RequestError::out_of_range(
            other,
            format!("is another name of `{name}` and must not differ from it"),
        ));
    }
    match tokens {
        -1 => Ok(Budget::None),
        // More than any context holds is no limit, and one all the same.
        0.. => Ok(Budget::Tokens(
            name,
            u32::try_from(tokens).unwrap_or(u32::MAX),
        )),
        _ => Err(RequestError::out_of_range(
            name,
            "must be a number of tokens, or -1 for as many as the model likes",
        )),
    }
}

/// Tells the wish to the template, by the names that templates know. What the client set itself stays.
pub(crate) fn tell(wish: &ReasoningWish, variables: &mut Map<String, Value>) {
    let is_on = match wish.thinking {
        Thinking::Default => None,
        Thinking::Off => Some(false),
        Thinking::On => Some(true),
    };
    if let Some(is_on) = is_on {
        for name in ["enable_thinking", "thinking"] {
            variables.entry(name).or_insert(is_on.into());
        }
    }
    if let Some(effort) = &wish.effort {
        let effort = effort.as_str();
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
}
