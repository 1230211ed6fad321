//! What of a conversation goes where all of it does not fit: its oldest turns. A turn is what a user says
//! and all that follows until they speak again, so a call never goes without its results, nor they without
//! it; what the system says stays wherever it stands, and so does the last turn.
//!
//! They go in steps, not one by one, so that the same ones are gone at the next turn. How many go is found by
//! trying: each try is a rendering, whose tokens tell. There are few, since the bytes of the turns say where to
//! begin, and each try halves what is left.

use std::collections::HashMap;

use crate::prompt::{ChatMessage, ChatRole};

/// Of a prompt's room, turns of so large a part go together.
const STEPS: usize = 4;
/// Of most texts in most vocabularies. It must not follow the conversation, whose steps would move with it.
const BYTES_PER_TOKEN: usize = 4;

/// Where turns begin that may be the first to stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// The first messages of all turns but the oldest one, in order.
    starts: Vec<usize>,
}

impl Turns {
    pub fn of(messages: &[ChatMessage]) -> Self {
        let open_until = last_results(messages);
        let mut starts = Vec::new();
        // The last result of the calls so far.
        let mut open = 0;
        let mut has_history = false;
        for (index, message) in messages.iter().enumerate() {
            let is_start = message.role == ChatRole::User && has_history && open < index;
            starts.extend(is_start.then_some(index));
            has_history |= message.role != ChatRole::System;
            open = open.max(open_until.get(&index).copied().unwrap_or(0));
        }
        Self { starts }
    }

    /// How many may go.
    pub fn most(&self) -> usize {
        self.starts.len()
    }

    /// Numbers of turns to try, from none to all that may go, where a prompt may have `room` tokens. As many go
    /// together as fill a quarter of that, counted from the oldest one on. What comes behind changes nothing of
    /// it, so of a conversation that grows the same turns are gone many times in a row, and what its prompts
    /// begin with, which a KV cache may hold, stays.
    pub fn steps(&self, messages: &[ChatMessage], room: usize) -> Vec<usize> {
        let step = (room / STEPS * BYTES_PER_TOKEN).max(1);
        let mut steps = vec![0];
        let (mut bytes, mut filled, mut from) = (0, 0, 0);
        for (turns, &start) in (1..).zip(&self.starts) {
            let gone = messages[from..start].iter();
            let gone = gone.filter(|message| message.role != ChatRole::System);
            bytes += gone.map(ChatMessage::bytes).sum::<usize>();
            from = start;
            if bytes / step > filled {
                filled = bytes / step;
                steps.push(turns);
            }
        }
        if steps.last().is_some_and(|last| *last < self.most()) {
            steps.push(self.most());
        }
        steps
    }

    /// Which messages stay where so many turns go.
    pub fn kept<'m>(
        &self,
        turns: usize,
        messages: &'m [ChatMessage],
    ) -> impl Iterator<Item = usize> + use<'m> {
        let from = match turns.checked_sub(1) {
            None => 0,
            Some(before) => self.starts.get(before).copied().unwrap_or(messages.len()),
        };
        let stays = move |index: usize| index >= from || messages[index].role == ChatRole::System;
        (0..messages.len()).filter(move |index| stays(*index))
    }
}

/// For each message with calls, the last message that holds a result of one of them. A result that names no
/// call is one of the calls before it.
fn last_results(messages: &[ChatMessage]) -> HashMap<usize, usize> {
    let mut made: HashMap<&str, usize> = HashMap::new();
    let mut latest = None;
    let mut last = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let calls = message
            .more
            .get("tool_calls")
            .and_then(|calls| calls.as_array());
        for call in calls.into_iter().flatten() {
            latest = Some(index);
            if let Some(id) = call.get("id").and_then(|id| id.as_str()) {
                made.insert(id, index);
            }
        }
        if message.role == ChatRole::Tool {
            let id = message.more.get("tool_call_id").and_then(|id| id.as_str());
            let named = id.and_then(|id| made.get(id).copied());
            if let Some(call) = named.or(latest) {
                last.insert(call, index);
            }
        }
    }
    last
}

/// What a rendering takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Tokens(usize),
    /// More than any prompt that fits.
    Endless,
}

/// The search for how many turns go.
#[derive(Debug)]
pub(super) struct Search {
    /// Tokens that there are for a prompt.
    room: usize,
    /// How many may go.
    most: usize,
    /// This many are too few.
    too_few: usize,
    /// This many are enough.
    enough: Option<usize>,
    /// What is worth a try, the last one first.
    hints: Vec<usize>,
}

impl Search {
    /// For a conversation that does not fit whole. `bytes`: of what stays where none goes, where one goes
    /// and so on.
    pub fn new(room: usize, bytes: &[usize], whole: Size) -> Self {
        let guess = match whole {
            Size::Endless => None,
            Size::Tokens(tokens) => {
                let all = bytes.first().copied().unwrap_or(0).max(1);
                // What the template adds is shared out among the messages.
                let fits = |bytes: &usize| bytes.saturating_mul(tokens) / all <= room;
                bytes.iter().position(fits)
            }
        };
        Self {
            room,
            most: bytes.len().saturating_sub(1),
            too_few: 0,
            enough: None,
            // One beside it is the answer where it is nearly right.
            hints: guess.map_or_else(Vec::new, |it| vec![it.saturating_sub(1), it + 1, it]),
        }
    }

    /// How many turns are to be tried next; `None`: it is known, or none can go.
    pub fn next(&mut self) -> Option<usize> {
        let too_few = self.too_few;
        let below = self.enough.unwrap_or(self.most + 1);
        while let Some(turns) = self.hints.pop() {
            if turns > too_few && turns < below {
                return Some(turns);
            }
        }
        match self.enough {
            None => (self.most > too_few).then_some(self.most),
            Some(enough) => {
                let middle = too_few + (enough - too_few) / 2;
                (middle > too_few).then_some(middle)
            }
        }
    }

    /// What a try came to.
    pub fn learn(&mut self, turns: usize, size: Size) {
        let fits = matches!(size, Size::Tokens(tokens) if tokens <= self.room);
        match fits {
            true => self.enough = Some(turns),
            false => self.too_few = self.too_few.max(turns),
        }
    }

    /// The fewest that are known to be enough.
    pub fn found(&self) -> Option<usize> {
        self.enough
    }
}

#[cfg(test)]
mod tests;
