//! One run: prefill, tokens, FINISH, as the vendor's library does it, and what a scenario has go
//! wrong on the way. The loop over tokens is `token_loop`'s.

use crate::answer::{ERROR, Sequence};
use crate::batch::Batch;
use crate::console;
use crate::continuation::Start;
use crate::fault::{After, Fault};
use crate::faults_of_a_run::{AtTheEnd, FaultsOfARun};
use crate::late_callback;
use crate::layout::Layout;
use crate::model::{Cache, Model, lock};
use crate::output::Output;
use crate::params::{Input, RunParams};
use crate::prompt_cache;
use crate::scenario::CallbackThread;
use crate::token_loop::TokenLoop;
use crate::words;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub const MODE_HIDDEN: u32 = 1;
pub const MODE_LOGITS: u32 = 2;
/// A window of 1024 takes prompts of 1020 tokens.
const RESERVED_TOKENS: i32 = 4;

/// A run whose callback answered "pause": the next one goes on here, whatever its prompt.
pub struct Paused {
    sequence: Arc<Sequence>,
    skip: u64,
}

/// A run that is about to start.
pub struct Generation<'a> {
    pub layout: &'a Layout,
    pub model: &'a Model,
    pub userdata: Userdata,
    pub params: RunParams,
    /// Faults of this run, in the order of `faults_of_run`.
    pub faults: Vec<Fault>,
}

/// What a run is given.
struct Given<'a> {
    input: &'a Input,
    prompt: &'a [u8],
    /// Those of the prompt and, of them, those still in the cache.
    tokens: i32,
    kept: i32,
}

#[derive(Clone, Copy)]
pub struct Userdata(pub *mut c_void);

// SAFETY: a value that only the host gives meaning to; it is handed back to it as it came.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

/// How the loop over tokens ended.
pub enum End {
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
    pub fn run(self, input: Input, others: Vec<Input>) -> c_int {
        let model = self.model;
        let prompt = self.render(&input);
        let count = model.scenario.count;
        let prompt_tokens = match &input.ids {
            Some(ids) => i32::try_from(ids.len()).unwrap_or(i32::MAX),
            None => count.of(&prompt),
        };
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
        if let Some(cache) = self
            .params
            .prompt_cache
            .as_ref()
            .filter(|cache| cache.save != 0 && !model.scenario.saves_no_cache)
        {
            let scenario = &model.scenario;
            let own = || prompt_cache::of(&prompt, prompt_tokens, scenario.vendors_cache);
            let mut bytes = scenario.saved_cache.clone().unwrap_or_else(own);
            let text = String::from_utf8_lossy(&prompt);
            let cut = scenario.cut_cache.as_ref();
            if let Some(cut) = cut.filter(|cut| text.contains(&cut.when_prompt_contains)) {
                bytes.truncate(cut.bytes);
            }
            // As with the vendor's, the run goes on whatever becomes of it.
            let _ =
                prompt_cache::write_slowly(&cache.path, &bytes, model.scenario.save_us_per_byte);
        }
        if !others.is_empty() {
            let inputs: Vec<Input> = std::iter::once(input).chain(others).collect();
            let texts: Vec<&[u8]> = inputs.iter().map(|input| input.text.as_slice()).collect();
            let mut faults = FaultsOfARun::new(&self.faults, model);
            if self.prefill(&texts.concat(), &mut faults).is_some() {
                return -1;
            }
            let batch = Batch {
                layout: self.layout,
                model,
                userdata: self.userdata,
                params: &self.params,
                report,
                faults: &self.faults,
            };
            return batch.run(&inputs);
        }
        let resumed = lock(&model.paused).take();
        let (sequence, start) = match resumed {
            Some(Paused { sequence, skip }) => (sequence, Start { head: None, skip }),
            None => model.answers.to(&input, &prompt, &report),
        };
        let kept = match self.words_behind(&input) {
            Some(ids) => {
                let cached = lock(&model.cache).ids.clone();
                i32::try_from(words::kept(&model.scenario, &cached, ids)).unwrap_or(0)
            }
            None => self.kept_tokens(&prompt, prompt_tokens),
        };
        let given = Given {
            input: &input,
            prompt: &prompt,
            tokens: prompt_tokens,
            kept,
        };
        match model.scenario.callback_thread {
            CallbackThread::Caller => self.perform(&sequence, &start, &given),
            CallbackThread::Other => std::thread::scope(|scope| {
                scope
                    .spawn(|| self.perform(&sequence, &start, &given))
                    .join()
                    .expect("the run's thread does not panic")
            }),
        }
    }

