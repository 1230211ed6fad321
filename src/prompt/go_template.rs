//! Templates in the words of Ollama's, which are Go's `text/template` with a few functions more. What is not known here
//! is refused, with its place, so that none means something else here than there.
//!
//! A template is a client's, or an administrator's. It is read and run with what it may take counted: steps, bytes
//! of all texts that it makes, calls and brackets in each other. Of each text it is known which bytes the template
//! wrote itself, whatever it does with it, so that no client's text becomes a part of a control token.

mod built;
mod compile;
mod data;
mod expression;
mod functions;
mod printf;
mod program;
mod run;
mod scan;
mod value;

pub(super) use built::{Budget, Written};
pub(super) use data::{TurnTexts, of_conversation, of_turn};
pub(super) use run::RunError;
pub(super) use value::Value;

use program::{Program, RESPONSE, Step};

/// What a template can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoField {
    Messages,
    Response,
    Suffix,
    Think,
    ToolCalls,
    Tools,
}

impl GoField {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "Messages",
            Self::Response => RESPONSE,
            Self::Suffix => "Suffix",
            Self::Think => "Think",
            Self::ToolCalls => "ToolCalls",
            Self::Tools => "Tools",
        }
    }
}

/// Why a text is no template, or what a template does that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct GoTemplateError {
    line: usize,
    column: usize,
    problem: String,
}

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub struct GoTemplate {
    source: String,
    program: Program,
}

impl GoTemplate {
    /// # Errors
    ///
    /// It holds something else than is known here.
    pub fn parse(source: &str) -> Result<Self, GoTemplateError> {
        let mut template = Self {
            source: source.to_owned(),
            program: compile::compile(source)?,
        };
        // An answer has to stand somewhere.
        if !template.knows_messages() && !template.writes(GoField::Response) {
            template.program.used.insert(RESPONSE.to_owned());
            template.program.steps.push(Step::answer(source.len()));
        }
        Ok(template)
    }

    /// Whether it has a place for it, and does not only ask for it.
    pub fn writes(&self, field: GoField) -> bool {
        self.program.used.contains(field.name())
    }

    /// Whether it asks for it, at the least.
    pub fn mentions(&self, field: GoField) -> bool {
        self.program.mentioned.contains(field.name())
    }

    /// Whether it is given a conversation whole, and not turn by turn.
    pub fn knows_messages(&self) -> bool {
        self.mentions(GoField::Messages)
    }

    /// Whether functions have a place in it.
    pub fn takes_functions(&self) -> bool {
        self.knows_messages() && self.writes(GoField::Tools)
    }

    /// Writes what it makes of `root`, or what of that is before the end of the answer.
    pub(super) fn write(
        &self,
        root: Value,
        ends_with_answer: bool,
        today: jiff::civil::Date,
        budget: &mut Budget,
        to: &mut Written,
    ) -> Result<(), RunError> {
        let machine = run::Machine {
            template: self,
            budget,
            to,
            ends_with_answer,
            today,
        };
        machine.run(root)
    }
}

impl GoTemplateError {
    fn at(source: &str, at: usize, problem: String) -> Self {
        let before = &source[..at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem,
        }
    }
}

#[cfg(test)]
mod tests;
