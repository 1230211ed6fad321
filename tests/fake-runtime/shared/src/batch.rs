//! A run of several sequences: each has an input, an answer and a place in the array of results. A
//! sequence that has ended gets the token id -1 and no text until all have.

use crate::answer::{ERROR, Event, FINISH, NORMAL, WAITING};
use crate::console;
use crate::fault::{After, Fault};
use crate::generation::{MODE_HIDDEN, Userdata};
use crate::layout::Layout;
use crate::model::{Cache, Model, lock};
use crate::params::{Input, RunParams};
use std::ffi::{c_char, c_int};
use std::time::{Duration, Instant};

/// Nothing says what a text is in WAITING, so no host may look there.
const NO_TEXT: *const c_char = std::ptr::without_provenance(1);
/// The hidden states of a sequence begin with this times its place.
const SLOT_STEP: f32 = 1000.0;

pub struct Batch<'a> {
    pub layout: &'a Layout,
    pub model: &'a Model,
    pub userdata: Userdata,
    pub params: &'a RunParams,
    /// What `{params}` stands for.
    pub report: String,
    /// In the order of `faults_of_run`.
    pub faults: &'a [Fault],
}

struct Results {
    memory: Vec<u64>,
    stride: usize,
}

impl Results {
    fn put<T: Copy>(&mut self, slot: usize, at: usize, value: T) {
        let at = slot * self.stride + at;
        assert!(at + size_of::<T>() <= self.memory.len() * 8);
        // SAFETY: inside the array, as just asserted; unaligned writes are fine.
        unsafe {
            self.memory
                .as_mut_ptr()
                .cast::<u8>()
                .add(at)
                .cast::<T>()
                .write_unaligned(value);
        }
    }
}

impl Batch<'_> {
    pub fn run(&self, inputs: &[Input]) -> c_int {
        let fields = self.layout.get("RKLLMResult");
        let (text_at, id_at) = (fields.at("text"), fields.at("token_id"));
        let mut results = Results {
            memory: vec![0; (fields.bytes * inputs.len()).div_ceil(8)],
            stride: fields.bytes,
        };
        let began = Instant::now();
        let counts: Vec<i32> = inputs
            .iter()
            .map(|input| match &input.ids {
                Some(ids) => i32::try_from(ids.len()).unwrap_or(i32::MAX),
                None => self.model.scenario.count.of(&input.text),
            })
            .collect();
        let matrices = self.matrices(&counts);
        let sequences: Vec<Vec<Event>> = inputs.iter().map(|input| self.events_to(input)).collect();
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        let steps = match self.params.mode {
            MODE_HIDDEN => 0,
            _ => longest.min(self.most_tokens()),
        };
        if let Some((part, name, columns)) = self.matrix_fields() {
            let (Some(at), Some(of)) = (fields.find(part), self.layout.find(name)) else {
                return -1;
            };
            for (slot, matrix) in matrices.iter().enumerate() {
                results.put(slot, at + of.at("hidden_states"), matrix.as_ptr());
                results.put(slot, at + of.at("embd_size"), c_int::from(columns));
                results.put(slot, at + of.at("num_tokens"), counts[slot]);
            }
            self.call(&mut results, NORMAL);
        }
        let delay = Duration::from_micros(self.model.scenario.token_delay_us);
        let (mut faults, started) = (self.faults.iter().peekable(), Instant::now());
        for step in 0..steps {
            while let Some(fault) = faults
                .next_if(|fault| fault.in_prefill || fault.after_tokens.unwrap_or(0) <= step as u64)
            {
                if fault.in_prefill {
                    // It has happened.
                    continue;
                }
                match fault.happen(self.model.scene()) {
                    After::GoOn => {}
                    After::Return(code) => return code,
                    After::ErrorState(code) => {
                        self.call(&mut results, ERROR);
                        return code;
                    }
                    other => {
                        console::error(&format!("a batch has no fault such as {other:?}"));
                        return -1;
                    }
                }
            }
            if !delay.is_zero() {
                let n = u32::try_from(step + 1).unwrap_or(u32::MAX);
                self.model.sleep_until(started + delay * n);
            }
            if self.model.is_aborted() {
                break;
            }
            // It is all sequences' together.
            let goes_on = |event: &&Event| event.state != WAITING;
            let events = sequences.iter().filter_map(|sequence| sequence.get(step));
            let state = match events.filter(goes_on).count() {
                0 => WAITING,
                _ => NORMAL,
            };
            for (slot, sequence) in sequences.iter().enumerate() {
                match sequence.get(step) {
                    Some(event) => {
                        let text = match state {
                            WAITING => NO_TEXT,
                            _ => event.text.as_ptr(),
                        };
                        results.put(slot, text_at, text);
                        results.put(slot, id_at, event.id);
                    }
                    None => {
                        results.put(slot, text_at, std::ptr::null::<u8>());
                        results.put(slot, id_at, -1_i32);
                    }
                }
            }
            self.call(&mut results, state);
        }
        if let (Some(at), Some(perf)) = (fields.find("perf"), self.layout.find("RKLLMPerfStat")) {
            for (slot, count) in counts.iter().enumerate() {
                let milliseconds = began.elapsed().as_secs_f32() * 1000.0;
                results.put(slot, at + perf.at("prefill_time_ms"), milliseconds);
                results.put(slot, at + perf.at("prefill_tokens"), *count);
            }
        }
        lock(&self.model.cache).clone_from(&Cache {
            tokens: counts.iter().sum(),
            text: Vec::new(),
            history: false,
            ids: Vec::new(),
        });
        self.call(&mut results, FINISH);
        0
    }

    /// What is left of the answer to an input, with its end.
    fn events_to(&self, input: &Input) -> Vec<Event> {
        let answers = &self.model.answers;
        let (sequence, start) = answers.to(input, &input.text, &self.report);
        let times = usize::try_from(sequence.times).unwrap_or(usize::MAX);
        let length = sequence.events.len().saturating_mul(times);
        let most = length.min(self.most_tokens());
        let cycle = sequence.events.iter().cycle().take(length);
        let all = cycle.chain(sequence.end.as_ref());
        let skip = usize::try_from(start.skip).unwrap_or(usize::MAX);
        let rest = all.skip(skip).take(most + 1).cloned();
        start.head.into_iter().chain(rest).collect()
    }

    /// Of a sequence.
    fn most_tokens(&self) -> usize {
        let of_run = self.params.max_new_tokens.filter(|limit| *limit > 0);
        let limit = of_run.unwrap_or(self.model.params.max_new_tokens);
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    fn matrix_fields(&self) -> Option<(&'static str, &'static str, u16)> {
        (self.params.mode == MODE_HIDDEN).then_some((
            "last_hidden_layer",
            "RKLLMResultLastHiddenLayer",
            self.model.scenario.embedding_size,
        ))
    }

    fn matrices(&self, counts: &[i32]) -> Vec<Vec<f32>> {
        let columns = usize::from(self.model.scenario.embedding_size);
        counts
            .iter()
            .enumerate()
            .map(|(slot, count)| {
                let cells = columns * usize::try_from(*count).unwrap_or(0);
                (0..cells)
                    .map(|cell| slot as f32 * SLOT_STEP + cell as f32)
                    .collect()
            })
            .collect()
    }

    fn call(&self, results: &mut Results, state: u32) -> c_int {
        let callback = self.model.callback;
        // SAFETY: the host's callback, with as many results of its family as init was told.
        unsafe { callback(results.memory.as_mut_ptr().cast(), self.userdata.0, state) }
    }
}
