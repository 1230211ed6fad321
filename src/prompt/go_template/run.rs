//! Runs a template: a loop over its steps, with what it may take counted. Calls and blocks lie in lists, not on the
//! stack; only brackets do, of which a template has few in each other.

use super::built::{Budget, Written};
use super::expression::{Command, Operand, Pipe};
use super::functions::{self, Function};
use super::program::Step;
use super::value::{Kind, List, Text, Value};
use super::{GoTemplate, GoTemplateError};

/// How many calls of bodies may be in each other.
const DEEPEST: usize = 100;

/// Why a run ends before its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::prompt) enum RunError {
    /// It does what cannot be done, there.
    Failed(GoTemplateError),
    TooMuch,
}

/// The same, before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::prompt) enum Fault {
    Problem(String),
    TooMuch,
}

impl Fault {
    pub fn problem(text: impl Into<String>) -> Self {
        Self::Problem(text.into())
    }
}

/// What a `range` goes through.
enum Items {
    List(List),
    /// Keys and values.
    Members(Vec<(Value, Value)>),
    /// As many times.
    Times(i64),
}

enum Scope {
    With {
        around: Value,
    },
    Loop {
        items: Items,
        next: usize,
        around: Value,
    },
}

/// A body that is called, the whole template being the first.
struct Frame {
    goes_on_at: usize,
    dot: Value,
    variables: Vec<Value>,
    scopes: Vec<Scope>,
}

pub(super) struct Machine<'m> {
    pub template: &'m GoTemplate,
    pub budget: &'m mut Budget,
    pub to: &'m mut Written,
    /// What is behind the answer is not written.
    pub ends_with_answer: bool,
    /// Of the day that it is.
    pub today: jiff::civil::Date,
}

