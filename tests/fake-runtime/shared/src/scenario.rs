//! The model file: TOML that says how the fake behaves. An unknown key or a contradiction is an
//! error at `rkllm_init`, so that a test cannot ask for something that silently does not happen.

use crate::fault::Fault;
use crate::load::LoadProgress;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Scenario {
    pub tokens: Vec<Token>,
    pub repeat: Option<Repeat>,
    pub echo_prompt: bool,
    pub answer: Vec<Answer>,
    pub eos_token_id: Option<i32>,
    pub eos_text: String,
    pub eos_ignored: bool,
    /// The end comes as FINISH alone, where there are `words`.
    pub eos_silent: bool,
    /// Of a model that makes its tokens by rows of logits, the texts by their ids.
    pub words: Vec<String>,
    pub row: Vec<Row>,
    /// Other rows follow from it.
    pub row_seed: Option<u64>,
    pub logits_come: LogitsCome,
    pub rows_of: RowsOf,
    /// So many tokens still come behind an abort.
    pub abort_late_tokens: u64,
    /// An answer whose beginning is at the end of the prompt goes on after it.
    pub continue_answers: bool,

    pub load_delay_ms: u64,
    pub load_progress: LoadProgress,
    pub prefill_delay_ms: u64,
    pub prefill_us_per_byte: u64,
    pub token_delay_us: u64,
    /// The schedules of all runs of the process have one phase.
    pub tokens_in_step: bool,
    pub abort_interrupts_prefill: bool,
    pub callback_thread: CallbackThread,

    /// Taken by a loaded model.
    pub memory_mib: u32,
    /// Taken by each of its runs, and kept.
    pub memory_mib_per_run: u32,

    pub count: Count,
    pub max_context_limit: i32,
    pub prefix_reuse: bool,
    /// The KV cache's size in a run is that of then, not that of the run before.
    pub cache_size_in_runs: bool,
    pub embedding_size: u16,
    pub vocab_size: u16,
    pub hidden_states: HiddenStates,

    pub platform: String,
    pub driver_version: String,
    pub toolkit_version: Option<String>,
    pub npu_core_num: u32,
    pub model_dtype: String,

    /// Written for a prompt cache instead of the fake's own format.
    pub saved_cache: Option<Vec<u8>>,
    /// Prompt caches have the layout of the vendor's 1.3.1.
    pub vendors_cache: bool,
    /// Prompt caches of some prompts are cut short, and nothing says so.
    pub cut_cache: Option<CutCache>,
    /// How long a prompt cache takes to be written, half of it after its first half.
    pub save_us_per_byte: u64,
    /// A run that is to save its prompt does not.
    pub saves_no_cache: bool,

    pub template: Template,
    pub perf: Perf,
    pub report_params: bool,
    /// The `record` of all faults that have none.
    pub record: Option<String>,
    pub fault: Vec<Fault>,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            tokens: Vec::new(),
            repeat: None,
            echo_prompt: false,
            answer: Vec::new(),
            eos_token_id: None,
            eos_text: "</s>".to_owned(),
            eos_ignored: false,
            eos_silent: false,
            words: Vec::new(),
            row: Vec::new(),
            row_seed: None,
            logits_come: LogitsCome::WithTexts,
            rows_of: RowsOf::Evaluated,
            abort_late_tokens: 0,
            continue_answers: false,
            load_delay_ms: 0,
            load_progress: LoadProgress::None,
            prefill_delay_ms: 0,
            prefill_us_per_byte: 0,
            token_delay_us: 0,
            tokens_in_step: false,
            abort_interrupts_prefill: false,
            callback_thread: CallbackThread::Caller,
            memory_mib: 0,
            memory_mib_per_run: 0,
            count: Count::Words,
            max_context_limit: 4096,
            prefix_reuse: false,
            cache_size_in_runs: false,
            embedding_size: 8,
            vocab_size: 16,
            hidden_states: HiddenStates::Counting,
            platform: "RK3588".to_owned(),
            driver_version: "0.9.8".to_owned(),
            toolkit_version: None,
            npu_core_num: 3,
            model_dtype: "W8A8".to_owned(),
            saved_cache: None,
            vendors_cache: false,
            cut_cache: None,
            save_us_per_byte: 0,
            saves_no_cache: false,
            template: Template::default(),
            perf: Perf::default(),
            report_params: false,
            record: None,
            fault: Vec::new(),
        }
    }
}

