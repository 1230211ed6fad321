//! One run: prefill, tokens, FINISH, as the vendor's library does it. The loop over tokens looks
//! at a flag, writes two fields and calls back; it allocates nothing and reads no scenario, so
//! that a scenario without delays measures its host.

use crate::answer::{ERROR, NORMAL, Sequence};
use crate::console;
use crate::fault::{After, Call, Fault};
use crate::layout::Layout;
use crate::model::{Cache, Model, lock};
use crate::output::Output;
use crate::params::{Input, RunParams};
use crate::scenario::CallbackThread;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const MODE_HIDDEN: u32 = 1;
/// A window of 1024 takes prompts of 1020 tokens.
const RESERVED_TOKENS: i32 = 4;

/// A run whose callback answered "pause": the next one goes on here, whatever its prompt.
pub struct Paused {
    sequence: Arc<Sequence>,
    produced: u64,
}

/// A run that is about to start.
pub struct Generation<'a> {
    pub layout: &'a Layout,
    pub model: &'a Model,
    pub userdata: Userdata,
    pub params: RunParams,
    /// Faults of this run, in the order of their tokens.
    pub faults: Vec<Fault>,
}

#[derive(Clone, Copy)]
pub struct Userdata(pub *mut c_void);

// SAFETY: a value that only the host gives meaning to; it is handed back to it as it came.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

enum End {
    Finished,
    Aborted,
    Paused,
    Fault(After),
}

/// What FINISH tells and the KV cache holds.
pub struct Tally {
    pub produced: u64,
    prompt_tokens: i32,
    pub evaluated_tokens: i32,
    pub prefill: Duration,
    pub started: Instant,
}

impl Generation<'_> {
    /// The return code of `rkllm_run`.
    pub fn run(self, input: Input) -> c_int {
        let model = self.model;
        let prompt = self.render(&input);
        let count = model.scenario.count;
        let prompt_tokens = input.tokens.unwrap_or_else(|| count.of(&prompt));
        let most = model.params.max_context_len - RESERVED_TOKENS;
        if prompt_tokens > most {
            console::error(&format!(
                "the length of prompt is greater than max context (prompt: {prompt_tokens} \
                 tokens, max context: {most})"
            ));
            return -1;
        }
        let report = self.report();
        if model.scenario.report_params {
            console::info(&format!("run params {report}"));
        }
        let resumed = lock(&model.paused).take();
        let (sequence, skip) = match resumed {
            Some(paused) => (paused.sequence, paused.produced),
            None => (model.answers.to(&prompt, &report), 0),
        };
        let kept = self.kept_tokens(&prompt, prompt_tokens);
        match model.scenario.callback_thread {
            CallbackThread::Caller => self.perform(&sequence, skip, &prompt, (prompt_tokens, kept)),
            CallbackThread::Other => std::thread::scope(|scope| {
                scope
                    .spawn(|| self.perform(&sequence, skip, &prompt, (prompt_tokens, kept)))
                    .join()
                    .expect("the run's thread does not panic")
            }),
        }
    }

    /// `tokens` are those of the prompt and, of them, those still in the cache.
    fn perform(
        &self,
        sequence: &Arc<Sequence>,
        skip: u64,
        prompt: &[u8],
        tokens: (i32, i32),
    ) -> c_int {
        let began = Instant::now();
        self.prefill(prompt);
        let mut output = Output::new(self);
        let mut tally = Tally {
            produced: 0,
            prompt_tokens: tokens.0,
            evaluated_tokens: tokens.0 - tokens.1,
            prefill: began.elapsed(),
            started: Instant::now(),
        };
        output.hand_over_matrices(tokens.0);
        let end = if self.model.is_aborted() {
            End::Aborted
        } else if self.params.mode == MODE_HIDDEN {
            End::Finished
        } else {
            self.generate(sequence, skip, &mut output, &mut tally)
        };
        self.remember(prompt, &tally);
        match end {
            End::Finished | End::Aborted => {
                output.finish(&tally);
                0
            }
            End::Paused => {
                *lock(&self.model.paused) = Some(Paused {
                    sequence: Arc::clone(sequence),
                    produced: skip + tally.produced,
                });
                0
            }
            End::Fault(After::ErrorState(code)) => {
                output.call(ERROR);
                code
            }
            End::Fault(After::Return(code)) => code,
            End::Fault(After::LateCallback) => {
                output.finish(&tally);
                self.call_back_late();
                0
            }
            End::Fault(_) => 0,
        }
    }

    fn generate(
        &self,
        sequence: &Sequence,
        skip: u64,
        output: &mut Output<'_>,
        tally: &mut Tally,
    ) -> End {
        let model = self.model;
        let limit = self.token_limit();
        let delay = Duration::from_micros(model.scenario.token_delay_us);
        let mut faults = Faults::new(&self.faults, model);
        let cycles = if sequence.end_ignored {
            u64::MAX
        } else {
            sequence.times
        };
        let mut index = 0;
        for cycle in 0..cycles {
            let end = (cycle + 1 >= sequence.times)
                .then_some(sequence.end.as_ref())
                .flatten();
            if sequence.events.is_empty() && end.is_none() {
                break;
            }
            for event in sequence.events.iter().chain(end) {
                index += 1;
                if index <= skip {
                    continue;
                }
                if tally.produced >= faults.next_at
                    && let Some(end) = faults.happen(tally.produced)
                {
                    return end;
                }
                if tally.produced >= limit {
                    return faults.end();
                }
                if !delay.is_zero() {
                    let n = u32::try_from(tally.produced + 1).unwrap_or(u32::MAX);
                    model.sleep_until(tally.started + delay * n);
                }
                if model.is_aborted() {
                    return End::Aborted;
                }
                tally.produced += 1;
                if output.token(event) == 1 && self.layout.callback_returns_int {
                    return End::Paused;
                }
            }
        }
        faults
            .happen(tally.produced)
            .unwrap_or_else(|| faults.end())
    }

    /// The prompt as the model sees it: templates do not apply to tokens.
    fn render(&self, input: &Input) -> Vec<u8> {
        if input.tokens.is_some() {
            return input.text.clone();
        }
        let template = lock(&self.model.template);
        [
            template.system.as_bytes(),
            template.prefix.as_bytes(),
            &input.text,
            template.postfix.as_bytes(),
        ]
        .concat()
    }

    fn report(&self) -> String {
        let template = lock(&self.model.template);
        serde_json::json!({
            "init": raw_json(&self.model.params),
            "run": raw_json(&self.params),
            "template": {
                "system": template.system,
                "prefix": template.prefix,
                "postfix": template.postfix,
            },
        })
        .to_string()
    }

    /// Tokens at the start of the prompt that need no evaluation. The last one always does.
    fn kept_tokens(&self, prompt: &[u8], prompt_tokens: i32) -> i32 {
        if !self.model.scenario.prefix_reuse {
            return 0;
        }
        let cache = lock(&self.model.cache);
        let same = cache.text.iter().zip(prompt).take_while(|(a, b)| a == b);
        let kept = self.model.scenario.count.of(&prompt[..same.count()]);
        kept.min(prompt_tokens - 1).max(0)
    }

    fn prefill(&self, prompt: &[u8]) {
        let scenario = &self.model.scenario;
        let bytes = u64::try_from(prompt.len()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(scenario.prefill_delay_ms)
            + Duration::from_micros(scenario.prefill_us_per_byte.saturating_mul(bytes));
        if delay.is_zero() {
            return;
        }
        if scenario.abort_interrupts_prefill {
            self.model.sleep_until(Instant::now() + delay);
        } else {
            std::thread::sleep(delay);
        }
    }

    fn token_limit(&self) -> u64 {
        let of_run = self.params.max_new_tokens.filter(|limit| *limit > 0);
        let limit = of_run.unwrap_or(self.model.params.max_new_tokens);
        u64::try_from(limit).unwrap_or(u64::MAX)
    }

    fn remember(&self, prompt: &[u8], tally: &Tally) {
        let mut cache = lock(&self.model.cache);
        let before = if cache.history { cache.tokens } else { 0 };
        let produced = i32::try_from(tally.produced).unwrap_or(i32::MAX);
        let tokens = before
            .saturating_add(tally.prompt_tokens)
            .saturating_add(produced);
        *cache = Cache {
            tokens: tokens.min(self.model.params.max_context_len),
            text: prompt.to_vec(),
            history: self.params.keep_history == Some(1),
        };
    }

    /// One more token, on another thread, when `rkllm_run` has returned.
    fn call_back_late(&self) {
        let callback = self.model.callback;
        let userdata = self.userdata;
        let bytes = self.layout.get("RKLLMResult").bytes;
        std::thread::spawn(move || {
            let userdata = userdata;
            std::thread::sleep(Duration::from_millis(50));
            let mut result = vec![0u64; bytes.div_ceil(8)];
            // SAFETY: the host's callback with a result of its family, zeroed.
            unsafe { callback(result.as_mut_ptr().cast(), userdata.0, NORMAL) };
        });
    }
}

