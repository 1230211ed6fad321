//! What reads like a call, until it is told as one. Should no call come of it, it is content as it was
//! written, so nothing of it is lost.

use super::{ReplyParser, push_text};
use crate::conversation::ReplyPiece;
use crate::reply::harmony;
use crate::reply::machine::{AFTER_CALL, CONTENT, Sink, StateId, THOUGHT, THOUGHT_START};

/// What was read since the opener of a call, or of a message.
#[derive(Clone, Debug)]
pub(super) struct Untold {
    /// What the opener reads as; empty where it is a token, which is an opener for certain.
    opener: String,
    text: String,
    /// Where the answer goes on if no call comes of it.
    back: StateId,
    /// A call was told before it, behind the same opener.
    follows_call: bool,
}

impl Untold {
    fn new(opener: String, back: StateId) -> Self {
        Self {
            opener,
            text: String::new(),
            back,
            follows_call: false,
        }
    }

    /// What is no markup of it.
    fn text(&self) -> &str {
        match self.follows_call {
            true => self.text.trim_start_matches(is_left_over),
            false => &self.text,
        }
    }
}

/// What is left over between calls.
fn is_left_over(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, ']' | '}' | ',' | ';')
}

impl ReplyParser {
    /// A call may begin, with an opener that reads `matched`.
    pub(super) fn begin_untold(&mut self, matched: &str) {
        let blank = std::mem::take(&mut self.blank);
        if let Some(untold) = &mut self.untold {
            let text = std::mem::take(&mut untold.text);
            if !matched.is_empty() {
                untold.opener.extend([&text, matched]);
            }
            return;
        }
        let is_in_thought = matches!(self.at, THOUGHT | THOUGHT_START);
        self.untold = Some(match matched {
            "" => Untold::new(String::new(), AFTER_CALL),
            _ if is_in_thought => Untold::new(blank + matched, THOUGHT),
            _ => Untold::new(blank + matched, CONTENT),
        });
    }

    /// A call may begin, if need be without an opener.
    pub(super) fn begin_bare(&mut self) {
        let blank = std::mem::take(&mut self.blank);
        let untold = || Untold::new(blank, CONTENT);
        self.untold.get_or_insert_with(untold);
    }

    /// Another call may begin behind the same opener.
    pub(super) fn begin_next(&mut self) {
        self.untold = Some(Untold {
            follows_call: true,
            ..Untold::new(String::new(), AFTER_CALL)
        });
    }

    /// Keeps what was read while no call is told of it.
    pub(super) fn remember(&mut self, text: &str) {
        if self.call.is_announced() {
            self.untold = None;
        } else if let Some(untold) = &mut self.untold {
            untold.text.push_str(text);
        }
    }

    /// Nothing but markup was read since the opener.
    pub(super) fn is_just_opened(&self) -> bool {
        let is_blank = |untold: &Untold| untold.text.trim().is_empty();
        !self.call.is_announced() && self.untold.as_ref().is_some_and(is_blank)
    }

    /// What was read is no call, or is no part of the one that was told: it is what it reads as.
    pub(super) fn abandon(&mut self, out: &mut Vec<ReplyPiece>) {
        self.at = CONTENT;
        if self.call.is_announced() {
            self.end_parameters(out);
        } else if let Some(untold) = self.untold.take() {
            self.call.begin();
            self.word.clear();
            self.at = untold.back;
            let text = match untold.back {
                AFTER_CALL => untold.text().trim_ascii_start(),
                _ => untold.text(),
            };
            self.give_back(untold.back, &untold.opener, out);
            self.give_back(untold.back, text, out);
        }
        self.blank_is_content(out);
    }

    /// A closer says that a call has ended, and there is none: what is in its markers is content.
    /// Returns where the answer goes on, if not where the closer leads.
    pub(super) fn give_back_closed(&mut self, out: &mut Vec<ReplyPiece>) -> Option<StateId> {
        let untold = self.untold.take()?;
        self.give_back(untold.back, untold.text().trim(), out);
        (untold.back == THOUGHT).then_some(THOUGHT)
    }

    /// The answer has ended before anything was told of a call.
    pub(super) fn finish_untold(&mut self, is_complete: bool, out: &mut Vec<ReplyPiece>) {
        let Some(untold) = self.untold.take() else {
            return;
        };
        let is_header = matches!(self.machine.states[self.at].sink, Sink::Header);
        if is_header && (!is_complete || harmony::says_nothing(&self.word)) {
            return;
        }
        // Behind a token that opens a call, what was cut before the name is the beginning of one.
        if !is_complete && untold.back == AFTER_CALL {
            return;
        }
        self.give_back(untold.back, &untold.opener, out);
        self.give_back(untold.back, untold.text(), out);
    }

    fn give_back(&mut self, to: StateId, text: &str, out: &mut Vec<ReplyPiece>) {
        match to {
            _ if text.is_empty() => {}
            THOUGHT => self.thought(text, out),
            _ => push_text(out, text),
        }
    }
}