/// A token of an answer: its text, or a table for all else about it.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub enum Token {
    Text(String),
    Detailed(DetailedToken),
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DetailedToken {
    pub text: Option<String>,
    /// Raw bytes instead of text; they need not be UTF-8.
    pub bytes: Option<Vec<u8>>,
    /// The text comes as this many tokens: WAITING for all but the last.
    pub pieces: Option<u32>,
    pub id: Option<i32>,
    /// What stands for it in a prompt that an answer goes on behind, where that is not its text: a special token
    /// is not printed, and its text in a prompt is it.
    pub in_prompt: Option<String>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Repeat {
    pub token: Token,
    pub times: u64,
}

/// Logits, by id, wherever these are the last tokens.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Row {
    pub behind: Vec<i32>,
    pub logits: Vec<f32>,
}

/// What logits come with.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum LogitsCome {
    /// The token that was drawn from them, with its text.
    WithTexts,
    /// Its id, and no text.
    WithIds,
    /// Nothing, before the first token, and not again.
    Alone,
}

/// Of which tokens of an input logits come.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum RowsOf {
    Input,
    /// Those that were not in the cache.
    Evaluated,
}

/// What is left of the caches of some prompts.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CutCache {
    pub when_prompt_contains: String,
    pub bytes: usize,
}

/// An answer for some prompts.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Answer {
    pub when_prompt_contains: String,
    pub tokens: Vec<Token>,
    pub repeat: Option<Repeat>,
    pub echo_prompt: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum CallbackThread {
    Caller,
    Other,
}

/// What a run for hidden states hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HiddenStates {
    Counting,
    /// The last value is not a number.
    NotANumber,
    /// A run without a matrix.
    None,
}

/// How a prompt's tokens are counted.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// One a run of characters that are not white space.
    Words,
    /// One per so many bytes, rounded up.
    Bytes(u32),
}

impl Count {
    pub fn of(self, text: &[u8]) -> i32 {
        let count = match self {
            Count::Words => text
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .count(),
            Count::Bytes(bytes) => text.len().div_ceil(bytes.max(1) as usize),
        };
        i32::try_from(count).unwrap_or(i32::MAX)
    }
}

/// The template the model brings, in force until rkllm_set_chat_template.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Template {
    pub system: String,
    pub prefix: String,
    pub postfix: String,
}

impl Default for Template {
    fn default() -> Self {
        Template {
            system: String::new(),
            prefix: "<|fake-user|>".to_owned(),
            postfix: "<|fake-assistant|>".to_owned(),
        }
    }
}

/// Figures to report instead of measured ones.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Perf {
    pub prefill_time_ms: Option<f32>,
    pub prefill_tokens: Option<i32>,
    pub generate_time_ms: Option<f32>,
    pub generate_tokens: Option<i32>,
    pub memory_usage_mb: Option<f32>,
}

impl Scenario {
    pub fn read(path: &Path) -> Result<Scenario, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut scenario: Scenario = toml::from_str(&text).map_err(|error| {
            error
                .to_string()
                .lines()
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        })?;
        for answer in &scenario.answer {
            if answer.when_prompt_contains.is_empty() {
                return Err("an [[answer]] without when-prompt-contains".to_owned());
            }
            one_source(&answer.tokens, &answer.repeat, answer.echo_prompt)?;
        }
        one_source(&scenario.tokens, &scenario.repeat, scenario.echo_prompt)?;
        if scenario.words.iter().any(|word| word.contains('\0')) {
            return Err("a word with a NUL in it".to_owned());
        }
        let echoes = scenario.echo_prompt || scenario.answer.iter().any(|a| a.echo_prompt);
        if scenario.continue_answers && echoes {
            return Err("an answer with echo-prompt cannot be continued".to_owned());
        }
        if scenario.load_progress != LoadProgress::None && scenario.load_delay_ms == 0 {
            return Err("load-progress without load-delay-ms".to_owned());
        }
        scenario.fault.iter().try_for_each(Fault::check)?;
        for fault in &mut scenario.fault {
            fault.record = fault.record.take().or_else(|| scenario.record.clone());
        }
        Ok(scenario)
    }
}

fn one_source(tokens: &[Token], repeat: &Option<Repeat>, echo: bool) -> Result<(), String> {
    let sources = [!tokens.is_empty(), repeat.is_some(), echo];
    if sources.into_iter().filter(|given| *given).count() > 1 {
        return Err("an answer is tokens, repeat or echo-prompt, not several".to_owned());
    }
    Ok(())
}
