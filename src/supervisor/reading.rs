//! What becomes of an answer's tokens before its reader sees them: the model's own format is read,
//! and stop strings end the content. No stop string cuts a call or a thought.
//!
//! A token that the parser has taken in is seen, and stays in the answer when its worker is lost: a
//! marker that the runtime does not print is handed over by its id, else by its text. Half a character
//! that a closed thought ends with is dropped.

use super::answer_so_far::{AnswerSoFar, Inexact};
use super::content_tokens::{Behind, ContentTokens};
use crate::conversation::{ReplyPiece, TokenLogprobs};
use crate::generation::{FinishReason, ReplyEvent, StopStrings};
use crate::ipc::TokenKind;
use crate::reply::{ReplyParser, ReplyPlan, ReplyToken};

#[derive(Debug)]
pub(super) struct Reading {
    stops: StopStrings,
    /// `None`: all of the answer is content.
    parsing: Option<Parsing>,
    /// `None`: how likely the tokens of the content were is not asked.
    content: Option<ContentTokens>,
}

/// A token, as the worker told it.
#[derive(Debug)]
pub(super) struct ReadToken<'a> {
    pub kind: TokenKind,
    pub id: Option<i32>,
    pub text: &'a str,
    pub logprobs: Option<TokenLogprobs>,
}

#[derive(Debug)]
struct Parsing {
    plan: ReplyPlan,
    parser: ReplyParser,
    thought_tokens: u32,
    /// Tokens of which nothing was seen yet: a token that follows shows where they belong.
    unseen_tokens: u32,
    /// A thought cannot be closed; that was said.
    keeps_no_budget: bool,
    /// Between tokens, what is to be told with the next one.
    told: Vec<ReplyPiece>,
}

/// What a token leads to.
pub(super) struct Read {
    pub event: Option<ReplyEvent>,
    pub next: Next,
}

/// What follows a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Token,
    /// The thought has used its budget and is to be closed.
    CloseThought,
    /// Nothing more belongs to the answer.
    End,
}

impl Reading {
    pub fn new(stops: StopStrings, plan: Option<&ReplyPlan>, tells_logprobs: bool) -> Self {
        Self {
            content: tells_logprobs.then(ContentTokens::default),
            stops,
            parsing: plan.map(|plan| Parsing {
                parser: plan.parser.clone(),
                plan: plan.clone(),
                thought_tokens: 0,
                unseen_tokens: 0,
                keeps_no_budget: false,
                told: Vec::new(),
            }),
        }
    }

    /// Takes in a token, here and in the answer.
    pub fn push(&mut self, answer: &mut AnswerSoFar, token: ReadToken<'_>) -> Read {
        let ReadToken {
            kind,
            id,
            text,
            logprobs,
        } = token;
        if let Some(content) = &mut self.content {
            content.push(kind, text, logprobs);
        }
        let Some(parsing) = &mut self.parsing else {
            answer.push(kind, id, text);
            let (text, is_over) = self.stops.push(text);
            let piece = (!text.is_empty()).then_some(ReplyPiece::Text(text));
            let event = match &mut self.content {
                None => piece.map(ReplyEvent::Piece),
                Some(content) => {
                    let mut pieces = Vec::from_iter(piece);
                    content.score(&mut pieces, !self.stops.holds_text());
                    as_one(&mut pieces)
                }
            };
            let next = if is_over { Next::End } else { Next::Token };
            return Read { event, next };
        };
        let marker = id.filter(|_| kind == TokenKind::Swallowed);
        match marker.and_then(|id| parsing.plan.marker(id)) {
            Some(marker) => answer.push(TokenKind::Text, id, marker),
            None => {
                answer.push(kind, id, text);
                // Nothing of it is seen yet, and it may be made again.
                if text.is_empty() {
                    parsing.unseen_tokens += 1;
                    return Read {
                        event: None,
                        next: Next::Token,
                    };
                }
            }
        }
        // Of a token that comes in pieces, no piece is a marker.
        let id = id.filter(|_| kind != TokenKind::Partial);
        let was_thought = parsing.parser.is_in_reasoning();
        let token = ReplyToken {
            id,
            text: text.to_owned(),
        };
        parsing.parser.push(token, &mut parsing.told);
        let is_thought = was_thought || parsing.parser.is_in_reasoning();
        let tokens =
            std::mem::take(&mut parsing.unseen_tokens) + u32::from(kind != TokenKind::Rest);
        parsing.thought_tokens += if is_thought { tokens } else { 0 };
        let has_its_call = parsing.plan.one_call && parsing.parser.completed_calls() > 0;
        if has_its_call {
            let is_end = |piece: &ReplyPiece| matches!(piece, ReplyPiece::ToolCallEnd { .. });
            let end = parsing.told.iter().position(is_end);
            parsing.told.truncate(end.map_or(0, |end| end + 1));
        }
        let stopped = until_stop(&mut parsing.told, &mut self.stops);
        if let Some(content) = &mut self.content {
            let is_settled = parsing.parser.holds_no_text() && !self.stops.holds_text();
            content.score(&mut parsing.told, is_settled);
        }
        Read {
            event: as_one(&mut parsing.told),
            next: match () {
                () if stopped || has_its_call => Next::End,
                () if parsing.thought_is_used_up() => Next::CloseThought,
                () => Next::Token,
            },
        }
    }

