//! The library's handle, as one run after the other for one answer.

use rkllm_sys::{
    CallError, Handle, PerRun, ReleaseBuffer, ResultSink, RunExtras, RunId, RunInput, RunItem,
    RunMode, RunOptions, Sampling,
};

use super::library::{Asks, Library};
use super::sinks::Abort;
use crate::constraint::Draws;

/// A run of the daemon's is several of the library's, each with a number of its own: what comes late of one
/// must not reach the next. The daemon's own numbers count its runs; one of them alone is a run that is not
/// looked at.
const NUMBER_BITS: u32 = 40;

/// Any that is not 1: who takes the likeliest takes the same one each time.
const ROWS_TOP_K: i32 = 40;

/// Tokens of a run with their rows, where the library is not told when it may free these: it may keep all of
/// them until the run has ended, and one row of a large vocabulary takes 600 kB.
const MOST_WITH_KEPT_ROWS: u32 = 64;

pub struct OfHandle<'h> {
    handle: &'h Handle,
    per_run: Option<PerRun>,
    sampling: Sampling,
    run: u64,
    /// Its name.
    adapter: Option<&'h str>,
    runs: u64,
}

impl<'h> OfHandle<'h> {
    pub fn new(
        handle: &'h Handle,
        (run, adapter): (u64, Option<&'h str>),
        sampling: Sampling,
    ) -> Self {
        Self {
            handle,
            per_run: handle.per_run(),
            sampling: Sampling {
                mirostat: Some(0),
                ..sampling
            },
            run,
            adapter,
            runs: 1,
        }
    }

    /// Nothing but the row says what is drawn.
    #[must_use]
    pub fn without_penalties(self) -> Self {
        Self {
            sampling: Sampling {
                repeat_penalty: Some(1.0),
                frequency_penalty: Some(0.0),
                presence_penalty: Some(0.0),
                ..self.sampling
            },
            ..self
        }
    }

    /// The token of a run for a row is thrown away. Where it is half a character, so that they are not told,
    /// another run is to draw another one.
    fn sampling_of_rows(&self) -> Sampling {
        Sampling {
            temperature: Some(1.0),
            top_k: Some(ROWS_TOP_K),
            top_p: Some(1.0),
            ..self.sampling
        }
    }

    /// What its tokens are drawn with.
    pub fn draws(&self) -> Draws {
        let values = self.handle.sampling(&self.sampling);
        Draws {
            temperature: values.temperature.unwrap_or(1.0),
            top_k: values.top_k.unwrap_or(0),
            top_p: values.top_p.unwrap_or(1.0),
        }
    }
}

impl Library for OfHandle<'_> {
    fn run(
        &mut self,
        input: &[i32],
        asks: Asks,
        most_tokens: u32,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError> {
        let number = self.run | self.runs << NUMBER_BITS;
        self.runs += 1;
        let id = RunId::new(number).ok_or_else(|| CallError::OutOfRange {
            what: "the run id",
            value: number.to_string(),
            allowed: "it must not be 0",
        })?;
        let options = RunOptions {
            mode: match asks {
                Asks::Tokens => RunMode::Generate,
                Asks::TokensWithRows | Asks::Row => RunMode::Logits,
            },
            per_run: self.per_run.map(|per_run| {
                let tokens = i32::try_from(most_tokens).unwrap_or(i32::MAX);
                let sampling = match asks {
                    Asks::Row => self.sampling_of_rows(),
                    Asks::Tokens | Asks::TokensWithRows => self.sampling,
                };
                per_run.values(sampling, Some(tokens))
            }),
            ..RunOptions::default()
        };
        let extras = RunExtras {
            lora: self.adapter,
            prompt_cache: None,
        };
        let items = [RunItem::user(RunInput::Tokens(input))];
        self.handle.run_batch(&items, &options, &extras, id, sink)
    }

    fn abort(&self) -> Abort {
        let control = self.handle.control();
        Box::new(move || control.abort())
    }

    fn release(&self) -> Option<ReleaseBuffer> {
        self.handle.release_buffer()
    }

    fn most_with_rows(&self) -> u32 {
        match self.release() {
            Some(_) => u32::MAX,
            None => MOST_WITH_KEPT_ROWS,
        }
    }
}
