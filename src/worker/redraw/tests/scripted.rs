//! A library that draws from rows which follow from what stands before them, with what libraries may do.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;

use rkllm_sys::{CallState, Flow, Matrix, PerfStat, ResultView, RunId};

use super::super::*;
use crate::constraint::{
    Follower, Limits as GrammarLimits, ModelTokens, Next, Parsers, Vocabulary, Wanted, WhiteSpace,
    compile,
};
use crate::conversation::TokenLogprobs;
use crate::generation::FinishReason;
use crate::ipc::{BegunAnswer, Event, FrameReader, RunConstraint, SlotEvent, TokenKind};
use crate::worker::constrained;
use crate::worker::event_writer::EventWriter;
use crate::worker::run_progress::RunProgress;
use crate::worker::slot::SlotNotes;
use crate::worker::slot_events::SlotEvents;

pub const WORDS: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c",
    b"ab",
    b"ac",
    b"bc",
    b" ",
    b"!",
    b"\xc3",
    b"\xa9",
    b"\xc3\xa9",
    b"abc",
];
pub const END: i32 = WORDS.len() as i32;
pub const PROMPT: [i32; 3] = [7, 6, 7];
pub const SAMPLED: Draws = Draws {
    temperature: 1.2,
    top_k: 0,
    top_p: 1.0,
};
pub const GREEDY: Draws = Draws {
    temperature: 0.0,
    ..SAMPLED
};

pub fn parsers() -> Parsers {
    let mut vocabulary = Vocabulary::default();
    for word in WORDS {
        vocabulary.push(Some(word), false);
    }
    vocabulary.push(Some(b"<end>"), true);
    vocabulary.last_is_unprinted();
    vocabulary.ends = vec![END];
    Parsers::new(Arc::new(ModelTokens::new(vocabulary).expect("tokens")))
}

pub fn constraint(wanted: &Wanted) -> RunConstraint {
    let limits = GrammarLimits {
        white_space: WhiteSpace::None,
        schema_bytes: 1 << 20,
        schema_depth: 16,
        grammar_symbols: 100_000,
        lexer_states: 8_000,
        lexer_steps: 200_000,
        kept_grammars: 4,
    };
    let compiled = compile(wanted, &limits).expect("a grammar");
    RunConstraint {
        grammar: compiled.grammar,
        limits,
        how: compiled.how,
        thought: None,
    }
}

/// Logits that follow from what stands before them.
pub fn row_behind(seed: u64, before: &[i32]) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(before.iter().fold(seed, |seed, &id| {
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(id as u64 + 1)
    }));
    (0..=END).map(|_| random.f32() * 4.0).collect()
}

/// What a library may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odd {
    /// Tokens that still come behind an abort.
    pub late: u32,
    /// The model's end comes as FINISH alone.
    pub swallows_end: bool,
    /// A NORMAL without anything comes before the logits.
    pub announces: bool,
    /// The first token of a run for logits comes as half a character, without them; so often.
    pub waits: u32,
    /// It finds nothing of a prompt in its cache.
    pub forgets: bool,
    /// After so many runs it fails.
    pub fails_at: Option<u32>,
    /// It is asked to abort from outside at its so many-th callback.
    pub cancelled_at: Option<u32>,
    /// What the logits of each token come with.
    pub rows: Rows,
    /// It is of a model whose tokens have other texts.
    pub is_other: bool,
}

/// What logits come with in runs that make tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    #[default]
    WithTexts,
    WithIds,
    /// Nothing, before the first token, and not again.
    Alone,
    /// Likewise, and with a number in the place of its id.
    AloneWithAnId,
}

struct Scripted {
    seed: u64,
    draws: Draws,
    odd: Odd,
    random: fastrand::Rng,
    aborted: Arc<AtomicBool>,
    progress: Arc<RunProgress>,
    cache: Vec<i32>,
    runs: u32,
    callbacks: u32,
    /// How often it was asked to abort at an end of the model's in the middle of an answer.
    aborts_at_ends: Arc<AtomicU32>,
    /// How often for what.
    asked: Arc<[AtomicU32; 3]>,
}

impl Scripted {
    fn evaluated(&self, input: &[i32]) -> usize {
        let same = self.cache.iter().zip(input).take_while(|(a, b)| a == b);
        let same = same.count().min(input.len() - 1);
        match self.odd.forgets {
            true => input.len(),
            false => input.len() - same,
        }
    }

    fn call(&mut self, sink: &mut dyn ResultSink, view: ResultView<'_>) {
        self.callbacks += 1;
        if self.odd.cancelled_at == Some(self.callbacks) {
            self.progress.request_abort();
        }
        assert_eq!(sink.on_result(view), Flow::Continue);
    }
}