/// The faults of a run that is going on.
struct Faults<'a> {
    rest: std::slice::Iter<'a, Fault>,
    model: &'a Model,
    /// Tokens after which the next one happens: all that the loop over tokens looks at.
    next_at: u64,
    late_callback: bool,
}

impl<'a> Faults<'a> {
    fn new(faults: &'a [Fault], model: &'a Model) -> Self {
        let mut faults = Faults {
            rest: faults.iter(),
            model,
            next_at: 0,
            late_callback: false,
        };
        faults.next_at = faults.due_at();
        faults
    }

    fn due_at(&self) -> u64 {
        let next = self.rest.as_slice().first();
        next.map_or(u64::MAX, |fault| fault.after_tokens.unwrap_or(0))
    }

    /// Lets all that are due happen; an end of the run, if one of them is.
    fn happen(&mut self, produced: u64) -> Option<End> {
        while produced >= self.due_at() {
            let fault = self.rest.next()?;
            match fault.happen(&self.model.folder) {
                After::GoOn => {}
                After::LateCallback => self.late_callback = true,
                other => return Some(End::Fault(other)),
            }
        }
        self.next_at = self.due_at();
        None
    }

    fn end(&self) -> End {
        if self.late_callback {
            End::Fault(After::LateCallback)
        } else {
            End::Finished
        }
    }
}

/// Keeps `f32` in its shortest form, which a detour over `f64` would not.
fn raw_json(value: &impl serde::Serialize) -> serde_json::Value {
    let text = serde_json::to_string(value).expect("plain data");
    serde_json::from_str(&text).expect("just written")
}

/// The faults of this run, in the order of their tokens.
pub fn faults_of_run(model: &Model, occasion: u32, prompt: &[u8]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = model
        .scenario
        .fault
        .iter()
        .filter(|fault| fault.applies(Call::Run, occasion, prompt))
        .cloned()
        .collect();
    faults.sort_by_key(|fault| fault.after_tokens.unwrap_or(0));
    faults
}
