//! Makes steps of a template's text, action by action.

use super::GoTemplateError;
use super::expression::{Pipe, Variables, named, nothing_more, pipe};
use super::program::{Program, RESPONSE, Step};
use super::scan::{Action, OPEN, Placed, Token, action, shown, trimmed};

/// Tokens and actions, which take many times the memory of their text.
const MOST_WORDS: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    If,
    With,
    Range,
    /// What is only called.
    Body,
}

/// A block whose end has not come.
struct Open {
    kind: Kind,
    at: usize,
    /// The step that goes on elsewhere where there is nothing; `None` behind its `else`.
    condition: Option<usize>,
    /// Of a loop.
    next: usize,
    /// Steps that go on behind its end.
    jumps: Vec<usize>,
    /// Those that were known before it.
    variables: usize,
    /// And with those of its conditions, which its `else` knows as well.
    in_else: usize,
    /// The innermost loop around it.
    around_loop: Option<Loop>,
    /// Variables around a body.
    around: Option<Variables>,
    has_answer: bool,
}

/// A loop, by its place among the open blocks, and how many `with` there are in it.
#[derive(Clone, Copy)]
struct Loop {
    open: usize,
    withs: usize,
}

#[derive(Default)]
struct Compiler {
    program: Program,
    opened: Vec<Open>,
    variables: Variables,
}

pub(super) fn compile(source: &str) -> Result<Program, GoTemplateError> {
    let mut compiler = Compiler::default();
    let (mut at, mut is_trimmed, mut left) = (0, false, MOST_WORDS);
    loop {
        let found = source[at..].find(OPEN).map(|found| at + found);
        let action = found.map(|start| action(source, start, left));
        let action = action.transpose()?;
        let trims_before = action.as_ref().is_some_and(|action| action.trims_before);
        let text = at..found.unwrap_or(source.len());
        let text = trimmed(source, text, is_trimmed, trims_before);
        if !text.is_empty() {
            compiler.program.steps.push(Step::Text(text));
        }
        let (Some(start), Some(action)) = (found, action) else {
            break;
        };
        left = left.saturating_sub(1 + action.tokens.len());
        (at, is_trimmed) = (action.end, action.trims_behind);
        let compiled = compiler.action(start, &action);
        compiled.map_err(|problem| GoTemplateError::at(source, start, problem))?;
    }
    if let Some(open) = compiler.opened.pop() {
        let problem = format!("an `{}` without its `end`", open.kind.name());
        return Err(GoTemplateError::at(source, open.at, problem));
    }
    let mut program = compiler.program;
    program.variables = program.variables.max(compiler.variables.most());
    let called = program.steps.iter().find_map(|step| match step {
        Step::Call { body, at, .. } if !program.bodies.contains_key(body) => Some((body, *at)),
        _ => None,
    });
    match called {
        Some((body, at)) => {
            let problem = format!("the template `{}` is not defined", shown(body));
            Err(GoTemplateError::at(source, at, problem))
        }
        None => Ok(program),
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::With => "with",
            Self::Range => "range",
            Self::Body => "define",
        }
    }
}

impl Compiler {
    fn action(&mut self, at: usize, action: &Action<'_>) -> Result<(), String> {
        let tokens = &action.tokens[..];
        let Some((first, behind)) = tokens.split_first() else {
            return match action.is_comment {
                true => Ok(()),
                false => Err("nothing stands between the braces".to_owned()),
            };
        };
        let word = match first.token {
            Token::Word(word) => word,
            _ => "",
        };
        match word {
            "if" => self.open(Kind::If, at, behind),
            "with" => self.open(Kind::With, at, behind),
            "range" => self.open(Kind::Range, at, behind),
            "else" => self.otherwise(at, behind),
            "end" => self.end(behind),
            "break" | "continue" => self.leave_loop(word == "break", behind),
            "define" => self.define(at, behind),
            "block" => {
                let (name, behind) = named(behind)?;
                self.call(at, name.clone(), behind)?;
                self.begin_body(at, name)
            }
            "template" => {
                let (name, behind) = named(behind)?;
                self.call(at, name, behind)
            }
            _ => {
                let pipe = self.pipe(tokens, Kind::Body, false)?;
                let mut is_answer = false;
                pipe.fields(&mut |name| is_answer |= name == RESPONSE);
                let is_answer = is_answer && pipe.keeps.is_empty();
                if let (true, Some(open)) = (is_answer, self.opened.last_mut()) {
                    open.has_answer = true;
                }
                self.program.steps.push(Step::Write {
                    pipe,
                    at,
                    is_answer,
                });
                Ok(())
            }
        }
    }