fn view(state: CallState) -> ResultView<'static> {
    ResultView {
        run: RunId::new(1).expect("not zero"),
        state,
        text: None,
        token_id: None,
        hidden_states: None,
        logits: None,
        perf: None,
    }
}

impl Library for Scripted {
    fn run(
        &mut self,
        input: &[i32],
        asks: Asks,
        most_tokens: u32,
        mut sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError> {
        self.runs += 1;
        if self.odd.fails_at == Some(self.runs) {
            return Err(CallError::Failed {
                function: "rkllm_run",
                code: -1,
                version: "1.3.1".to_owned(),
            });
        }
        let sink = &mut *sink;
        self.aborted.store(false, Ordering::Relaxed);
        let rows = self.evaluated(input);
        let mut before = input.to_vec();
        let mut late = self.odd.late;
        let wants_rows = asks != Asks::Tokens;
        self.asked[asks as usize].fetch_add(1, Ordering::Relaxed);
        if wants_rows && self.odd.announces {
            self.call(sink, view(CallState::Normal));
        }
        for made in 0..most_tokens + late {
            let row = row_behind(self.seed, &before);
            let anything = vec![0.0; row.len()];
            let id = self.draws.draw(&row, &anything, self.random.f64());
            let id = id.expect("all are allowed");
            if id == END && self.odd.swallows_end && !wants_rows {
                break;
            }
            let half = wants_rows && made == 0 && self.odd.waits > 0;
            let state = match half {
                true => CallState::Waiting,
                false => CallState::Normal,
            };
            self.odd.waits -= u32::from(half);
            let mut values = vec![-1.0; (if made == 0 { rows - 1 } else { 0 }) * row.len()];
            values.extend(&row);
            let logits = Matrix {
                values: &values,
                columns: row.len(),
            };
            let text = match self.odd.is_other {
                true => &b"other"[..],
                false => WORDS.get(id as usize).copied().unwrap_or_default(),
            };
            let logits = Some(logits).filter(|_| wants_rows && !half);
            let is_alone = matches!(self.odd.rows, Rows::Alone | Rows::AloneWithAnId);
            if wants_rows && is_alone && made == 0 && !half {
                let alone = ResultView {
                    token_id: Some(0).filter(|_| self.odd.rows == Rows::AloneWithAnId),
                    logits: logits.as_ref().map(|logits| Matrix {
                        values: logits.values,
                        columns: logits.columns,
                    }),
                    ..view(CallState::Normal)
                };
                self.call(sink, alone);
            }
            let has_text = !wants_rows || self.odd.rows != Rows::WithIds;
            let told = ResultView {
                text: Some(text).filter(|_| has_text),
                token_id: Some(id),
                logits: logits.filter(|_| !is_alone),
                ..view(state)
            };
            let was_asked = self.aborted.load(Ordering::Relaxed);
            self.call(sink, told);
            before.push(id);
            if id == END {
                let is_asked = !was_asked && self.aborted.load(Ordering::Relaxed);
                let is_in_the_middle = is_asked && !self.progress.is_complete();
                self.aborts_at_ends
                    .fetch_add(u32::from(is_in_the_middle), Ordering::Relaxed);
                break;
            }
            if self.aborted.load(Ordering::Relaxed) {
                if late == 0 {
                    break;
                }
                late -= 1;
            }
        }
        self.cache = before;
        let perf = PerfStat {
            prefill_time_ms: 1.0,
            prefill_tokens: rows as i32,
            generate_time_ms: 1.0,
            generate_tokens: 0,
            memory_usage_mb: 1.0,
        };
        let finish = ResultView {
            perf: Some(perf),
            ..view(CallState::Finish)
        };
        self.call(sink, finish);
        Ok(())
    }

    fn abort(&self) -> Abort {
        let aborted = Arc::clone(&self.aborted);
        Box::new(move || {
            aborted.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    fn release(&self) -> Option<ReleaseBuffer> {
        None
    }
}

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
    /// One for each token that has them.
    pub scores: Vec<TokenLogprobs>,
}

const ANY: RedrawLimits = RedrawLimits {
    redraws: 10_000,
    without_reuse: 10_000,
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
            scores: Vec::new(),
        };
        while let Some(event) = frames.next_message().expect("an event") {
            let Event::Slot { event, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!(made.complete, None, "{event:?} behind the end");
            match event {
                SlotEvent::Token { kind, id, text, .. } => {
                    assert_eq!(id.is_none(), kind == TokenKind::Rest);
                    made.ids.extend(id);
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

pub const ODD_BASE: Odd = Odd {
    late: 0,
    swallows_end: false,
    announces: false,
    waits: 0,
    forgets: false,
    fails_at: None,
    cancelled_at: None,
    rows: Rows::WithTexts,
    is_other: false,
};
