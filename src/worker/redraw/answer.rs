//! An answer whose tokens are looked at while it is made: what of it was drawn, what was told, and what may
//! come next. Nothing is told that may not come: the text is that of the tokens that were followed, never the
//! library's, which does not know where it goes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scores;
use crate::constraint::{Draws, Follower, ModelTokens, Next};
use crate::conversation::TokenLogprobs;
use crate::generation::FinishReason;
use crate::ipc::{SlotEvent, TokenKind, WaitsFor};
use crate::worker::constrained::{self, FOLLOWING_FAILED, NONE_CAN_BE_DRAWN};
use crate::worker::run_progress::RunProgress;
use crate::worker::slot::{SlotNote, SlotNotes};
use crate::worker::slot_events::SlotEvents;
use crate::worker::token_sink::EndedBy;
use crate::worker::utf8_assembly::Utf8Assembly;

/// Whom it is told to.
pub struct Told {
    pub run: u64,
    pub progress: Arc<RunProgress>,
    pub events: SlotEvents,
    pub notes: SlotNotes,
}

/// How its tokens are read.
pub struct Spells {
    /// Tokens that end it, whatever the grammar says behind them.
    pub ends: Arc<[i32]>,
    pub prints_special_tokens: bool,
}

/// What may come in it, and what is told of it.
#[derive(Default)]
pub struct Rules {
    /// `None`: what comes is free.
    pub follower: Option<Follower>,
    /// An answer that takes too much to follow is free from there on.
    pub is_wish: bool,
    /// Tokens that never come.
    pub banned: Vec<i32>,
    /// How many of the likeliest tokens are told beside each token, with how likely they were. `None`: no one
    /// asks.
    pub scores: Option<u8>,
}

pub struct Answer {
    told: Told,
    spells: Spells,
    tokens: Arc<ModelTokens>,
    rules: Rules,
    /// How likely those were that were drawn, until it is told.
    scores: Vec<Option<TokenLogprobs>>,
    /// What of it this run has made.
    drawn: Vec<i32>,
    /// So many of these were told.
    told_tokens: usize,
    /// What may come behind them: -inf forbids a token.
    allowed: Vec<f32>,
    next: Next,
    text: Utf8Assembly,
    ended_by: Option<EndedBy>,
    failure: Option<String>,
}

/// Of the thread that runs the library, and of the library's callbacks.
#[derive(Clone)]
pub struct SharedAnswer(Arc<Mutex<Answer>>);

