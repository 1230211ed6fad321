//! What an answer is that calls nothing, where it may be calls or that: JSON, or a text of another grammar. The one
//! is told from the other by what it begins with, so no text begins as a call does.

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use serde_json::Value;

use super::lark::{GAP, Lark};
use super::whole;
use crate::constraint::grammar::{self, Json, Unenforceable};
use crate::constraint::tokens::ModelTokens;
use crate::constraint::{Compiled, Limits, UniqueIn, Wanted};
use crate::reply::ReplyFormat;

/// White space that a text may begin with, before what might be a call.
const MOST_BLANKS: usize = 32;

pub struct Otherwise {
    what: What,
    /// Pointers to what of a schema is not kept.
    pub not_kept: Vec<String>,
}

enum What {
    /// Of this schema.
    Json(Value),
    /// Of this Lark.
    Text(String),
}

impl Otherwise {
    /// `Err`: there is none, or it could not be told from calls of this form.
    pub fn of(
        wanted: &Wanted,
        format: &ReplyFormat,
        limits: &Limits,
    ) -> Result<Self, Unenforceable> {
        let is_json = matches!(wanted, Wanted::JsonObject | Wanted::JsonSchema { .. });
        if format.harmony || (is_json && !format.begins_calls_with_markers()) {
            let reason = "the model writes calls without a marker, so they could not be told from other JSON";
            return Err(whole(reason.to_owned()));
        }
        if is_json {
            let Json { schema, not_kept } = Json::of(wanted, limits)?;
            let what = What::Json(schema);
            return Ok(Self { what, not_kept });
        }
        let lark = grammar::text(wanted, limits)?;
        let openers = format.openers_in_text();
        let opener = opener_in(&lark, &openers, limits);
        if let Some(opener) = opener.map_err(|error| whole(error.to_string()))? {
            return Err(whole(format!(
                "a text of it may begin with `{opener}`, as calls of the model do, so it could not be told from them"
            )));
        }
        Ok(Self {
            what: What::Text(lark),
            not_kept: Vec::new(),
        })
    }

    /// A grammar of nothing else.
    pub fn alone(self, limits: &Limits) -> Result<Compiled, Unenforceable> {
        let Self { what, not_kept } = self;
        match what {
            What::Json(schema) => Json { schema, not_kept }.alone(limits),
            What::Text(lark) => grammar::of_text(lark),
        }
    }

    pub fn rule(&self, lark: &mut Lark<'_>) -> String {
        match &self.what {
            What::Json(schema) => {
                let json = lark.json(schema);
                format!("{GAP} {GAP} {json}")
            }
            What::Text(text) => lark.text(text),
        }
    }

    /// `is_json`: the arguments of calls are.
    pub fn unique_keys(&self, is_json: bool, format: &ReplyFormat) -> UniqueIn {
        match (&self.what, is_json) {
            (What::Json(_), true) => UniqueIn::All,
            (What::Json(_), false) => UniqueIn::Json,
            (What::Text(_), true) => {
                let openers = format.openers_in_text().into_iter();
                UniqueIn::Begun(openers.map(str::to_owned).collect())
            }
            (What::Text(_), false) => UniqueIn::None,
        }
    }
}

/// The opener that a text of `lark` may begin with, white space before it aside.
fn opener_in<'o>(
    lark: &str,
    openers: &[&'o str],
    limits: &Limits,
) -> anyhow::Result<Option<&'o str>> {
    if openers.is_empty() {
        return Ok(None);
    }
    let tokens = ModelTokens::of_bytes(0)?;
    let text = TopLevelGrammar::from_lark(lark.to_owned());
    let text = serde_json::to_string(&text)?;
    let mut begun = vec![Matcher::new(grammar::parser(&text, &tokens, limits))];
    for _ in 0..=MOST_BLANKS {
        let mut masks: Vec<Vec<u32>> = Vec::new();
        let mut behind_blanks = Vec::new();
        for mut text in begun {
            if text.is_stopped() {
                continue;
            }
            for &opener in openers {
                if goes_on_with(&mut text, opener)? {
                    return Ok(Some(opener));
                }
            }
            for blank in [" ", "\n", "\r", "\t"] {
                if !goes_on_with(&mut text, blank)? {
                    continue;
                }
                let mut behind = text.deep_clone();
                behind.consume_token(u32::from(blank.as_bytes()[0]))?;
                if behind.is_stopped() {
                    continue;
                }
                // What goes on alike is looked at once.
                let mask = behind.compute_mask()?.as_slice().to_vec();
                if !masks.contains(&mask) {
                    masks.push(mask);
                    behind_blanks.push(behind);
                }
            }
        }
        begun = behind_blanks;
    }
    Ok(None)
}

fn goes_on_with(text: &mut Matcher, with: &str) -> anyhow::Result<bool> {
    let bytes: Vec<u32> = with.bytes().map(u32::from).collect();
    Ok(text.validate_tokens(&bytes)? == bytes.len())
}
