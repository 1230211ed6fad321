//! From what is wanted to a grammar, and to the engine's parser of it. Where the engine does not take a
//! schema, the smallest part that it does not take is found by trying its parts.

use anyhow::Context;
use llguidance::api::{GrammarInit, GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Logger, TokenParser};
use serde_json::{Map, Value, json};

use super::closing;
use super::schema::{self, Fault, children};
use super::tokens::ModelTokens;
use super::{Compiled, Limits, Wanted, WhiteSpace};

/// Parts of a schema that are compiled to find those that the engine does not take.
const MOST_TRIALS: usize = 256;

/// Why there is no grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", place(pointer))]
pub struct Unenforceable {
    /// Where in the schema, as a JSON pointer; empty is the whole.
    pub pointer: String,
    pub reason: String,
}

fn place(pointer: &str) -> String {
    match pointer.is_empty() {
        true => "the schema".to_owned(),
        false => format!("`{pointer}` of the schema"),
    }
}

impl From<Fault> for Unenforceable {
    fn from(Fault { pointer, reason }: Fault) -> Self {
        Self { pointer, reason }
    }
}

/// Makes a grammar of what is wanted. `Err`: there is none, or it is to be strict and is not.
pub fn compile(wanted: &Wanted, limits: &Limits) -> Result<Compiled, Unenforceable> {
    let (schema, strict) = match wanted {
        Wanted::JsonObject => (json!({"type": "object"}), true),
        Wanted::JsonSchema { schema, strict } => {
            let (bytes, limit) = (schema.len(), limits.schema_bytes);
            if bytes > limit {
                return Err(whole(format!(
                    "it has {bytes} bytes; `schema-limit-bytes` in the [constraints] settings allows {limit}"
                )));
            }
            let schema = serde_json::from_str(schema);
            let schema = schema.map_err(|error| whole(error.to_string()))?;
            (schema, *strict)
        }
    };
    let prepared = schema::prepare(&schema, limits.schema_depth)?;
    let mut not_kept = prepared.not_kept;
    if strict && !not_kept.is_empty() {
        return Err(not_kept.swap_remove(0).into());
    }
    let trial = Trial {
        tokens: ModelTokens::of_bytes().map_err(|error| whole(first_line(&error)))?,
        limits,
    };
    let mut schema = prepared.schema;
    let mut trials = MOST_TRIALS;
    while let Err(reason) = trial.takes(&schema) {
        let fault = trial.smallest_fault(&schema, reason, &mut trials);
        if strict || fault.pointer.is_empty() || trials == 0 {
            return Err(fault.into());
        }
        let Some(part) = schema.pointer_mut(&fault.pointer) else {
            return Err(fault.into());
        };
        *part = Value::Bool(true);
        not_kept.push(fault);
    }
    let mut closed = schema.clone();
    closing::close(&mut closed);
    if trial.takes(&closed).is_ok() {
        schema = closed;
    }
    let grammar = grammar_of(&schema, limits.white_space);
    let grammar = serde_json::to_string(&grammar);
    Ok(Compiled {
        grammar: grammar.map_err(|error| whole(error.to_string()))?,
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

fn whole(reason: String) -> Unenforceable {
    Unenforceable {
        pointer: String::new(),
        reason,
    }
}

fn grammar_of(schema: &Value, white_space: WhiteSpace) -> TopLevelGrammar {
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
    TopLevelGrammar::from_grammar(GrammarWithLexer::from_json_schema(Value::Object(schema)))
}

struct Trial<'a> {
    tokens: ModelTokens,
    limits: &'a Limits,
}

impl Trial<'_> {
    /// `Err`: why the engine does not.
    fn takes(&self, schema: &Value) -> Result<(), String> {
        let grammar = grammar_of(schema, self.limits.white_space);
        let taken = serde_json::to_string(&grammar)
            .map_err(anyhow::Error::from)
            .and_then(|grammar| parser(&grammar, &self.tokens, self.limits));
        taken.map(drop).map_err(|error| first_line(&error))
    }

    /// The innermost part that the engine does not take by itself.
    fn smallest_fault(&self, schema: &Value, reason: String, trials: &mut usize) -> Fault {
        let mut fault = Fault::new("", reason);
        'deeper: loop {
            let at = fault.pointer.clone();
            let inner = schema.pointer(&at).map(|part| children(part, &at));
            for pointer in inner.unwrap_or_default() {
                let Some(part) = schema.pointer(&pointer) else {
                    continue;
                };
                if *trials == 0 {
                    return fault;
                }
                *trials -= 1;
                if let Err(reason) = self.takes(&alone(part, schema)) {
                    fault = Fault { pointer, reason };
                    continue 'deeper;
                }
            }
            return fault;
        }
    }
}

/// A part as a schema of its own, with what it may refer to.
fn alone(part: &Value, whole: &Value) -> Value {
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

/// What the engine says behind it shows its own state.
fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}
