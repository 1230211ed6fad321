//! A library that draws from rows which follow from what stands before them, with what libraries may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rkllm_sys::{CallError, CallState, Flow, Matrix, PerfStat, ReleaseBuffer, ResultView, RunId};

use super::super::sinks::Abort;
use super::super::*;
use crate::constraint::{
    Limits as GrammarLimits, ModelTokens, Parsers, Vocabulary, Wanted, WhiteSpace, compile,
};
use crate::ipc::RunConstraint;
use crate::worker::run_progress::RunProgress;

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

/// Fewer than answers have.
pub const MOST_WITH_ROWS: u32 = 5;

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
    /// It prints for each token what another number is known for.
    pub prints_others: bool,
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

pub struct Scripted {
    pub seed: u64,
    pub draws: Draws,
    pub odd: Odd,
    pub random: fastrand::Rng,
    pub aborted: Arc<AtomicBool>,
    pub progress: Arc<RunProgress>,
    pub cache: Vec<i32>,
    pub runs: u32,
    pub callbacks: u32,
    /// How often it was asked to abort at an end of the model's in the middle of an answer.
    pub aborts_at_ends: Arc<AtomicU32>,
    /// How often for what.
    pub asked: Arc<[AtomicU32; 3]>,
    /// The most tokens of a run with rows.
    pub with_rows: Arc<AtomicU32>,
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
        let mut told_tokens = 0;
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
            let printed = match self.odd.prints_others && id != END {
                true => (id as usize + 1) % WORDS.len(),
                false => id as usize,
            };
            let text = WORDS.get(printed).copied().unwrap_or_default();
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
            told_tokens += 1;
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
        if asks == Asks::TokensWithRows {
            self.with_rows.fetch_max(told_tokens, Ordering::Relaxed);
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

    fn most_with_rows(&self) -> u32 {
        MOST_WITH_ROWS
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
    prints_others: false,
};
