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
mod texts;

use std::collections::BTreeSet;

use llguidance::api::TopLevelGrammar;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::closing;
use super::grammar::{Json, MOST_TRIALS, Trial, Unenforceable, smallest_fault};
use super::relaxed::Relaxed;
use super::rewrite::Moved;
use super::schema::{self, Fault};
use super::{Compiled, How, Limits, Opener, UniqueIn, Wanted};
use crate::reply::{CallBody, ReplyFormat, ToolTypes};
use forms::Started;
use lark::{GAP, Ids, Lark};

/// Calls, and the form that a model writes them in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallsWanted {
    pub format: ReplyFormat,
    pub tools: Vec<CallableTool>,
    pub how_many: HowMany,
    /// JSON that an answer without calls is.
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

/// A function with a schema that the engine takes.
struct Prepared {
    name: String,
    schema: Value,
    /// Which of its parameters are read as texts.
    types: ToolTypes,
}

fn allows_objects(schema: &Value) -> bool {
    match &schema["type"] {
        Value::String(kind) => kind == "object",
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "object"),
        _ => true,
    }
}

/// Arguments of which nothing is known.
fn any_arguments() -> Value {
    json!({"type": "object"})
}

/// The parameters of a schema, whatever they are.
fn names_alone(schema: &Value) -> Option<Value> {
    let properties = schema.get("properties")?.as_object()?;
    let any = properties.keys().map(|name| (name.clone(), json!(true)));
    let mut names = json!({"type": "object", "properties": any.collect::<Map<_, _>>()});
    if let (Some(required), Value::Object(names)) = (schema.get("required"), &mut names) {
        names.insert("required".to_owned(), required.clone());
    }
    Some(names)
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
    /// The schema of an answer without calls, once its grammar is to have that.
    otherwise: Option<Value>,
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
        let otherwise = match &self.wanted.otherwise {
            Some(_) if !forms::begin_with_markers(&self.wanted.format) => {
                let reason = "the model writes calls without a marker, so they could not be told from other JSON";
                return Err(whole(reason.to_owned()));
            }
            Some(wanted) => Some(Json::of(wanted, self.limits)?),
            None => None,
        };
        let mut tools = Vec::with_capacity(self.wanted.tools.len());
        for (index, tool) in self.wanted.tools.iter().enumerate() {
            let prepared = self.prepare(tool).map_err(|fault| Unenforceable {
                pointer: fault.pointer,
                reason: fault.reason,
                tool: Some(index),
            })?;
            tools.extend(prepared);
        }
        let mut not_kept_otherwise = Vec::new();
        if let Some(mut json) = otherwise {
            if tools.is_empty() {
                json.not_kept.append(&mut self.not_kept);
                return json.alone(self.limits);
            }
            not_kept_otherwise = json.not_kept;
            self.otherwise = Some(json.schema);
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
        self.not_kept.append(&mut not_kept_otherwise);
        let grammar = serde_json::to_string(&grammar);
        Ok(Compiled {
            grammar: grammar.map_err(|error| whole(error.to_string()))?,
            how: How {
                opens: match self.wanted.how_many {
                    HowMany::AsLiked { .. } => openers,
                    HowMany::One | HowMany::Several => Vec::new(),
                },
                // What may be thought in a message of its own is no JSON.
                unique_keys: match self.is_json()
                    && (!self.wanted.format.harmony || self.wanted.how_many.is_as_liked())
                {
                    true => UniqueIn::All,
                    false if self.otherwise.is_some() => UniqueIn::Json,
                    false => UniqueIn::None,
                },
            },
            not_kept: self.not_kept,
        })
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
            Some(schema) => {
                let json = lark.json(schema);
                format!("{rule} | {GAP} {GAP} {json}")
            }
        };
        (lark.finish(&rule), openers)
    }

    fn start(&self, lark: &mut Lark<'_>, tools: &[Prepared]) -> Started {
        let CallsWanted {
            format, how_many, ..
        } = self.wanted;
        let are_marked = self.wanted.otherwise.is_some();
        forms::start(lark, format, tools, *how_many, are_marked)
    }

    /// `Err`: why the engine does not.
    fn takes(&self, tools: &[Prepared]) -> Result<(), String> {
        let (grammar, _) = self.grammar(tools, Ids::Trial(&self.ids));
        self.trial.parses(&grammar)
    }

    /// A function with as much of its schema as can be kept. `None`: it cannot be called.
    fn prepare(&mut self, tool: &CallableTool) -> Result<Option<Prepared>, Fault> {
        let types = ToolTypes::new([(tool.name.as_str(), tool.parameters.as_ref())]);
        let of = |schema: Value| Prepared {
            name: tool.name.clone(),
            schema,
            types: types.clone(),
        };
        let mut faults = Vec::new();
        if !self.can_be_named(&tool.name) {
            return self.cannot_be_called(tool);
        }
        let given = match &tool.parameters {
            None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
            Some(parameters) => {
                let mut keywords = parameters.clone();
                let combines = ["$ref", "anyOf", "oneOf", "allOf", "type"];
                if !combines
                    .iter()
                    .any(|keyword| keywords.contains_key(*keyword))
                {
                    keywords.insert("type".to_owned(), json!("object"));
                }
                Value::Object(keywords)
            }
        };
        let (bytes, limit) = (given.to_string().len(), self.limits.schema_bytes);
        let prepared = match bytes <= limit {
            true => schema::prepare(&given, self.limits.schema_depth),
            false => Err(Fault::new(
                "",
                format!(
                    "it has {bytes} bytes; `schema-limit-bytes` in the [constraints] settings allows {limit}"
                ),
            )),
        };
        let mut moved = Moved::default();
        let mut schema = match prepared {
            Ok(prepared) if allows_objects(&prepared.schema) => {
                faults.extend(prepared.not_kept);
                moved = prepared.moved;
                prepared.schema
            }
            Ok(_) => {
                let reason = "does not allow an object, which arguments are";
                faults.push(Fault::new("/type", reason));
                any_arguments()
            }
            Err(fault) => {
                faults.push(fault);
                any_arguments()
            }
        };
        let takes = |schema: &Value| self.takes(&[of(schema.clone())]);
        let mut closed = schema.clone();
        closing::close(&mut closed);
        if takes(&closed).is_err() {
            if takes(&any_arguments()).is_err() {
                return self.cannot_be_called(tool);
            }
            faults.extend(self.cut_down(&mut schema, &mut moved, tool, &takes));
            closed = schema.clone();
            closing::close(&mut closed);
        }
        if takes(&closed).is_ok() {
            schema = closed;
        }
        let prepared = of(schema);
        let mut lark = Lark::new(self.limits.white_space, Ids::Trial(&self.ids));
        let started = self.start(&mut lark, std::slice::from_ref(&prepared));
        faults.extend(started.faults.into_iter().map(|fault| Fault {
            pointer: moved.written(&fault.pointer),
            ..fault
        }));
        self.not_kept(tool, faults)?;
        Ok(Some(prepared))
    }

    fn cannot_be_called(&mut self, tool: &CallableTool) -> Result<Option<Prepared>, Fault> {
        let reason = "its name cannot be written in the model's form of calls";
        self.not_kept(tool, vec![Fault::new("", reason)])?;
        Ok(None)
    }

    /// Leaves of a schema what the engine takes, and tells what that is not.
    fn cut_down(
        &self,
        schema: &mut Value,
        moved: &mut Moved,
        tool: &CallableTool,
        takes: &dyn Fn(&Value) -> Result<(), String>,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        let (mut trials, mut is_of_names) = (MOST_TRIALS, false);
        while let Err(reason) = takes(schema) {
            let takes_part = |part: &Value| self.takes_part(&tool.name, part);
            let mut fault = smallest_fault(schema, reason, &mut trials, &takes_part);
            // Of a strict function it is told what is at fault.
            let relaxed = match tool.strict {
                true => None,
                false => Relaxed::of_several(schema, &fault, &takes_part),
            };
            let is_whole = fault.pointer.is_empty() && relaxed.is_none();
            let part = match is_whole || trials == 0 {
                true => None,
                false => schema.pointer_mut(&fault.pointer),
            };
            fault.pointer = moved.written(&fault.pointer);
            match (part, relaxed) {
                (Some(part), Some(relaxed)) => *part = relaxed.told(&mut fault, moved),
                (Some(part), None) => *part = Value::Bool(true),
                (None, _) => {
                    *schema = match names_alone(schema) {
                        Some(names) if !is_of_names => names,
                        _ => any_arguments(),
                    };
                    is_of_names = true;
                }
            }
            faults.push(fault);
        }
        faults
    }

    /// Whether the engine takes a part of a schema: as all arguments or, where each is written by itself,
    /// as one of them.
    fn takes_part(&self, name: &str, part: &Value) -> Result<(), String> {
        let schema = match (self.is_json(), part) {
            (false, Value::Object(keywords)) => {
                let mut keywords = keywords.clone();
                let mut whole = Map::new();
                for definitions in ["$defs", "definitions"] {
                    whole.extend(
                        keywords
                            .shift_remove(definitions)
                            .map(|value| (definitions.to_owned(), value)),
                    );
                }
                whole.insert("properties".to_owned(), json!({"part": keywords}));
                whole
            }
            (_, Value::Object(keywords)) => keywords.clone(),
            _ => return Ok(()),
        };
        let prepared = Prepared {
            name: name.to_owned(),
            types: ToolTypes::new([(name, Some(&schema))]),
            schema: Value::Object(schema),
        };
        self.takes(&[prepared])
    }

    /// Names what is not kept of a function, unless all of it was to be.
    fn not_kept(&mut self, tool: &CallableTool, faults: Vec<Fault>) -> Result<(), Fault> {
        for fault in faults {
            if tool.strict {
                return Err(fault);
            }
            let place = format!("{}{}", tool.place, fault.pointer);
            if !self.not_kept.contains(&place) {
                self.not_kept.push(place);
            }
        }
        Ok(())
    }

    /// In JSON every name can be written.
    fn can_be_named(&self, name: &str) -> bool {
        let format = &self.wanted.format;
        let mut all = format.calls.iter().chain(&format.also_calls);
        let is_json = !format.harmony && all.all(|calls| matches!(calls.body, CallBody::Json(_)));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        is_json || name.chars().all(is_plain)
    }
}
