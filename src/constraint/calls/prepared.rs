//! A function that may be called, with as much of its schema as calls can be kept to.

use serde_json::{Map, Value, json};

use super::lark::{Ids, Lark};
use super::{CallableTool, Calls};
use crate::constraint::closing;
use crate::constraint::grammar::{MOST_TRIALS, smallest_fault};
use crate::constraint::relaxed::Relaxed;
use crate::constraint::rewrite::Moved;
use crate::constraint::schema::{self, Fault};
use crate::reply::{CallBody, ToolTypes};

/// A function with a schema that the engine takes.
pub struct Prepared {
    pub name: String,
    pub schema: Value,
    /// Which of its parameters are read as texts.
    pub types: ToolTypes,
}

fn allows_objects(schema: &Value) -> bool {
    match &schema["type"] {
        Value::String(kind) => kind == "object",
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "object"),
        _ => true,
    }
}

/// Arguments of which nothing is known.
pub fn any_arguments() -> Value {
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

impl Calls<'_> {
    /// A function with as much of its schema as can be kept. `None`: it cannot be called.
    pub fn prepare(&mut self, tool: &CallableTool) -> Result<Option<Prepared>, Fault> {
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
                let is_there =
                    |keyword: &&str| keywords.get(*keyword).is_some_and(|it| !it.is_null());
                if !combines.iter().any(is_there) {
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
        // In other forms no account is kept of keys, and not of all texts that end a value.
        let closes_empty = !self.is_json();
        closing::close(&mut closed, closes_empty);
        if takes(&closed).is_err() {
            if takes(&any_arguments()).is_err() {
                return self.cannot_be_called(tool);
            }
            faults.extend(self.cut_down(&mut schema, &mut moved, tool, &takes));
            closed = schema.clone();
            closing::close(&mut closed, closes_empty);
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