    /// The input of a model of words.
    fn words_behind<'i>(&self, input: &'i Input) -> Option<&'i [i32]> {
        let has_words = !self.model.scenario.words.is_empty();
        let is_of_words = has_words && self.params.mode != MODE_HIDDEN;
        is_of_words.then(|| input.ids.as_deref().unwrap_or_default())
    }

    fn perform(&self, sequence: &Arc<Sequence>, start: &Start, given: &Given<'_>) -> c_int {
        let Given { prompt, .. } = *given;
        let began = Instant::now();
        let mut faults = FaultsOfARun::new(&self.faults, self.model);
        let broken_off = self.prefill(prompt, &mut faults);
        let in_run = &self.model.tokens_in_run;
        in_run.store(given.tokens, Ordering::Relaxed);
        let mut output = Output::new(self);
        let mut tally = Tally {
            produced: 0,
            prompt_tokens: given.tokens,
            evaluated_tokens: given.tokens - given.kept,
            prefill: began.elapsed(),
            started: Instant::now(),
        };
        let end = broken_off.unwrap_or_else(|| {
            if let Some(ids) = self.words_behind(given.input) {
                let kept = usize::try_from(given.kept).unwrap_or(0);
                let tokens = TokenLoop::new(self, &mut output, &mut tally, &mut faults);
                return tokens.run_words(ids, kept);
            }
            output.hand_over_matrices(given.tokens);
            if self.model.is_aborted() {
                End::Aborted
            } else if self.params.mode == MODE_HIDDEN {
                let end = faults.happen(&mut output, &mut tally);
                end.unwrap_or(End::Finished)
            } else {
                TokenLoop::new(self, &mut output, &mut tally, &mut faults).run(sequence, start)
            }
        });
        self.remember(prompt, &tally);
        match end {
            End::Finished | End::Aborted => {
                output.finish(&tally);
                self.go_wrong_after(&faults.at_the_end, &mut output, &tally);
                0
            }
            End::Paused => {
                let skipped = start.skip - u64::from(start.head.is_some());
                *lock(&self.model.paused) = Some(Paused {
                    sequence: Arc::clone(sequence),
                    skip: skipped + tally.produced - faults.extra_tokens,
                });
                0
            }
            End::Fault(After::ErrorState(code)) => {
                output.call(ERROR);
                code
            }
            End::Fault(After::Return(code)) => code,
            End::Fault(_) => 0,
        }
    }

    fn go_wrong_after(&self, what: &AtTheEnd, output: &mut Output<'_>, tally: &Tally) {
        if what.finish_again {
            output.finish(tally);
        }
        if let Some(text) = &what.text {
            output.token(text);
        }
        if what.late_callback {
            late_callback::send(self.layout, self.model.callback, self.userdata);
        }
    }

    /// The prompt as the model sees it: templates do not apply to tokens.
    fn render(&self, input: &Input) -> Vec<u8> {
        if input.ids.is_some() {
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
        let mut report = serde_json::json!({
            "init": raw_json(&self.model.params),
            "run": raw_json(&self.params),
            "template": {
                "system": template.system,
                "prefix": template.prefix,
                "postfix": template.postfix,
            },
        });
        // What was never set up is absent.
        if let serde_json::Value::Object(set_up) = raw_json(&*lock(&self.model.set_up)) {
            for (key, value) in set_up {
                report[key] = value;
            }
        }
        report.to_string()
    }

    /// Tokens at the start of the prompt that need no evaluation. The last one always does.
    fn kept_tokens(&self, prompt: &[u8], prompt_tokens: i32) -> i32 {
        let same = |held: &[u8]| {
            let pairs = held.iter().zip(prompt);
            pairs.take_while(|(a, b)| a == b).count()
        };
        let loaded = lock(&self.model.set_up).prompt_cache.clone();
        let loaded = loaded.map_or(0, |loaded| same(loaded.as_bytes()));
        let cached = match self.model.scenario.prefix_reuse {
            true => same(&lock(&self.model.cache).text),
            false => 0,
        };
        let kept = self.model.scenario.count.of(&prompt[..loaded.max(cached)]);
        kept.min(prompt_tokens - 1).max(0)
    }

    /// An end of the run, if a fault in the middle of it is one.
    fn prefill(&self, prompt: &[u8], faults: &mut FaultsOfARun<'_>) -> Option<End> {
        let scenario = &self.model.scenario;
        let bytes = u64::try_from(prompt.len()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(scenario.prefill_delay_ms)
            + Duration::from_micros(scenario.prefill_us_per_byte.saturating_mul(bytes));
        let half = delay / 2;
        self.wait_in_prefill(half);
        let end = faults.happen_in_prefill();
        if end.is_none() {
            self.wait_in_prefill(delay - half);
        }
        end
    }

    fn wait_in_prefill(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        if self.model.scenario.abort_interrupts_prefill {
            self.model.sleep_until(Instant::now() + time);
        } else {
            std::thread::sleep(time);
        }
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
            ids: std::mem::take(&mut cache.ids),
        };
    }
}

/// Keeps `f32` in its shortest form, which a detour over `f64` would not.
fn raw_json(value: &impl serde::Serialize) -> serde_json::Value {
    let text = serde_json::to_string(value).expect("plain data");
    serde_json::from_str(&text).expect("just written")
}
