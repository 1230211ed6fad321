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
        if format.harmony || (wanted.is_json() && !format.begins_calls_with_markers()) {
            let reason = "the model writes calls without a marker, so they could not be told from other JSON";
            return Err(whole(reason.to_owned()));
        }
        if wanted.is_json() {
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

/// The opener that a text of `lark` may begin with. Behind white space it is the text's: no call has any before it.
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
    for &opener in openers {
        if goes_on_with(&mut text, opener)? {
            return Ok(Some(opener));
        }
    }
    Ok(None)
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
    fn an_opener_is_found_where_a_text_begins_with_all_of_it() {
        for lark in [
            r#"start: "<call>" "x""#,
            r#"start: "<b>" | "<" "call>" "x"?"#,
            r"start: /[ \n\t]*\{a/",
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

    /// However many kinds of it there are, and however much.
    #[test]
    fn an_opener_behind_white_space_is_of_the_text() {
        let ends: Vec<String> = (0..24_u8)
            .map(|back| format!(r"\n[ \n]{{{back}}}{}", char::from(b'a' + back)))
            .collect();
        let kinds = format!("start: /[ \\n]+(?:{}|<call>)/", ends.join("|"));
        for lark in [
            kinds.as_str(),
            r#"start: " <x" | "\n<call>""#,
            r"start: / {40}<call>/",
            r"start: /\x0c\{/",
        ] {
            assert!(!may_call(lark).expect("it is looked for"), "{lark}");
        }
    }
}
