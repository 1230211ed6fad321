//! Calls of functions that are kept to their schemas, in whatever form the model writes calls.
//!
//! The form is read from the description of the model's replies and from nothing else, so what is written
//! here is what `reply` reads. A schema that the engine does not take is any arguments, unless all of it was
//! to be kept: one function of an agent's is no reason to refuse the others.

mod bodies;
mod forms;
mod key_values;
mod lark;
mod members;
mod otherwise;
mod prepared;
mod texts;

use std::collections::BTreeSet;

use llguidance::api::TopLevelGrammar;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grammar::{Trial, Unenforceable};
use super::{Compiled, How, Limits, Opener, UniqueIn, Wanted};
use crate::reply::{CallBody, ReplyFormat};
use forms::{Instead, Started};
use lark::{Ids, Lark};
use otherwise::Otherwise;
use prepared::{Prepared, any_arguments};

/// Calls, and the form that a model writes them in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallsWanted {
    pub format: ReplyFormat,
    pub tools: Vec<CallableTool>,
    pub how_many: HowMany,
    /// What an answer without calls is.
    pub otherwise: Option<Wanted>,
}

/// A function that may be called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallableTool {
    pub name: String,
    /// `None`: it takes none.
    pub parameters: Option<Map<String, Value>>,
    /// Refused, unless all of its schema is kept.
    pub strict: bool,
    /// Where its schema stands in the request, as a JSON pointer.
    pub place: String,
}

/// How many calls an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HowMany {
    /// None, or, wherever the model begins one, one after the other or several at once.
    AsLiked { several: bool },
    /// One, and nothing else.
    One,
    /// One or more, and nothing else.
    Several,
}

impl HowMany {
    fn is_as_liked(self) -> bool {
        matches!(self, Self::AsLiked { .. })
    }

    fn several(self) -> bool {
        matches!(self, Self::Several | Self::AsLiked { several: true })
    }
}

/// Makes a grammar of calls.
pub fn compile(json: &str, limits: &Limits) -> Result<Compiled, Unenforceable> {
    let wanted: CallsWanted =
        serde_json::from_str(json).map_err(|error| whole(error.to_string()))?;
    Calls::new(&wanted, limits)?.compile()
}

fn whole(reason: String) -> Unenforceable {
    Unenforceable {
        pointer: String::new(),
        reason,
        tool: None,
    }
}

struct Calls<'w> {
    wanted: &'w CallsWanted,
    limits: &'w Limits,
    trial: Trial<'w>,
    /// The tokens of markers.
    ids: BTreeSet<i32>,
    not_kept: Vec<String>,
    /// What an answer without calls is, once its grammar is to have that.
    otherwise: Option<Otherwise>,
}

impl<'w> Calls<'w> {
    fn new(wanted: &'w CallsWanted, limits: &'w Limits) -> Result<Self, Unenforceable> {
        let mut format = wanted.format.clone();
        let markers = format.markers_mut().into_iter();
        let mut ids: BTreeSet<i32> = markers.filter_map(|marker| marker.id).collect();
        ids.extend(wanted.format.harmony_ids.iter().map(|(_, id)| *id));
        Ok(Self {
            wanted,
            limits,
            trial: Trial::new(limits, ids.len())?,
            ids,
            not_kept: Vec::new(),
            otherwise: None,
        })
    }

    fn compile(mut self) -> Result<Compiled, Unenforceable> {
        if self.wanted.tools.is_empty() {
            return Err(whole("there is no function to call".to_owned()));
        }
        let otherwise = self.wanted.otherwise.as_ref();
        let otherwise = otherwise
            .map(|wanted| Otherwise::of(wanted, &self.wanted.format, self.limits))
            .transpose()?;
        let mut tools = Vec::with_capacity(self.wanted.tools.len());
        for (index, tool) in self.wanted.tools.iter().enumerate() {
            let prepared = self.prepare(tool).map_err(|fault| Unenforceable {
                pointer: fault.pointer,
                reason: fault.reason,
                tool: Some(index),
            })?;
            tools.extend(prepared);
        }
        if let Some(otherwise) = otherwise {
            if tools.is_empty() {
                let mut alone = otherwise.alone(self.limits)?;
                alone.not_kept.append(&mut self.not_kept);
                return Ok(alone);
            }
            self.otherwise = Some(otherwise);
        }
        if tools.is_empty() {
            let reason =
                "no function has a name that the model's form of calls can be written with";
            return Err(whole(reason.to_owned()));
        }
        let (mut grammar, mut openers) = self.grammar(&tools, Ids::Real);
        if let Err(reason) = self.takes(&tools) {
            // Each by itself is not too much.
            if self.wanted.tools.iter().any(|tool| tool.strict) {
                return Err(whole(reason));
            }
            for tool in &mut tools {
                tool.schema = any_arguments();
            }
            self.takes(&tools).map_err(whole)?;
            self.not_kept = self
                .wanted
                .tools
                .iter()
                .map(|tool| tool.place.clone())
                .collect();
            (grammar, openers) = self.grammar(&tools, Ids::Real);
        }
        if let Some(otherwise) = &mut self.otherwise {
            self.not_kept.append(&mut otherwise.not_kept);
        }
        let grammar = serde_json::to_string(&grammar);
        Ok(Compiled {
            grammar: grammar.map_err(|error| whole(error.to_string()))?,
            how: How {
                opens: match self.wanted.how_many {
                    HowMany::AsLiked { .. } => openers,
                    HowMany::One | HowMany::Several => Vec::new(),
                },
                unique_keys: self.unique_keys(),
            },
            not_kept: self.not_kept,
        })
    }

    fn unique_keys(&self) -> UniqueIn {
        let CallsWanted {
            format, how_many, ..
        } = self.wanted;
        // What may be thought in a message of its own is no JSON.
        let is_json = self.is_json() && (!format.harmony || how_many.is_as_liked());
        match &self.otherwise {
            Some(otherwise) => otherwise.unique_keys(is_json, format),
            None if is_json => UniqueIn::All,
            None => UniqueIn::None,
        }
    }

    /// Whether all arguments are JSON, and nothing else in a call looks like it.
    fn is_json(&self) -> bool {
        let format = &self.wanted.format;
        let mut all = format.calls.iter().chain(&format.also_calls);
        format.harmony
            || all.all(|calls| {
                let is_json = matches!(calls.body, CallBody::Json(_) | CallBody::NameThenJson(_));
                is_json && !calls.also_python
            })
    }

    fn grammar(&self, tools: &[Prepared], ids: Ids<'_>) -> (TopLevelGrammar, Vec<Opener>) {
        let mut lark = Lark::new(self.limits.white_space, ids);
        let Started { rule, openers, .. } = self.start(&mut lark, tools);
        let rule = match &self.otherwise {
            None => rule,
            Some(otherwise) => format!("{rule} | {}", otherwise.rule(&mut lark)),
        };
        (lark.finish(&rule), openers)
    }

    fn start(&self, lark: &mut Lark<'_>, tools: &[Prepared]) -> Started {
        let CallsWanted {
            format, how_many, ..
        } = self.wanted;
        let instead = match &self.wanted.otherwise {
            None => Instead::Nothing,
            Some(wanted) if wanted.is_json() => Instead::Json,
            Some(_) => Instead::Text,
        };
        forms::start(lark, format, tools, *how_many, instead)
    }

    /// `Err`: why the engine does not.
    fn takes(&self, tools: &[Prepared]) -> Result<(), String> {
        let (grammar, _) = self.grammar(tools, Ids::Trial(&self.ids));
        self.trial.parses(&grammar)
    }
}