impl Machine<'_> {
    pub fn run(mut self, root: Value) -> Result<(), RunError> {
        let template = self.template;
        let mut frames = vec![self.frame(root, usize::MAX)];
        let mut at = 0;
        while let Some(step) = template.program.steps.get(at) {
            let place = match step {
                Step::Write { at, .. }
                | Step::Unless { at, .. }
                | Step::With { at, .. }
                | Step::Range { at, .. }
                | Step::Call { at, .. } => *at,
                _ => 0,
            };
            let next = self.step(step, at + 1, &mut frames);
            at = next.map_err(|fault| match fault {
                Fault::TooMuch => RunError::TooMuch,
                Fault::Problem(problem) => {
                    RunError::Failed(GoTemplateError::at(&template.source, place, problem))
                }
            })?;
        }
        Ok(())
    }

    fn frame(&self, dot: Value, goes_on_at: usize) -> Frame {
        let mut variables = vec![Value::Nil; self.template.program.variables.max(1)];
        variables[0] = dot.clone();
        Frame {
            goes_on_at,
            dot,
            variables,
            scopes: Vec::new(),
        }
    }

    /// The step that comes next; none ends the run.
    fn step(
        &mut self,
        step: &Step,
        behind: usize,
        frames: &mut Vec<Frame>,
    ) -> Result<usize, Fault> {
        self.budget.step(0)?;
        let depth = frames.len();
        let Some(frame) = frames.last_mut() else {
            return Ok(usize::MAX);
        };
        match step {
            Step::Text(range) => self.to.own(&self.template.source[range.clone()])?,
            Step::Write {
                pipe, is_answer, ..
            } => {
                let value = self.pipe(pipe, frame)?;
                if pipe.keeps.is_empty() {
                    self.write(&value)?;
                }
                if *is_answer && self.ends_with_answer {
                    return Ok(usize::MAX);
                }
            }
            Step::Unless { pipe, to, .. } => {
                if !self.pipe(pipe, frame)?.is_true() {
                    return Ok(*to);
                }
            }
            Step::With { pipe, to, .. } => {
                let value = self.pipe(pipe, frame)?;
                if !value.is_true() {
                    return Ok(*to);
                }
                let around = std::mem::replace(&mut frame.dot, value);
                frame.scopes.push(Scope::With { around });
            }
            Step::Range { pipe, to, .. } => {
                let items = self.items(pipe, frame)?;
                let is_empty = match &items {
                    Items::List(list) => list.items().is_empty(),
                    Items::Members(members) => members.is_empty(),
                    Items::Times(times) => *times <= 0,
                };
                if is_empty {
                    return Ok(*to);
                }
                frame.scopes.push(Scope::Loop {
                    items,
                    next: 0,
                    around: frame.dot.clone(),
                });
            }
            Step::Next { keeps, to } => {
                let item = match frame.scopes.last_mut() {
                    Some(Scope::Loop { items, next, .. }) => {
                        let nth = *next;
                        *next += 1;
                        items.at(nth)
                    }
                    _ => None,
                };
                let Some((key, value)) = item else {
                    frame.leave();
                    return Ok(*to);
                };
                match keeps[..] {
                    [of_key, of_value] => {
                        frame.variables[of_key] = key;
                        frame.variables[of_value] = value.clone();
                    }
                    [of_value] => frame.variables[of_value] = value.clone(),
                    _ => {}
                }
                frame.dot = value;
            }
            Step::Leave(scopes) => (0..*scopes).for_each(|_| frame.leave()),
            Step::Jump(to) => return Ok(*to),
            Step::Call { body, pipe, .. } => {
                let dot = match pipe {
                    Some(pipe) => self.pipe(pipe, frame)?,
                    None => Value::Nil,
                };
                let body = self.template.program.bodies.get(body).copied();
                if depth >= DEEPEST {
                    return Err(Fault::TooMuch);
                }
                let called = self.frame(dot, behind);
                self.budget.step(size_of_val(called.variables.as_slice()))?;
                frames.push(called);
                return Ok(body.unwrap_or(usize::MAX));
            }
            Step::Return => {
                let returned = frames.pop();
                return Ok(returned.map_or(usize::MAX, |frame| frame.goes_on_at));
            }
            Step::PastAnswer if self.ends_with_answer => return Ok(usize::MAX),
            Step::PastAnswer => {}
        }
        Ok(behind)
    }

    fn write(&mut self, value: &Value) -> Result<(), Fault> {
        match value {
            Value::Text(text) => {
                self.budget.step(text.text.len())?;
                self.to.text(text)
            }
            Value::Nil => Err(Fault::problem("there is nothing to write")),
            value => match functions::print(self.budget, value)? {
                Value::Text(text) => self.to.text(&text),
                _ => Ok(()),
            },
        }
    }

    fn items(&mut self, pipe: &Pipe, frame: &mut Frame) -> Result<Items, Fault> {
        // Its variables are the loop's.
        let value = self.commands(pipe, frame)?;
        Ok(match value {
            Value::Nil => Items::Times(0),
            Value::Int(times) => Items::Times(times),
            Value::List(list) => Items::List(list),
            Value::Map(map) if map.kind == Kind::Map => {
                // Loops in each other have as many of these.
                let taken = map
                    .members
                    .len()
                    .saturating_mul(size_of::<(Value, Value)>());
                self.budget.make(taken)?;
                // They are compared with each other.
                let keys = map.members.iter().map(|it| it.key.len());
                self.budget.step(taken.saturating_add(keys.sum()))?;
                let members = map.sorted().into_iter();
                let members =
                    members.map(|it| (Value::of_client(it.key.clone()), it.value.clone()));
                Items::Members(members.collect())
            }
            other => {
                let problem = format!("`range` does not go through {}", other.kind());
                return Err(Fault::Problem(problem));
            }
        })
    }

    fn pipe(&mut self, pipe: &Pipe, frame: &mut Frame) -> Result<Value, Fault> {
        let value = self.commands(pipe, frame)?;
        for kept in &pipe.keeps {
            frame.variables[*kept] = value.clone();
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, frame: &Frame) -> Result<Value, Fault> {
        let mut last = None;
        for Command(operands) in &pipe.commands {
            let value = match &operands[..] {
                [Operand::Function(function), given @ ..] => {
                    self.call(*function, given, last, frame)?
                }
                [operand, ..] => self.operand(operand, frame)?,
                [] => Value::Nil,
            };
            last = Some(value);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn call(
        &mut self,
        function: Function,
        given: &[Operand],
        last: Option<Value>,
        frame: &Frame,
    ) -> Result<Value, Fault> {
        let is_decided = |value: &Value| match function {
            Function::And => !value.is_true(),
            Function::Or => value.is_true(),
            _ => false,
        };
        let mut values = Vec::with_capacity(given.len() + 1);
        for operand in given {
            let value = self.operand(operand, frame)?;
            if is_decided(&value) {
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(last);
        self.budget.step(size_of_val(values.as_slice()))?;
        functions::call(function, &values, self.budget, self.today)
    }

    fn operand(&mut self, operand: &Operand, frame: &Frame) -> Result<Value, Fault> {
        self.budget.step(0)?;
        Ok(match operand {
            Operand::Nil => Value::Nil,
            Operand::Bool(value) => Value::Bool(*value),
            Operand::Int(number) => Value::Int(*number),
            Operand::Float(number) => Value::Float(*number),
            Operand::Text(text) => Value::Text(Text::own(text.clone())),
            Operand::Dot => frame.dot.clone(),
            Operand::Variable(place) => frame.variables[*place].clone(),
            Operand::Pipe(pipe) => self.commands(pipe, frame)?,
            Operand::Function(function) => self.call(*function, &[], None, frame)?,
            Operand::Fields(of, names) => {
                let mut value = self.operand(of, frame)?;
                for name in names {
                    self.budget.step(functions::looked_through(&value))?;
                    value = field(&value, name)?;
                }
                value
            }
        })
    }
}

fn field(value: &Value, name: &str) -> Result<Value, Fault> {
    let Value::Map(map) = value else {
        let problem = format!("{} has no field `.{name}`", value.kind());
        return Err(Fault::Problem(problem));
    };
    match (map.get(name), map.kind) {
        (Some(value), _) => Ok(value.clone()),
        (None, Kind::Root | Kind::Map) => Ok(Value::Nil),
        (None, Kind::Record) => {
            let problem = format!("there is no field `.{name}` in what it is asked of");
            Err(Fault::Problem(problem))
        }
    }
}

impl Items {
    fn at(&self, nth: usize) -> Option<(Value, Value)> {
        match self {
            Self::List(list) => {
                let value = list.items().get(nth)?.clone();
                Some((Value::Int(i64::try_from(nth).ok()?), value))
            }
            Self::Members(members) => members.get(nth).cloned(),
            Self::Times(times) => {
                let nth = i64::try_from(nth).ok().filter(|nth| nth < times)?;
                Some((Value::Int(nth), Value::Int(nth)))
            }
        }
    }
}

impl Frame {
    /// Ends the innermost `with` or loop.
    fn leave(&mut self) {
        match self.scopes.pop() {
            Some(Scope::With { around } | Scope::Loop { around, .. }) => self.dot = around,
            None => {}
        }
    }
}