    fn pipe(&mut self, tokens: &[Placed<'_>], of: Kind, is_asked: bool) -> Result<Pipe, String> {
        let pipe = pipe(tokens, &mut self.variables, of == Kind::Range)?;
        let Program {
            mentioned, used, ..
        } = &mut self.program;
        // What a variable keeps may be written later.
        let is_asked = is_asked && pipe.keeps.is_empty();
        pipe.fields(&mut |name| {
            if !mentioned.contains(name) {
                mentioned.insert(name.to_owned());
            }
            if !is_asked && !used.contains(name) {
                used.insert(name.to_owned());
            }
        });
        Ok(pipe)
    }

    /// Begins a block, or goes on with one in its `else`.
    fn condition(&mut self, kind: Kind, at: usize, tokens: &[Placed<'_>]) -> Result<(), String> {
        let pipe = self.pipe(tokens, kind, kind == Kind::If)?;
        let keeps = match kind {
            Kind::Range => pipe.keeps.clone(),
            _ => Vec::new(),
        };
        self.program.steps.push(match kind {
            Kind::If | Kind::Body => Step::Unless { pipe, at, to: 0 },
            Kind::With => Step::With { pipe, at, to: 0 },
            Kind::Range => Step::Range { pipe, at, to: 0 },
        });
        if kind == Kind::Range {
            self.program.steps.push(Step::Next { keeps, to: 0 });
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind, at: usize, tokens: &[Placed<'_>]) -> Result<(), String> {
        let variables = self.variables.len();
        let condition = self.program.steps.len();
        self.condition(kind, at, tokens)?;
        let around_loop = self.innermost_loop();
        self.opened.push(Open {
            kind,
            at,
            condition: Some(condition),
            next: condition + 1,
            jumps: Vec::new(),
            variables,
            in_else: self.variables.len(),
            around_loop,
            around: None,
            has_answer: false,
        });
        Ok(())
    }

    fn otherwise(&mut self, at: usize, tokens: &[Placed<'_>]) -> Result<(), String> {
        let steps = &mut self.program.steps;
        let open = self.opened.last_mut();
        let Some((before, open)) = open.and_then(|open| Some((open.condition.take()?, open)))
        else {
            return Err("an `else` without its `if`".to_owned());
        };
        close_body(open, steps);
        go_to(steps, before);
        self.variables.forget(open.in_else);
        let kind = open.kind;
        let more = match tokens.split_first() {
            None => None,
            Some((placed, behind)) if placed.token == Token::Word(kind.name()) => Some(behind),
            Some(_) => return Err("what stands behind `else` is not known here".to_owned()),
        };
        let Some(behind) = more else {
            return Ok(());
        };
        if kind == Kind::Range {
            return Err("`else range` is not known here".to_owned());
        }
        let condition = self.program.steps.len();
        self.condition(kind, at, behind)?;
        if let Some(open) = self.opened.last_mut() {
            open.condition = Some(condition);
            open.in_else = self.variables.len();
        }
        Ok(())
    }

    fn end(&mut self, tokens: &[Placed<'_>]) -> Result<(), String> {
        nothing_more(tokens)?;
        let Some(mut open) = self.opened.pop() else {
            return Err("an `end` without its `if`".to_owned());
        };
        let steps = &mut self.program.steps;
        match (open.kind, open.condition) {
            (Kind::Body, _) => steps.push(Step::Return),
            (_, None) => {}
            (Kind::If, Some(condition)) if !open.has_answer => go_to(steps, condition),
            (_, Some(condition)) => {
                close_body(&mut open, steps);
                go_to(steps, condition);
                if open.has_answer {
                    steps.push(Step::PastAnswer);
                }
            }
        }
        if open.kind == Kind::Range {
            go_to(steps, open.next);
        }
        for step in open.jumps {
            go_to(steps, step);
        }
        match open.around {
            Some(around) => {
                let most = self.variables.most();
                self.program.variables = self.program.variables.max(most);
                self.variables = around;
            }
            None => self.variables.forget(open.variables),
        }
        if let (true, Kind::If | Kind::With | Kind::Range, Some(around)) =
            (open.has_answer, open.kind, self.opened.last_mut())
        {
            around.has_answer = true;
        }
        Ok(())
    }

    fn leave_loop(&mut self, is_break: bool, tokens: &[Placed<'_>]) -> Result<(), String> {
        nothing_more(tokens)?;
        let innermost = self.innermost_loop();
        let Some(Loop { open, withs }) = innermost else {
            return Err("there is no loop around it".to_owned());
        };
        let (steps, open) = (&mut self.program.steps, &mut self.opened[open]);
        steps.push(Step::Leave(withs + usize::from(is_break)));
        if is_break {
            open.jumps.push(steps.len());
        }
        steps.push(Step::Jump(open.next));
        Ok(())
    }

    /// The loop whose body this is a part of.
    fn innermost_loop(&self) -> Option<Loop> {
        let last = self.opened.last()?;
        // It has no `else`, or that has not come.
        let is_body = last.condition.is_some();
        match last.kind {
            Kind::Body => None,
            Kind::Range if is_body => Some(Loop {
                open: self.opened.len() - 1,
                withs: 0,
            }),
            Kind::With if is_body => last.around_loop.map(|around| Loop {
                withs: around.withs + 1,
                ..around
            }),
            _ => last.around_loop,
        }
    }

    fn call(&mut self, at: usize, body: String, tokens: &[Placed<'_>]) -> Result<(), String> {
        let pipe = match tokens {
            [] => None,
            tokens => Some(self.pipe(tokens, Kind::Body, false)?),
        };
        self.program.steps.push(Step::Call { body, pipe, at });
        Ok(())
    }

    fn define(&mut self, at: usize, tokens: &[Placed<'_>]) -> Result<(), String> {
        let (name, behind) = named(tokens)?;
        nothing_more(behind)?;
        if !self.opened.is_empty() {
            return Err("a `define` inside another block".to_owned());
        }
        self.begin_body(at, name)
    }

    /// It stands where it is written, and is passed over there.
    fn begin_body(&mut self, at: usize, name: String) -> Result<(), String> {
        let steps = &mut self.program.steps;
        let jump = steps.len();
        steps.push(Step::Jump(0));
        // A later one of the same name is the one that is meant.
        self.program.bodies.insert(name, steps.len());
        self.opened.push(Open {
            kind: Kind::Body,
            at,
            condition: None,
            next: 0,
            jumps: vec![jump],
            variables: 0,
            in_else: 0,
            around_loop: None,
            around: Some(std::mem::take(&mut self.variables)),
            has_answer: false,
        });
        Ok(())
    }
}

/// What ends a block's body, before its `else` or its end.
fn close_body(open: &mut Open, steps: &mut Vec<Step>) {
    match open.kind {
        Kind::Range => return steps.push(Step::Jump(open.next)),
        Kind::With => steps.push(Step::Leave(1)),
        Kind::If | Kind::Body => {}
    }
    open.jumps.push(steps.len());
    steps.push(Step::Jump(0));
}

/// The step goes on behind all that there is by now.
fn go_to(steps: &mut [Step], step: usize) {
    let behind = steps.len();
    if let Some(
        Step::Unless { to, .. }
        | Step::With { to, .. }
        | Step::Range { to, .. }
        | Step::Next { to, .. }
        | Step::Jump(to),
    ) = steps.get_mut(step)
    {
        *to = behind;
    }
}
