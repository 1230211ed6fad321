//! From what is wanted to a grammar, and to the engine's parser of it. Where the engine does not take a
//! schema, the smallest part that it does not take is found by trying its parts.

use std::collections::BTreeSet;

use anyhow::Context;
use llguidance::api::{GrammarInit, GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Logger, TokenParser};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::closing;
use super::references::fragment;
use super::relaxed::Relaxed;
use super::schema::{self, Fault, children};
use super::tokens::ModelTokens;
use super::{Compiled, How, Limits, UniqueIn, Wanted, WhiteSpace, calls, gbnf, rewrite, texts};

/// Parts of a schema that are compiled to find those that the engine does not take.
pub(super) const MOST_TRIALS: usize = 256;

/// Why there is no grammar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}{reason}", place(pointer))]
pub struct Unenforceable {
    /// Where in the schema, as a JSON pointer; empty is the whole.
    pub pointer: String,
    pub reason: String,
    /// Of functions, the one that it is of, by its place among them.
    pub tool: Option<usize>,
}

fn place(pointer: &str) -> String {
    match pointer.is_empty() {
        true => String::new(),
        false => format!("`{pointer}` of the schema: "),
    }
}

impl From<Fault> for Unenforceable {
    fn from(Fault { pointer, reason }: Fault) -> Self {
        Self {
            pointer,
            reason,
            tool: None,
        }
    }
}

/// Makes a grammar of what is wanted. `Err`: there is none, or it is to be strict and is not.
pub fn compile(wanted: &Wanted, limits: &Limits) -> Result<Compiled, Unenforceable> {
    match wanted {
        Wanted::Calls { json } => calls::compile(json, limits),
        Wanted::JsonObject | Wanted::JsonSchema { .. } => Json::of(wanted, limits)?.alone(limits),
        Wanted::Regex(_) | Wanted::Choice(_) | Wanted::Gbnf(_) | Wanted::Lark(_) => {
            of_text(text(wanted, limits)?)
        }
    }
}

/// The Lark of a text that is no JSON, which the engine takes.
pub(super) fn text(wanted: &Wanted, limits: &Limits) -> Result<String, Unenforceable> {
    refuse_large(wanted, limits)?;
    let depth = limits.schema_depth;
    let lark = match wanted {
        Wanted::Regex(pattern) => texts::regex(pattern),
        Wanted::Choice(options) => texts::choice(options),
        Wanted::Gbnf(text) => gbnf::to_lark(text, depth),
        Wanted::Lark(text) => texts::checked_lark(text, depth).map(|()| text.clone()),
        Wanted::JsonObject | Wanted::JsonSchema { .. } | Wanted::Calls { .. } => {
            Err("it is no text".to_owned())
        }
    };
    let lark = lark.map_err(whole)?;
    let grammar = TopLevelGrammar::from_lark(lark.clone());
    Trial::new(limits, 0)?.parses(&grammar).map_err(whole)?;
    Ok(lark)
}

/// A grammar of such a text and nothing else.
pub(super) fn of_text(lark: String) -> Result<Compiled, Unenforceable> {
    Ok(Compiled {
        grammar: serialised(&TopLevelGrammar::from_lark(lark))?,
        how: How::default(),
        not_kept: Vec::new(),
    })
}

fn refuse_large(wanted: &Wanted, limits: &Limits) -> Result<(), Unenforceable> {
    let (bytes, limit) = (wanted.bytes(), limits.schema_bytes);
    match bytes > limit {
        true => Err(whole(format!(
            "it has {bytes} bytes; `schema-limit-bytes` in the [constraints] settings allows {limit}"
        ))),
        false => Ok(()),
    }
}

/// JSON that is wanted, as the engine takes it.
pub(super) struct Json {
    pub schema: Value,
    /// What of the schema that is wanted is not kept.
    pub not_kept: Vec<String>,
}

