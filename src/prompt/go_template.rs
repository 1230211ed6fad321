//! Templates in the words of Ollama's, which are Go's: as much of them as writes a system's message, a question, its
//! answer and what is behind a gap. Whatever else stands in one is refused, with its place, so that none means
//! something else here than there.
//!
//! Writing goes forward only: each part is looked at once, so that a template costs no more than its length and what
//! it writes.

use std::ops::Range;

/// What Go's templates take for white space beside a trim marker.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// Characters that are shown of what is not understood.
const MOST_SHOWN: usize = 40;

/// What a template can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoField {
    System,
    Prompt,
    Response,
    Suffix,
}

impl GoField {
    fn named(name: &str) -> Option<Self> {
        match name.strip_prefix('$').unwrap_or(name) {
            ".System" => Some(Self::System),
            ".Prompt" => Some(Self::Prompt),
            ".Response" => Some(Self::Response),
            ".Suffix" => Some(Self::Suffix),
            _ => None,
        }
    }
}

/// What a template writes once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub system: String,
    pub prompt: String,
    pub response: String,
    pub suffix: String,
}

impl Values {
    fn of(&self, field: GoField) -> &str {
        match field {
            GoField::System => &self.system,
            GoField::Prompt => &self.prompt,
            GoField::Response => &self.response,
            GoField::Suffix => &self.suffix,
        }
    }
}

/// What a template writes, piece by piece. An error ends the writing.
pub(super) trait Writes {
    type Error;

    /// The template's own text.
    fn own(&mut self, text: &str) -> Result<(), Self::Error>;

