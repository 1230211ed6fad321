//! Writes a grammar in the engine's own language, with grammars of JSON inside it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::Value;

use crate::constraint::WhiteSpace;
use crate::constraint::grammar::with_white_space;
use crate::reply::Marker;

/// How tokens of markers are named.
#[derive(Clone, Copy, Debug)]
pub enum Ids<'i> {
    /// By their ids.
    Real,
    /// Behind all bytes, in this order, where it is only tried whether the engine takes it.
    Trial(&'i BTreeSet<i32>),
}

pub struct Lark<'i> {
    lines: String,
    grammars: Vec<GrammarWithLexer>,
    count: usize,
    white_space: WhiteSpace,
    ids: Ids<'i>,
}

/// Between the parts of a call that are no JSON.
pub const GAP: &str = "G?";

impl<'i> Lark<'i> {
    pub fn new(white_space: WhiteSpace, ids: Ids<'i>) -> Self {
        let mut lines = String::from("G: /[ \\n]/\n");
        match white_space {
            WhiteSpace::None => {}
            WhiteSpace::One => lines.push_str("W: /[ \\n]/\n"),
            WhiteSpace::Any => lines.push_str("W: /[ \\n\\r\\t]+/\n"),
        }
        Self {
            lines,
            grammars: Vec::new(),
            count: 0,
            white_space,
            ids,
        }
    }

    /// Between the tokens of JSON.
    pub fn white(&self) -> &'static str {
        match self.white_space {
            WhiteSpace::None => "",
            WhiteSpace::One | WhiteSpace::Any => "W?",
        }
    }

    fn name(&mut self, prefix: char) -> String {
        self.count += 1;
        format!("{prefix}{}", self.count)
    }

    /// The name of a rule that is defined later.
    pub fn later(&mut self) -> String {
        self.name('r')
    }

    pub fn define(&mut self, name: &str, body: &str) {
        let _ = writeln!(self.lines, "{name}: {body}");
    }

    pub fn rule(&mut self, body: &str) -> String {
        let name = self.later();
        self.define(&name, body);
        name
    }

    pub fn terminal(&mut self, body: &str) -> String {
        let name = self.name('T');
        self.define(&name, body);
        name
    }

    /// A text of `body` up to the first `end`, which is part of it.
    pub fn text_until(&mut self, body: &str, end: &str) -> String {
        let name = self.later();
        let _ = writeln!(self.lines, "{name}[suffix={}]: {body}", literal(end));
        name
    }

    /// JSON of a schema.
    pub fn json(&mut self, schema: &Value) -> String {
        let name = self.name('j');
        self.grammars.push(GrammarWithLexer {
            name: Some(name.clone()),
            json_schema: Some(with_white_space(schema, self.white_space)),
            ..GrammarWithLexer::default()
        });
        format!("@{name}")
    }

    /// A text of a grammar of its own.
    pub fn text(&mut self, grammar: &str) -> String {
        let name = self.name('g');
        self.grammars.push(GrammarWithLexer {
            name: Some(name.clone()),
            lark_grammar: Some(grammar.to_owned()),
            ..GrammarWithLexer::default()
        });
        format!("@{name}")
    }

    pub fn token(&self, id: i32) -> String {
        match self.ids {
            Ids::Real => format!("<[{id}]>"),
            Ids::Trial(ids) => format!("<[{}]>", 256 + ids.range(..id).count()),
        }
    }

    /// White space before it left out.
    pub fn marker(&self, marker: &Marker) -> String {
        match marker.id {
            Some(id) => self.token(id),
            None => literal(&marker.text),
        }
    }

    pub fn finish(mut self, start: &str) -> TopLevelGrammar {
        self.define("start", start);
        let mut grammars = vec![GrammarWithLexer::from_lark(self.lines)];
        grammars.append(&mut self.grammars);
        TopLevelGrammar {
            grammars,
            max_tokens: None,
        }
    }
}

/// A text as it is.
pub fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// One of these.
pub fn any_of(parts: &[String]) -> String {
    match parts {
        [one] => one.clone(),
        parts => format!("({})", parts.join(" | ")),
    }
}
