//! The result struct that is handed to the host, filled at the family's offsets. One struct serves
//! a whole run: a token writes its text pointer and its id into it and nothing else.

use crate::answer::{Event, FINISH, NORMAL};
use crate::generation::{Generation, MODE_HIDDEN, MODE_LOGITS, Tally};
use crate::layout::Struct;
use crate::scenario::HiddenStates;
use std::ffi::{CStr, c_int};
use std::time::Duration;

/// The result, and whom it goes to.
pub struct Output<'a> {
    generation: &'a Generation<'a>,
    fields: &'a Struct,
    result: Vec<u64>,
    text_at: usize,
    id_at: usize,
    matrix: Vec<f32>,
}

impl<'a> Output<'a> {
    pub fn new(generation: &'a Generation<'a>) -> Self {
        let fields = generation.layout.get("RKLLMResult");
        Output {
            generation,
            result: vec![0; fields.bytes.div_ceil(8)],
            text_at: fields.at("text"),
            id_at: fields.at("token_id"),
            fields,
            matrix: Vec::new(),
        }
    }

    #[inline]
    pub fn token(&mut self, event: &Event) -> c_int {
        let text: &CStr = &event.text;
        // The whole character comes with the next NORMAL.
        let text = if event.state == NORMAL {
            text.as_ptr()
        } else {
            std::ptr::null()
        };
        self.put(self.text_at, text);
        self.put(self.id_at, event.id);
        self.call(event.state)
    }

    /// Hands over a NORMAL, also one whose text is NULL; whether the host then pauses.
    pub fn is_paused_by_normal(&mut self, text: Option<&CStr>, id: i32) -> bool {
        self.put(self.text_at, text.map_or(std::ptr::null(), CStr::as_ptr));
        self.put(self.id_at, id);
        self.call(NORMAL) == 1 && self.generation.layout.callback_returns_int
    }

    pub fn call(&mut self, state: u32) -> c_int {
        let (callback, userdata) = (self.generation.model.callback, self.generation.userdata);
        // SAFETY: the host's callback, with a result of its family that lives through the call.
        unsafe { callback(self.result.as_mut_ptr().cast(), userdata.0, state) }
    }

    pub fn finish(&mut self, tally: &Tally) {
        self.put(self.text_at, std::ptr::null::<u8>());
        if let (Some(at), Some(perf)) = (
            self.fields.find("perf"),
            self.generation.layout.find("RKLLMPerfStat"),
        ) {
            let scripted = &self.generation.model.scenario.perf;
            let milliseconds = |time: Duration| time.as_secs_f32() * 1000.0;
            // The first token belongs to prefill.
            let after_first = i32::try_from(tally.produced.saturating_sub(1)).unwrap_or(i32::MAX);
            let prefill_ms = scripted
                .prefill_time_ms
                .unwrap_or(milliseconds(tally.prefill));
            let generate_ms = scripted
                .generate_time_ms
                .unwrap_or(milliseconds(tally.started.elapsed()));
            let prefill_tokens = scripted.prefill_tokens.unwrap_or(tally.evaluated_tokens);
            let generate_tokens = scripted.generate_tokens.unwrap_or(after_first);
            let memory_mb = scripted.memory_usage_mb.unwrap_or_else(peak_memory_mb);
            self.put(at + perf.at("prefill_time_ms"), prefill_ms);
            self.put(at + perf.at("prefill_tokens"), prefill_tokens);
            self.put(at + perf.at("generate_time_ms"), generate_ms);
            self.put(at + perf.at("generate_tokens"), generate_tokens);
            self.put(at + perf.at("memory_usage_mb"), memory_mb);
        }
        self.call(FINISH);
    }

    /// Hidden states come after a NORMAL without any; logits with the first.
    pub fn hand_over_matrices(&mut self, rows: i32) {
        let (part, pointer, columns_field, columns) = match self.generation.params.mode {
            MODE_HIDDEN => (
                "last_hidden_layer",
                "hidden_states",
                "embd_size",
                self.generation.model.scenario.embedding_size,
            ),
            MODE_LOGITS => (
                "logits",
                "logits",
                "vocab_size",
                self.generation.model.scenario.vocab_size,
            ),
            _ => return,
        };
        let name = if self.generation.params.mode == MODE_HIDDEN {
            self.call(NORMAL);
            "RKLLMResultLastHiddenLayer"
        } else {
            "RKLLMResultLogits"
        };
        let hidden_states = self.generation.model.scenario.hidden_states;
        let is_hidden = self.generation.params.mode == MODE_HIDDEN;
        if is_hidden && hidden_states == HiddenStates::None {
            return;
        }
        let (Some(at), Some(fields)) = (self.fields.find(part), self.generation.layout.find(name))
        else {
            return;
        };
        let cells = usize::from(columns) * usize::try_from(rows).unwrap_or(0);
        // Each value tells its place.
        self.matrix = (0..cells).map(|cell| cell as f32).collect();
        if is_hidden
            && hidden_states == HiddenStates::NotANumber
            && let Some(last) = self.matrix.last_mut()
        {
            *last = f32::NAN;
        }
        self.put(at + fields.at(pointer), self.matrix.as_ptr());
        self.put(at + fields.at(columns_field), c_int::from(columns));
        self.put(at + fields.at("num_tokens"), rows);
        self.call(NORMAL);
        self.put(at + fields.at(pointer), std::ptr::null::<f32>());
    }

    /// The next tokens have these logits.
    pub fn has_logits(&mut self, values: Vec<f32>, columns: usize) {
        let rows = values.len() / columns.max(1);
        self.matrix = values;
        let values = self.matrix.as_ptr();
        self.put_logits(values, columns, rows);
    }

    pub fn has_no_logits(&mut self) {
        self.put_logits(std::ptr::null(), 0, 0);
    }

    fn put_logits(&mut self, values: *const f32, columns: usize, rows: usize) {
        let layout = self.generation.layout;
        if let (Some(at), Some(fields)) =
            (self.fields.find("logits"), layout.find("RKLLMResultLogits"))
        {
            self.put(at + fields.at("logits"), values);
            self.put(at + fields.at("vocab_size"), columns as c_int);
            self.put(at + fields.at("num_tokens"), rows as c_int);
        }
    }

    fn put<T: Copy>(&mut self, at: usize, value: T) {
        assert!(at + size_of::<T>() <= self.result.len() * 8);
        // SAFETY: inside the struct, as just asserted; unaligned writes are fine.
        unsafe {
            self.result
                .as_mut_ptr()
                .cast::<u8>()
                .add(at)
                .cast::<T>()
                .write_unaligned(value);
        }
    }
}

/// VmHWM, the figure the vendor reports.
fn peak_memory_mb() -> f32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| {
            rest.trim()
                .trim_end_matches(" kB")
                .trim()
                .parse::<f32>()
                .ok()
        });
    kilobytes.map_or(0.0, |kb| kb / 1024.0)
}