impl Json {
    pub fn of(wanted: &Wanted, limits: &Limits) -> Result<Self, Unenforceable> {
        refuse_large(wanted, limits)?;
        match wanted {
            Wanted::JsonObject => fitted(&json!({"type": "object"}), true, limits),
            Wanted::JsonSchema { schema, strict } => {
                let schema = serde_json::from_str(schema);
                let schema = schema.map_err(|error| whole(error.to_string()))?;
                fitted(&schema, *strict, limits)
            }
            _ => Err(whole("it is no JSON".to_owned())),
        }
    }

    /// A grammar of nothing else.
    pub fn alone(self, limits: &Limits) -> Result<Compiled, Unenforceable> {
        let grammar = grammar_of(&self.schema, limits.white_space);
        Ok(Compiled {
            grammar: serialised(&grammar)?,
            how: How {
                opens: Vec::new(),
                unique_keys: UniqueIn::All,
            },
            not_kept: self.not_kept,
        })
    }
}

fn fitted(schema: &Value, strict: bool, limits: &Limits) -> Result<Json, Unenforceable> {
    let prepared = schema::prepare(schema, limits.schema_depth)?;
    let mut not_kept = prepared.not_kept;
    let mut moved = prepared.moved;
    if strict && !not_kept.is_empty() {
        return Err(not_kept.swap_remove(0).into());
    }
    let trial = Trial::new(limits, 0)?;
    let mut schema = prepared.schema;
    if trial.takes(&schema).is_err()
        && let Some(exclusive) = rewrite::exclusive(&schema)
        && trial.takes(&exclusive).is_ok()
    {
        schema = exclusive;
    }
    let mut trials = MOST_TRIALS;
    while let Err(reason) = trial.takes(&schema) {
        let takes = |schema: &Value| trial.takes(schema);
        let mut fault = smallest_fault(&schema, reason, &mut trials, &takes);
        let relaxed = match strict {
            true => None,
            false => Relaxed::of(&schema, &fault, &takes),
        };
        let is_whole = fault.pointer.is_empty() && relaxed.is_none();
        let part = match strict || is_whole || trials == 0 {
            true => None,
            false => schema.pointer_mut(&fault.pointer),
        };
        fault.pointer = moved.written(&fault.pointer);
        let Some(part) = part else {
            return Err(fault.into());
        };
        *part = match relaxed {
            Some(relaxed) => relaxed.told(&mut fault, &mut moved),
            None => Value::Bool(true),
        };
        not_kept.push(fault);
    }
    let mut closed = schema.clone();
    closing::close(&mut closed, false);
    if trial.takes(&closed).is_ok() {
        schema = closed;
    }
    Ok(Json {
        schema,
        not_kept: not_kept.into_iter().map(|fault| fault.pointer).collect(),
    })
}

/// The parser of a grammar that `compile` has made.
pub(super) fn parser(
    grammar: &str,
    tokens: &ModelTokens,
    limits: &Limits,
) -> anyhow::Result<TokenParser> {
    let grammar: TopLevelGrammar = serde_json::from_str(grammar).context("reading a grammar")?;
    let limits = ParserLimits {
        max_grammar_size: limits.grammar_symbols,
        max_lexer_states: limits.lexer_states,
        step_lexer_fuel: limits.lexer_steps,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    let silent = Logger::new(0, 0);
    tokens.factory.create_parser_from_init_ext(
        GrammarInit::Serialized(grammar),
        silent,
        InferenceCapabilities::default(),
        limits,
    )
}

fn serialised(grammar: &TopLevelGrammar) -> Result<String, Unenforceable> {
    let text = serde_json::to_string(grammar);
    text.map_err(|error| whole(error.to_string()))
}

fn whole(reason: String) -> Unenforceable {
    Unenforceable {
        pointer: String::new(),
        reason,
        tool: None,
    }
}

fn grammar_of(schema: &Value, white_space: WhiteSpace) -> TopLevelGrammar {
    let schema = with_white_space(schema, white_space);
    TopLevelGrammar::from_grammar(GrammarWithLexer::from_json_schema(schema))
}

/// As the engine is told of white space.
pub(super) fn with_white_space(schema: &Value, white_space: WhiteSpace) -> Value {
    let pattern = match white_space {
        WhiteSpace::None => None,
        WhiteSpace::One => Some("[ \\n]"),
        WhiteSpace::Any => Some("[ \\n\\r\\t]+"),
    };
    let mut schema = match schema {
        Value::Object(keywords) => keywords.clone(),
        Value::Bool(false) => Map::from_iter([("enum".to_owned(), json!([]))]),
        _ => Map::new(),
    };
    schema.insert(
        "x-guidance".to_owned(),
        json!({"whitespace_flexible": false, "whitespace_pattern": pattern}),
    );
    Value::Object(schema)
}

/// What is compiled to see whether the engine takes it.
pub(super) struct Trial<'a> {
    tokens: ModelTokens,
    limits: &'a Limits,
}

