//! Texts while they are written, within what a rendering may take.

use std::ops::Range;

use super::run::Fault;
use super::value::{Text, Value};

/// Work on so many bytes is a step.
const BYTES_PER_STEP: usize = 64;

/// What is left of what one rendering may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::prompt) struct Budget {
    pub steps: u64,
    /// Bytes of texts and of what is known of them, those that are only kept as well.
    pub bytes: usize,
}

impl Budget {
    /// A step that looks at so many bytes.
    pub fn step(&mut self, bytes: usize) -> Result<(), Fault> {
        let steps = 1 + (bytes / BYTES_PER_STEP) as u64;
        self.steps = self.steps.checked_sub(steps).ok_or(Fault::TooMuch)?;
        Ok(())
    }

    /// Makes so many bytes of text.
    pub fn make(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Fault::TooMuch)?;
        Ok(())
    }
}

/// A text of several.
pub(super) struct Built<'b> {
    text: String,
    own: Vec<Range<usize>>,
    pub budget: &'b mut Budget,
}

impl<'b> Built<'b> {
    pub fn new(budget: &'b mut Budget) -> Self {
        Self {
            text: String::new(),
            own: Vec::new(),
            budget,
        }
    }

    /// What is not the template's, or need not be.
    pub fn plain(&mut self, text: &str) -> Result<(), Fault> {
        self.budget.make(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub fn text(&mut self, text: &Text) -> Result<(), Fault> {
        let start = self.text.len();
        self.plain(&text.text)?;
        // Where its own parts are may take more than they do.
        self.budget.make(size_of_val(&*text.own))?;
        moved(&text.own, start).for_each(|range| add(&mut self.own, range));
        Ok(())
    }

    pub fn done(self) -> Value {
        Value::Text(Text {
            text: self.text.into(),
            own: self.own.into(),
            is_last: false,
        })
    }
}

fn moved(own: &[Range<usize>], by: usize) -> impl Iterator<Item = Range<usize>> {
    own.iter()
        .map(move |range| range.start + by..range.end + by)
}

/// What touches the last one is one with it.
fn add(own: &mut Vec<Range<usize>>, range: Range<usize>) {
    match own.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ if range.is_empty() => {}
        _ => own.push(range),
    }
}

/// What a template has written.
#[derive(Clone, Debug, Default)]
pub(in crate::prompt) struct Written {
    pub text: String,
    /// The bytes that the template has written itself, in order and apart from each other.
    pub own: Vec<Range<usize>>,
    /// Behind what the last message says.
    pub last_said: Option<usize>,
    /// More than so many bytes are too much.
    pub limit: usize,
}

impl Written {
    /// Nothing yet, and never more than `limit`.
    pub fn within(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub fn own(&mut self, text: &str) -> Result<(), Fault> {
        let start = self.text.len();
        self.plain(text)?;
        add(&mut self.own, start..self.text.len());
        Ok(())
    }

    pub fn plain(&mut self, text: &str) -> Result<(), Fault> {
        if text.len() > self.limit.saturating_sub(self.text.len()) {
            return Err(Fault::TooMuch);
        }
        self.text.push_str(text);
        Ok(())
    }

    pub fn text(&mut self, text: &Text) -> Result<(), Fault> {
        let start = self.text.len();
        self.plain(&text.text)?;
        moved(&text.own, start).for_each(|range| add(&mut self.own, range));
        if text.is_last {
            self.last_said = Some(self.text.len());
        }
        Ok(())
    }

    /// Only what is before it.
    pub fn truncate(&mut self, end: usize) {
        self.text.truncate(end);
        while let Some(last) = self.own.last_mut() {
            last.end = last.end.min(end);
            match last.start >= last.end {
                true => self.own.pop(),
                false => break,
            };
        }
    }
}