    /// Whether the answer is inside a thought that may have no more tokens.
    pub fn thought_is_used_up(&self) -> bool {
        self.parsing
            .as_ref()
            .is_some_and(Parsing::thought_is_used_up)
    }

    /// What was not seen is taken back, and may be made again.
    pub fn roll_back(&mut self) {
        if let Some(parsing) = &mut self.parsing {
            parsing.unseen_tokens = 0;
        }
        if let Some(content) = &mut self.content {
            content.roll_back();
        }
    }

    /// A thought that is used up cannot be handed over exactly, so it goes on.
    pub fn goes_past_its_budget(&mut self, run: u64, reason: Inexact) {
        if let Some(parsing) = &mut self.parsing {
            parsing.keeps_no_budget = true;
            let tokens = parsing.thought_tokens;
            let reason = reason.reason();
            tracing::warn!(run, tokens, reason, "a thought goes past its budget");
        }
    }

    /// Closes a thought that is used up, here and in the answer.
    pub fn close_thought(&mut self, answer: &mut AnswerSoFar) {
        if let Some(parsing) = &mut self.parsing
            && let Some(budget) = &parsing.plan.thought_budget
        {
            answer.put_in(&budget.close.text, budget.close.id);
            parsing.unseen_tokens = 0;
            parsing.parser.close_thought(&mut parsing.told);
        }
        if let Some(content) = &mut self.content {
            content.roll_back();
        }
    }

    /// What is still held back when the answer ends by itself or by its budget.
    pub fn finish(&mut self, reason: FinishReason) -> Option<ReplyEvent> {
        let mut told = Vec::new();
        let mut stopped = false;
        let mut is_content = true;
        if let Some(parsing) = &mut self.parsing {
            is_content = parsing.parser.is_in_content();
            told = std::mem::take(&mut parsing.told);
            parsing
                .parser
                .finish(reason == FinishReason::Stop, &mut told);
            stopped = until_stop(&mut told, &mut self.stops);
        }
        if !stopped {
            release(&mut told, self.stops.finish());
        }
        if let Some(content) = &mut self.content {
            let behind = match is_content && !stopped {
                true => Behind::Content,
                false => Behind::Other,
            };
            content.finish(&mut told, behind);
        }
        as_one(&mut told)
    }

    /// What waits for the rest of a token that does not follow, where a stop string has ended the answer.
    pub fn finish_content(&mut self) -> Option<ReplyEvent> {
        let mut told = Vec::new();
        self.content.as_mut()?.finish(&mut told, Behind::Other);
        as_one(&mut told)
    }

    /// The stop string that has ended the content.
    pub fn stop_text(&self) -> Option<&str> {
        self.stops.reached()
    }

    /// Tokens of thoughts; `None`: thoughts are not told apart.
    pub fn thought_tokens(&self) -> Option<u32> {
        let parsing = self.parsing.as_ref()?;
        parsing
            .plan
            .tells_thoughts
            .then_some(parsing.thought_tokens)
    }
}

impl Parsing {
    fn thought_is_used_up(&self) -> bool {
        let budget = self.plan.thought_budget.as_ref();
        budget.is_some_and(|budget| self.thought_tokens >= budget.tokens)
            && !self.keeps_no_budget
            && self.parser.is_in_reasoning()
    }
}

/// Ends the content of `told` where a stop string is reached, and holds back what may become one.
/// Returns whether one was reached.
fn until_stop(told: &mut Vec<ReplyPiece>, stops: &mut StopStrings) -> bool {
    if stops.is_empty() {
        return false;
    }
    let mut kept = Vec::with_capacity(told.len() + 1);
    for piece in std::mem::take(told) {
        let ReplyPiece::Text(text) = piece else {
            // What was held back stands before it.
            release(&mut kept, stops.finish());
            kept.push(piece);
            continue;
        };
        let (text, stopped) = stops.push(&text);
        release(&mut kept, text);
        if stopped {
            *told = kept;
            return true;
        }
    }
    *told = kept;
    false
}

fn release(told: &mut Vec<ReplyPiece>, text: String) {
    if !text.is_empty() {
        told.push(ReplyPiece::Text(text));
    }
}

/// One event, which takes one place of the reader's channel.
fn as_one(told: &mut Vec<ReplyPiece>) -> Option<ReplyEvent> {
    match told.pop() {
        None => None,
        Some(piece) if told.is_empty() => Some(ReplyEvent::Piece(piece)),
        Some(piece) => {
            told.push(piece);
            Some(ReplyEvent::Pieces(std::mem::take(told)))
        }
    }
}