impl<'a> Trial<'a> {
    /// `special`: so many tokens that no text spells stand behind those of bytes.
    pub(super) fn new(limits: &'a Limits, special: usize) -> Result<Self, Unenforceable> {
        let tokens = ModelTokens::of_bytes(special);
        let tokens = tokens.map_err(|error| whole(first_line(&error)))?;
        Ok(Self { tokens, limits })
    }

    /// `Err`: why the engine does not.
    fn takes(&self, schema: &Value) -> Result<(), String> {
        self.parses(&grammar_of(schema, self.limits.white_space))
    }

    pub(super) fn parses(&self, grammar: &TopLevelGrammar) -> Result<(), String> {
        let taken = serde_json::to_string(grammar)
            .map_err(anyhow::Error::from)
            .and_then(|grammar| parser(&grammar, &self.tokens, self.limits));
        taken.map(drop).map_err(|error| first_line(&error))
    }
}

/// The innermost part that `takes` does not take by itself, also behind references.
pub(super) fn smallest_fault(
    schema: &Value,
    reason: String,
    trials: &mut usize,
    takes: &dyn Fn(&Value) -> Result<(), String>,
) -> Fault {
    let mut fault = Fault::new("", reason);
    let mut at_fault = BTreeSet::new();
    'deeper: loop {
        let at = fault.pointer.clone();
        at_fault.insert(at.clone());
        let inner = schema.pointer(&at).map(|part| {
            let referred = part.get("$ref").and_then(Value::as_str).and_then(fragment);
            let mut inner = children(part, &at);
            inner.extend(referred);
            inner
        });
        for pointer in inner.unwrap_or_default() {
            if at_fault.contains(&pointer) {
                continue;
            }
            // What allows nothing is no fault of itself, as with `additionalProperties`.
            let part = schema.pointer(&pointer);
            let Some(part) = part.filter(|part| part.is_object()) else {
                continue;
            };
            if *trials == 0 {
                return fault;
            }
            *trials -= 1;
            if let Err(reason) = takes(&alone(part, schema)) {
                fault = Fault { pointer, reason };
                continue 'deeper;
            }
        }
        return fault;
    }
}

/// A part as a schema of its own, with what it may refer to.
pub(super) fn alone(part: &Value, whole: &Value) -> Value {
    let Value::Object(keywords) = part else {
        return part.clone();
    };
    let mut keywords = keywords.clone();
    for definitions in ["$defs", "definitions", "$schema"] {
        if let Some(value) = whole.get(definitions) {
            keywords.insert(definitions.to_owned(), value.clone());
        }
    }
    Value::Object(keywords)
}

/// What the engine says behind it shows its own state, but for what is wrong with an expression; and what it
/// could be told is for programs.
pub(super) fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let of_expression = text.lines().find_map(|line| line.strip_prefix("error: "));
    let first = text.lines().next().unwrap_or_default();
    let said = of_expression.unwrap_or(first);
    let said = said.split_once(". Enable '").map_or(said, |(said, _)| said);
    said.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_no_option_of_the_engine() {
        for (said, told) in [
            (
                "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate it",
                "oneOf constraints are not supported",
            ),
            ("Unsatisfiable schema\n<state>", "Unsatisfiable schema"),
        ] {
            assert_eq!(first_line(&anyhow::anyhow!(said)), told);
        }
    }
}