impl SharedAnswer {
    pub fn new(answer: Answer) -> Self {
        Self(Arc::new(Mutex::new(answer)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Answer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// `rules` are over `tokens`.
    pub fn new(told: Told, spells: Spells, tokens: Arc<ModelTokens>, rules: Rules) -> Self {
        let mut answer = Self {
            allowed: vec![0.0; tokens.count()],
            told,
            spells,
            tokens,
            rules,
            scores: Vec::new(),
            drawn: Vec::new(),
            told_tokens: 0,
            next: Next::Token,
            text: Utf8Assembly::default(),
            ended_by: None,
            failure: None,
        };
        answer.look();
        answer
    }

    pub fn progress(&self) -> &RunProgress {
        &self.told.progress
    }

    pub fn drawn(&self) -> &[i32] {
        &self.drawn
    }

    /// Those that it is made of.
    pub fn tokens(&self) -> &ModelTokens {
        &self.tokens
    }

    /// Nothing more comes.
    pub fn is_over(&self) -> bool {
        self.ended_by.is_some() || self.failure.is_some()
    }

    pub fn ended_by(&self) -> Option<EndedBy> {
        self.ended_by
    }

    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// It can be kept to its grammar no longer.
    pub fn fails(&mut self, reason: impl Into<String>) {
        self.failure.get_or_insert(reason.into());
    }

    /// Tokens that it may still have.
    pub fn budget_left(&self) -> u32 {
        let progress = self.progress();
        progress.limit_tokens().saturating_sub(progress.tokens())
    }

    pub fn may_come(&self, id: i32) -> bool {
        let mark = usize::try_from(id).ok().and_then(|id| self.allowed.get(id));
        self.next == Next::Token && mark.is_some_and(|mark| *mark != f32::NEG_INFINITY)
    }

    /// Whether the model ends with it, here or elsewhere.
    pub fn is_end_of_model(&self, id: i32) -> bool {
        self.tokens.is_end(id)
    }

    /// Takes in a token that may come, and the row that it was drawn from.
    pub fn takes(&mut self, id: i32, row: Option<&[f32]>) {
        let scores = self.rules.scores.zip(row);
        let scores = scores.map(|(top, row)| scores::of_drawn(row, id, top, &self.tokens));
        self.scores.push(scores);
        self.drawn.push(id);
        self.look();
    }

    /// It is told how likely its tokens were, so each is drawn from a row.
    pub fn wants_scores(&self) -> bool {
        self.rules.scores.is_some()
    }

    /// Some tokens may not come, here or later.
    pub fn may_stray(&self) -> bool {
        self.rules.follower.is_some() || !self.rules.banned.is_empty()
    }

    /// From here on all of it may come, where it was followed as a wish. Returns whether it was.
    pub fn goes_free(&mut self) -> bool {
        let was_followed = self.rules.is_wish && self.rules.follower.take().is_some();
        if was_followed {
            self.look();
        }
        was_followed
    }

    /// Takes in what alone may come. A draw has no say in it, so that the answer is the same.
    pub fn takes_what_is_forced(&mut self) {
        if self.wants_scores() {
            return;
        }
        let most = self.progress().limit_tokens() as usize;
        while !self.is_over() && self.drawn.len() < most {
            let Some(only) = self.only() else { break };
            self.takes(only, None);
        }
    }

    fn only(&self) -> Option<i32> {
        if self.next == Next::End {
            return None;
        }
        let marks = self.allowed.iter().enumerate();
        let mut may = marks.filter(|(_, mark)| **mark != f32::NEG_INFINITY);
        let (id, _) = may.next()?;
        let is_alone = may.next().is_none();
        i32::try_from(id).ok().filter(|_| is_alone)
    }

    /// Draws from a row of logits in the place of what may not come, and takes that in.
    pub fn draws_from(&mut self, row: &[f32], draws: Draws, chance: f64) {
        // Where nothing may come, nothing is marked.
        let goes_on = self.next == Next::Token && !self.is_over();
        match draws.draw(row, &self.allowed, chance).filter(|_| goes_on) {
            Some(id) => self.takes(id, Some(row)),
            None => self.fails(NONE_CAN_BE_DRAWN),
        }
    }

    /// Tells what was not told yet, up to its end.
    pub fn tells(&mut self) {
        while self.ended_by.is_none() {
            let Some(&id) = self.drawn.get(self.told_tokens) else {
                return;
            };
            self.told_tokens += 1;
            let is_last = self.told_tokens == self.drawn.len();
            let count = self.progress().count_token();
            if self.progress().is_told(count) {
                let run = self.told.run;
                self.told.notes.send(SlotNote::TokenMade { run });
            }
            if self.spells.ends.contains(&id) || (is_last && self.has_ended_with(id)) {
                return self.completes(FinishReason::Stop, count);
            }
            let scores = self.scores.get_mut(self.told_tokens - 1);
            if let Some(scores) = scores.and_then(Option::take) {
                self.deliver(SlotEvent::Logprobs {
                    run: self.told.run,
                    of_prompt: false,
                    tokens: vec![scores],
                });
            }
            self.push(id);
            if is_last && self.next == Next::End {
                return self.completes(FinishReason::Stop, count);
            }
            if count >= self.progress().limit_tokens() {
                return self.completes(FinishReason::Length, count);
            }
        }
    }

    /// Ends it where all of it was said before: its worker may have died behind its last token.
    pub fn ends_where_it_begins(&mut self) {
        if self.drawn.is_empty() && self.next == Next::End && !self.is_over() {
            self.completes(FinishReason::Stop, self.progress().tokens());
        }
    }

    /// The model has ended it. Returns whether it may end here.
    pub fn ends_here(&mut self) -> bool {
        let follower = self.rules.follower.as_ref();
        let may_end = match self.next {
            Next::End => true,
            Next::Token => {
                let ends = self.tokens.ends();
                let is_banned = |end| self.rules.banned.contains(end);
                follower.is_none_or(Follower::may_end)
                    && (ends.is_empty() || !ends.iter().all(is_banned))
            }
        };
        let may_end = may_end && !self.is_over();
        if may_end {
            self.completes(FinishReason::Stop, self.progress().tokens());
        }
        may_end
    }

    pub fn ends_by_abort(&mut self) {
        self.ended_by.get_or_insert(EndedBy::Abort);
    }

    /// The library goes back. The daemon's deadlines follow it.
    pub fn goes_back(&self, waits_for: WaitsFor) {
        self.progress().goes_back(waits_for);
        let run = self.told.run;
        self.deliver(SlotEvent::GoesBack { run, waits_for });
    }

    /// What may come behind all that was drawn.
    fn look(&mut self) {
        self.allowed.fill(0.0);
        let (rules, drawn) = (&mut self.rules, &self.drawn);
        let allowed = &mut self.allowed;
        // A panic in it ends this answer and nothing else.
        let looked = catch_unwind(AssertUnwindSafe(|| {
            let Some(follower) = &mut rules.follower else {
                return Ok(Next::Token);
            };
            match follower.before_row(drawn)? {
                Some(next) => Ok(next),
                None => follower.row(drawn, allowed),
            }
        }));
        for &id in &self.rules.banned {
            let place = usize::try_from(id).ok();
            if let Some(mark) = place.and_then(|place| self.allowed.get_mut(place)) {
                *mark = f32::NEG_INFINITY;
            }
        }
        match looked {
            Ok(Ok(next)) => self.next = next,
            Ok(Err(error)) => self.fails(constrained::reason(&error)),
            Err(_) => self.fails(FOLLOWING_FAILED),
        }
    }

    /// Whether the last one that was drawn is an end of the model's.
    fn has_ended_with(&self, id: i32) -> bool {
        match &self.rules.follower {
            Some(follower) => follower.has_ended(),
            None => self.tokens.is_end(id),
        }
    }

    fn completes(&mut self, reason: FinishReason, generated_tokens: u32) {
        // A character that it ends within is no text, as with a library that waits for the rest of one.
        self.ended_by = Some(EndedBy::Reason(reason));
        self.deliver(SlotEvent::AnswerComplete {
            run: self.told.run,
            reason,
            generated_tokens,
        });
        self.progress().goes_on();
        self.progress().set_complete();
    }

    fn push(&mut self, id: i32) {
        let is_printed = self.spells.prints_special_tokens || !self.tokens.is_unprinted(id);
        let piece: &[u8] = match is_printed {
            true => self.tokens.piece(id),
            false => &[],
        };
        let whole = self.text.push(piece);
        let (text, replaced) = (whole.text.into_owned(), whole.replaced);
        let kind = if replaced {
            TokenKind::Replaced
        } else if self.text.holds_back() {
            TokenKind::Partial
        } else if text.is_empty() {
            TokenKind::Swallowed
        } else {
            TokenKind::Text
        };
        self.deliver_token(kind, id, text);
    }

    fn deliver_token(&self, kind: TokenKind, id: i32, text: String) {
        let run = self.told.run;
        self.deliver(SlotEvent::Token {
            run,
            kind,
            id: Some(id),
            text,
        });
    }

    fn deliver(&self, event: SlotEvent) {
        let Told {
            events, progress, ..
        } = &self.told;
        events.deliver(progress, event, Vec::new());
    }
}
