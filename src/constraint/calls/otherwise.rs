//! What an answer is that calls nothing, where it may be calls or that: JSON, or a text of another grammar. The one
//! is told from the other by what it begins with, so no text begins as a call does.

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use serde_json::Value;

use super::lark::{GAP, Lark};
use super::whole;
use crate::constraint::grammar::{self, Json, Unenforceable, first_line};
use crate::constraint::tokens::ModelTokens;
use crate::constraint::{Compiled, Limits, UniqueIn, Wanted};
use crate::reply::ReplyFormat;

/// White space that a text may begin with, before what might be a call.
const MOST_BLANKS: usize = 32;

/// Behind so many, texts are looked at one by one; behind more, those that go on alike are one.
const BLANKS_APART: usize = 2;

/// Texts that are looked at behind as many blanks.
const MOST_BEGINNINGS: usize = 128;

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
        if let Some(opener) = opener.map_err(|error| whole(first_line(&error)))? {
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
    let mut text = Matcher::new(grammar::parser(&text, &tokens, limits));
    if let Some(opener) = next_in(&mut text, openers)? {
        return Ok(Some(opener));
    }
    let mut begun = vec![text];
    for blanks in 1..=MOST_BLANKS {
        let mut masks: Vec<Vec<u32>> = Vec::new();
        let mut longer = Vec::new();
        for text in &mut begun {
            for mut behind in behind_a_blank(text)? {
                if let Some(opener) = next_in(&mut behind, openers)? {
                    return Ok(Some(opener));
                }
                if blanks > BLANKS_APART {
                    let mask = behind.compute_mask()?.as_slice().to_vec();
                    if masks.contains(&mask) {
                        continue;
                    }
                    masks.push(mask);
                }
                longer.push(behind);
                if longer.len() > MOST_BEGINNINGS {
                    anyhow::bail!("it may begin with white space in too many ways");
                }
            }
        }
        begun = longer;
    }
    Ok(None)
}

/// Which of these may come next.
fn next_in<'o>(text: &mut Matcher, openers: &[&'o str]) -> anyhow::Result<Option<&'o str>> {
    for &opener in openers {
        if goes_on_with(text, opener)? {
            return Ok(Some(opener));
        }
    }
    Ok(None)
}

/// The text with one more of the blanks that are skipped before a call, where it may go on with it.
fn behind_a_blank(text: &mut Matcher) -> anyhow::Result<Vec<Matcher>> {
    let mut all = Vec::new();
    for blank in [" ", "\n", "\r", "\t", "\x0c"] {
        if goes_on_with(text, blank)? {
            let mut behind = text.clone();
            behind.consume_token(u32::from(blank.as_bytes()[0]))?;
            if !behind.is_stopped() {
                all.push(behind);
            }
        }
    }
    Ok(all)
}

fn goes_on_with(text: &mut Matcher, with: &str) -> anyhow::Result<bool> {
    if text.is_stopped() {
        return Ok(false);
    }
    let bytes: Vec<u32> = with.bytes().map(u32::from).collect();
    Ok(text.validate_tokens(&bytes)? == bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::WhiteSpace;

    const LIMITS: Limits = Limits {
        white_space: WhiteSpace::One,
        schema_bytes: 1 << 20,
        schema_depth: 32,
        grammar_symbols: 200_000,
        lexer_states: 20_000,
        lexer_steps: 400_000,
        kept_grammars: 0,
    };

    fn may_call(lark: &str) -> anyhow::Result<bool> {
        opener_in(lark, &["<call>", "{"], &LIMITS).map(|opener| opener.is_some())
    }

    #[test]
    fn an_opener_is_found_behind_whatever_white_space() {
        for lark in [
            r#"start: "<call>" "x""#,
            r#"start: " <x" | "\n<call>""#,
            r#"start: " \n <x" | "\n  <call>""#,
            r"start: /[ \n\t]*\{a/",
            r"start: /\x0c\{/",
        ] {
            assert!(may_call(lark).expect("it is looked for"), "{lark}");
        }
        for lark in [
            r#"start: "<call""#,
            r#"start: """#,
            r#"start: "x<call>" | "\n<b>""#,
            r"start: /[ \n\r\t]*[a-z]+\{/",
        ] {
            assert!(!may_call(lark).expect("it is looked for"), "{lark}");
        }
    }

    /// What may come depends on each blank that came.
    #[test]
    fn white_space_of_too_many_kinds_is_not_followed() {
        let ends: Vec<String> = (0..24_u8)
            .map(|back| format!(r"\n[ \n]{{{back}}}{}", char::from(b'a' + back)))
            .collect();
        let lark = format!("start: /[ \\n]*(?:{})/", ends.join("|"));
        let error = may_call(&lark).expect_err("it takes too long");
        assert!(error.to_string().contains("too many ways"), "{error}");
    }
}
