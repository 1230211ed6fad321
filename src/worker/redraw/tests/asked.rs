//! An answer that is made with a scripted library, and what came of it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

use super::super::*;
use super::scripted::{END, GREEDY, Odd, PROMPT, Scripted, WORDS, row_behind};
use crate::constraint::{Follower, Next, Parsers};
use crate::conversation::TokenLogprobs;
use crate::generation::FinishReason;
use crate::ipc::{BegunAnswer, Event, FrameReader, RunConstraint, SlotEvent};
use crate::worker::constrained;
use crate::worker::event_writer::EventWriter;
use crate::worker::run_progress::RunProgress;
use crate::worker::slot::SlotNotes;
use crate::worker::slot_events::SlotEvents;

/// An answer to be made.
pub struct Asked<'a> {
    pub parsers: &'a Parsers,
    pub constraint: &'a RunConstraint,
    pub seed: u64,
    pub free: Draws,
    pub again: Draws,
    pub odd: Odd,
    pub limits: RedrawLimits,
    pub most_tokens: u32,
    pub costs: Costs,
    pub banned: &'a [i32],
    /// Nothing is followed.
    pub is_free: bool,
    pub is_wish: bool,
    pub scores: Option<u8>,
    /// What another worker has made of it.
    pub begun: &'a [i32],
}

/// What came of it.
pub struct Made {
    pub text: String,
    pub ids: Vec<i32>,
    pub complete: Option<FinishReason>,
    pub came: Came,
    pub aborts_at_ends: u32,
    /// How often it was asked for tokens, tokens with rows, and a row.
    pub asked: [u32; 3],
    /// The most tokens that a run made with their rows.
    pub with_rows: u32,
    /// One for each token that has them.
    pub scores: Vec<TokenLogprobs>,
}

const ANY: RedrawLimits = RedrawLimits {
    redraws: 10_000,
    without_reuse: 10_000,
    runs: RedrawRuns::Measured,
};

impl<'a> Asked<'a> {
    pub fn new(parsers: &'a Parsers, constraint: &'a RunConstraint) -> Self {
        Self {
            parsers,
            constraint,
            seed: 1,
            free: GREEDY,
            again: GREEDY,
            odd: Odd::default(),
            limits: ANY,
            most_tokens: 60,
            costs: Costs::default(),
            banned: &[],
            is_free: false,
            is_wish: false,
            scores: None,
            begun: &[],
        }
    }

    pub fn follower(&self) -> Follower {
        let pieces = self.begun.iter().flat_map(|&id| WORDS[id as usize]);
        let begun = BegunAnswer {
            text: String::from_utf8(pieces.copied().collect()).expect("whole characters"),
            token_ids: Some(self.begun.to_vec()),
            tokens: u32::try_from(self.begun.len()).ok(),
        };
        let begun = Some(&begun).filter(|_| !self.begun.is_empty());
        constrained::follower_of(self.constraint, self.parsers, begun).expect("it compiles")
    }

    pub fn make(&self) -> Made {
        let (mut daemon, worker) = UnixStream::pair().expect("a socket pair");
        let (notes, _inbox) = channel();
        let progress = Arc::new(RunProgress::new(self.most_tokens, u32::MAX));
        let told = Told {
            run: 1,
            progress: Arc::clone(&progress),
            events: SlotEvents::new(0, EventWriter::start(worker).expect("a writer")),
            notes: SlotNotes::new(0, notes),
        };
        let spells = Spells {
            ends: Arc::from([]),
            prints_special_tokens: false,
        };
        let tokens = Arc::clone(self.parsers.tokens());
        let rules = Rules {
            follower: (!self.is_free).then(|| self.follower()),
            is_wish: self.is_wish,
            banned: self.banned.to_vec(),
            scores: self.scores,
        };
        let answer = Answer::new(told, spells, tokens, rules);
        let asked = Arc::<[AtomicU32; 3]>::default();
        let with_rows = Arc::<AtomicU32>::default();
        let aborts_at_ends = Arc::<AtomicU32>::default();
        let library = Scripted {
            seed: self.seed,
            draws: self.free,
            odd: self.odd,
            random: fastrand::Rng::new(),
            aborted: Arc::default(),
            progress,
            cache: Vec::new(),
            runs: 0,
            callbacks: 0,
            aborts_at_ends: Arc::clone(&aborts_at_ends),
            asked: Arc::clone(&asked),
            with_rows: Arc::clone(&with_rows),
        };
        let ways = (self.again, self.limits, self.costs);
        let input = [&PROMPT[..], self.begun].concat();
        let came = Redraw::new(library, answer, input, ways, random_chance).run();
        let mut frames = FrameReader::default();
        std::io::Read::read_to_end(&mut daemon, frames.buffer()).expect("all events");
        let mut made = Made {
            text: String::new(),
            ids: Vec::new(),
            complete: None,
            came,
            aborts_at_ends: aborts_at_ends.load(Ordering::Relaxed),
            asked: [0, 1, 2].map(|at: usize| asked[at].load(Ordering::Relaxed)),
            with_rows: with_rows.load(Ordering::Relaxed),
            scores: Vec::new(),
        };
        while let Some(event) = frames.next_message().expect("an event") {
            let Event::Slot { event, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!(made.complete, None, "{event:?} behind the end");
            match event {
                SlotEvent::Token { id, text, .. } => {
                    made.ids.push(id.expect("each is a token"));
                    made.text.push_str(&text);
                }
                SlotEvent::AnswerComplete { reason, .. } => made.complete = Some(reason),
                SlotEvent::Logprobs {
                    of_prompt, tokens, ..
                } => {
                    assert!(!of_prompt);
                    made.scores.extend(tokens);
                    assert_eq!(made.scores.len(), made.ids.len() + 1, "before its token");
                }
                SlotEvent::GoesBack { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        made
    }

    /// What a runtime with a hook makes of it.
    pub fn with_a_hook(&self) -> Vec<i32> {
        let (mut follower, mut drawn) = (self.follower(), Vec::new());
        while drawn.len() < self.most_tokens as usize {
            let before = [&PROMPT[..], &drawn].concat();
            let row = row_behind(self.seed, &before);
            let mut allowed = vec![0.0; row.len()];
            match follower.row(&drawn, &mut allowed).expect("it goes on") {
                Next::End => break,
                Next::Token => {}
            }
            let id = GREEDY.draw(&row, &allowed, 0.0).expect("one is allowed");
            if id == END {
                break;
            }
            drawn.push(id);
        }
        drawn
    }
}