    /// A value.
    fn value(&mut self, text: &str) -> Result<(), Self::Error>;
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct GoTemplateError {
    line: usize,
    column: usize,
    problem: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Text(Range<usize>),
    Field(GoField),
    /// Goes on elsewhere where the value is empty.
    Unless(GoField, usize),
    Jump(usize),
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTemplate {
    source: String,
    steps: Vec<Step>,
}

/// An `if` whose end has not come.
struct Open {
    at: usize,
    /// The step of its last condition; `None` behind its `else`.
    condition: Option<usize>,
    /// Steps that go on behind its end.
    jumps: Vec<usize>,
}

impl GoTemplate {
    /// # Errors
    ///
    /// It holds something else than is known here.
    pub fn parse(source: &str) -> Result<Self, GoTemplateError> {
        let error = |at: usize, problem: String| GoTemplateError::at(source, at, problem);
        let mut steps = Vec::new();
        let mut opened: Vec<Open> = Vec::new();
        let mut at = 0;
        let mut is_trimmed = false;
        loop {
            let found = source[at..].find(OPEN).map(|found| at + found);
            let action = found.map(|start| action(source, start)).transpose()?;
            let trims_before = action.as_ref().is_some_and(|action| action.trims_before);
            let text = trimmed(
                source,
                at..found.unwrap_or(source.len()),
                is_trimmed,
                trims_before,
            );
            if !text.is_empty() {
                steps.push(Step::Text(text));
            }
            let (Some(start), Some(action)) = (found, action) else {
                break;
            };
            (at, is_trimmed) = (action.end, action.trims_behind);
            let field = |name: &str| {
                GoField::named(name).ok_or_else(|| error(start, unknown(&source[start..at])))
            };
            let words: Vec<&str> = action
                .words
                .split(SPACE)
                .filter(|it| !it.is_empty())
                .collect();
            match words[..] {
                [] if action.is_comment => {}
                ["if", name] => {
                    opened.push(Open {
                        at: start,
                        condition: Some(steps.len()),
                        jumps: Vec::new(),
                    });
                    steps.push(Step::Unless(field(name)?, 0));
                }
                ["else", ref condition @ ..] => {
                    let block = opened.last_mut();
                    let block = block.and_then(|open| Some((open.condition.take()?, open)));
                    let Some((before, open)) = block else {
                        return Err(error(start, "an `else` without its `if`".to_owned()));
                    };
                    open.jumps.push(steps.len());
                    steps.push(Step::Jump(0));
                    go_to(&mut steps, before);
                    match condition {
                        [] => {}
                        ["if", name] => {
                            open.condition = Some(steps.len());
                            steps.push(Step::Unless(field(name)?, 0));
                        }
                        _ => return Err(error(start, unknown(&source[start..at]))),
                    }
                }
                ["end"] => {
                    let Some(open) = opened.pop() else {
                        return Err(error(start, "an `end` without its `if`".to_owned()));
                    };
                    for step in open.jumps.into_iter().chain(open.condition) {
                        go_to(&mut steps, step);
                    }
                }
                [name] => steps.push(Step::Field(field(name)?)),
                _ => return Err(error(start, unknown(&source[start..at]))),
            }
        }
        if let Some(open) = opened.pop() {
            return Err(error(open.at, "an `if` without its `end`".to_owned()));
        }
        let mut template = Self {
            source: source.to_owned(),
            steps,
        };
        // An answer has to stand somewhere.
        if !template.writes(GoField::Response) {
            template.steps.push(Step::Field(GoField::Response));
        }
        Ok(template)
    }

    /// Whether it has a place for it.
    pub fn writes(&self, field: GoField) -> bool {
        self.steps.contains(&Step::Field(field))
    }

    /// Writes `values`, or what of them is before the end of the answer.
    pub(super) fn write<W: Writes>(
        &self,
        values: &Values,
        ends_with_response: bool,
        to: &mut W,
    ) -> Result<(), W::Error> {
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            at += 1;
            match step {
                Step::Text(range) => to.own(&self.source[range.clone()])?,
                Step::Field(field) => {
                    to.value(values.of(*field))?;
                    if ends_with_response && *field == GoField::Response {
                        break;
                    }
                }
                Step::Unless(field, behind) if values.of(*field).is_empty() => at = *behind,
                Step::Unless(..) => {}
                Step::Jump(behind) => at = *behind,
            }
        }
        Ok(())
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

/// What stands between braces.
struct Action<'s> {
    words: &'s str,
    is_comment: bool,
    trims_before: bool,
    trims_behind: bool,
    /// Behind the braces.
    end: usize,
}

fn action(source: &str, start: usize) -> Result<Action<'_>, GoTemplateError> {
    let error = |problem: &str| GoTemplateError::at(source, start, problem.to_owned());
    let begin = start + OPEN.len();
    let trims_before = source[begin..]
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(SPACE));
    let begin = begin + usize::from(trims_before);
    let inside = &source[begin..];
    let comment = inside.trim_start_matches(SPACE).strip_prefix("/*");
    let (words, is_comment, rest) = match comment {
        Some(comment) => {
            let end = comment
                .find("*/")
                .ok_or_else(|| error("a comment without an end"))?;
            ("", true, &comment[end + "*/".len()..])
        }
        None => {
            let end = inside
                .find(CLOSE)
                .ok_or_else(|| error("`{{` without `}}`"))?;
            (&inside[..end], false, &inside[end..])
        }
    };
    let (words, rest, trims_behind) = match is_comment {
        true => {
            let spaced = rest.trim_start_matches(SPACE);
            match spaced.strip_prefix('-') {
                Some(behind) if spaced.len() < rest.len() => (words, behind, true),
                _ => (words, rest, false),
            }
        }
        false => {
            let marked = words.strip_suffix('-');
            let marked = marked.filter(|words| words.ends_with(SPACE));
            (marked.unwrap_or(words), rest, marked.is_some())
        }
    };
    let behind = rest
        .strip_prefix(CLOSE)
        .ok_or_else(|| error("a comment is to end where its braces do"))?;
    Ok(Action {
        words,
        is_comment,
        trims_before,
        trims_behind,
        end: source.len() - behind.len(),
    })
}

/// What of a text trim markers leave.
fn trimmed(source: &str, range: Range<usize>, start: bool, end: bool) -> Range<usize> {
    let mut text = &source[range.clone()];
    let mut from = range.start;
    if start {
        text = text.trim_start_matches(SPACE);
        from = range.end - text.len();
    }
    if end {
        text = text.trim_end_matches(SPACE);
    }
    from..from + text.len()
}

/// The step goes on behind all that there is by now.
fn go_to(steps: &mut [Step], step: usize) {
    let behind = steps.len();
    if let Some(Step::Unless(_, to) | Step::Jump(to)) = steps.get_mut(step) {
        *to = behind;
    }
}

fn unknown(action: &str) -> String {
    let mut shown: String = action.chars().take(MOST_SHOWN).collect();
    if shown.len() < action.len() {
        shown.push('…');
    }
    format!(
        "`{shown}` is not among what is known here: `.System`, `.Prompt`, `.Response`, `.Suffix`, `if` of one of \
         them, `else`, `else if`, `end` and comments"
    )
}

#[cfg(test)]
mod tests;
