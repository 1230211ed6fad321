//! Parameters that clients know from other servers and that do nothing here. A request with one is
//! answered, and the answer's `x-rkllmd-not-applied` names it, so that no client takes it for done. What
//! would change what an answer may say, or what it holds, is refused by name instead.

use serde::de::{IgnoredAny, MapAccess};
use serde_json::Value;

use super::parameters::{is_empty, is_false, neutral};
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::together::Fields;

/// In the order of their names. OpenAI's, llama.cpp's server's, vLLM's and Ollama's; those too that
/// another path reads, which on this one do nothing.
const KNOWN: &[&str] = &[
    "adaptive_decay",
    "adaptive_target",
    "add_generation_prompt",
    "add_special_tokens",
    "allowed_token_ids",
    "bad_words",
    "best_of",
    "cache_prompt",
    "cache_reuse",
    "cache_salt",
    "chat_template",
    "chat_template_kwargs",
    "context",
    "continue_final_message",
    "documents",
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "dynatemp_range",
    "early_stopping",
    "echo",
    "embd_normalize",
    "enable_thinking",
    "format",
    "function_call",
    "functions",
    "grammar_lazy",
    "grammar_triggers",
    "guided_decoding_backend",
    "guided_whitespace_pattern",
    "id_slot",
    "image_data",
    "include_stop_str_in_output",
    "input",
    "input_extra",
    "input_prefix",
    "input_suffix",
    "input_type",
    "keep_alive",
    "kv_transfer_params",
    "length_penalty",
    "logits_processors",
    "lora",
    "max_completion_tokens",
    "messages",
    "metadata",
    "min_keep",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "mm_processor_kwargs",
    "moderation",
    "n_cmpl",
    "n_discard",
    "n_indent",
    "n_keep",
    "n_predict",
    "n_probs",
    "normalize",
    "options",
    "parallel_tool_calls",
    "parse_tool_calls",
    "post_sampling_probs",
    "prediction",
    "preserved_tokens",
    "priority",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_logprobs",
    "reasoning",
    "reasoning_budget",
    "reasoning_effort",
    "reasoning_format",
    "repeat_last_n",
    "request_id",
    "response_fields",
    "response_format",
    "return_progress",
    "return_token_ids",
    "return_tokens",
    "return_tokens_as_token_ids",
    "safety_identifier",
    "samplers",
    "service_tier",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "special",
    "store",
    "stream_options",
    "suffix",
    "t_max_predict_ms",
    "t_max_prompt_ms",
    "task",
    "tfs_z",
    "think",
    "thinking",
    "thinking_budget",
    "thinking_forced_open",
    "timings_per_token",
    "tool_choice",
    "tools",
    "top_a",
    "top_logprobs",
    "top_n_sigma",
    "truncate",
    "truncate_prompt_tokens",
    "truncation",
    "typ_p",
    "typical_p",
    "use_beam_search",
    "user",
    "verbosity",
    "xtc_probability",
    "xtc_threshold",
];

/// A value that asks for nothing, and how it is called.
type Neutral = (fn(&Value) -> bool, &'static str);

const EMPTY_TEXT: Neutral = (|value| value == "", "only \"\"");
const EMPTY_LIST: Neutral = (is_empty, "only []");
const FALSE: Neutral = (is_false, "only false");
const ZERO: Neutral = (
    |value| is_false(value) || value.as_f64() == Some(0.0),
    "only 0",
);
const ONE: Neutral = (|value| value.as_f64() == Some(1.0), "only 1");

/// Those of the known ones that add to an answer, and what is accepted of them.
const REFUSED: &[(&str, Neutral)] = &[
    ("best_of", ONE),
    ("echo", FALSE),
    ("functions", EMPTY_LIST),
    ("n_cmpl", ONE),
    ("n_probs", ZERO),
    ("prompt_logprobs", FALSE),
    ("return_token_ids", FALSE),
    ("suffix", EMPTY_TEXT),
    ("tools", EMPTY_LIST),
];

/// The known parameters that a body gives and the daemon does not read; null counts as absent, and so does
/// a value that asks for nothing of those that are refused.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    names: Vec<&'static str>,
    /// Those of them that add to an answer.
    refused: Vec<(&'static str, Outline)>,
}

impl Ignored {
    /// Their names, where no answer is made of which they could ask anything.
    pub fn names(self) -> Vec<&'static str> {
        let refused = self.refused.into_iter().map(|(name, _)| name);
        self.names.into_iter().chain(refused).collect()
    }

    /// Their names, or why the request is refused.
    pub fn of_an_answer(self) -> Result<Vec<&'static str>, RequestError> {
        for (param, value) in self.refused {
            let row = REFUSED.iter().find(|(name, _)| *name == param);
            if let Some((_, (is_neutral, allowed))) = row {
                neutral(param, &Some(value), is_neutral, allowed)?;
            }
        }
        Ok(self.names)
    }
}

impl<'de> Fields<'de> for Ignored {
    fn place(name: &str) -> Option<usize> {
        KNOWN.binary_search(&name).ok()
    }

    fn once(place: usize) -> Option<&'static str> {
        let is_refused = REFUSED.iter().any(|(name, _)| *name == KNOWN[place]);
        is_refused.then_some(KNOWN[place])
    }

    fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error> {
        let name = KNOWN[place];
        if Self::once(place).is_some() {
            let value = map.next_value::<Option<Outline>>()?;
            self.refused.extend(value.map(|value| (name, value)));
            return Ok(());
        }
        let is_there = map.next_value::<Option<IgnoredAny>>()?.is_some();
        if is_there && !self.names.contains(&name) {
            self.names.push(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::body::fields;
    use crate::http::request::error::RequestError;
    use crate::http::request::together::{Together, fields_of};

    #[derive(Debug, Default)]
    struct Read {
        top_p: Option<f64>,
    }

    fields_of!(Read { top_p });

    fn ignored(body: &[u8]) -> Result<Vec<&'static str>, RequestError> {
        let Together(read, ignored): Together<Read, Ignored> = fields(body)?;
        assert!(read.top_p.is_none_or(|top_p| top_p == 1.0));
        Ok(ignored.names())
    }

    fn of_an_answer(body: &str) -> Result<Vec<&'static str>, RequestError> {
        let Together(_, ignored): Together<Read, Ignored> = fields(body.as_bytes())?;
        ignored.of_an_answer()
    }

    #[test]
    fn what_would_change_an_answer_is_refused_by_name() {
        for (name, _) in REFUSED {
            for value in ["\"x\"", "[1]", "{\"a\":1}", "7", "true"] {
                let error = of_an_answer(&format!(r#"{{"user":"u","{name}":{value}}}"#));
                let is_named = matches!(
                    &error,
                    Err(RequestError::Unsupported { param, .. }) if param == name
                );
                assert!(is_named, "{name}: {value}: {error:?}");
            }
            let absent = of_an_answer(&format!(r#"{{"user":"u","{name}":null}}"#));
            assert_eq!(absent.unwrap(), ["user"], "{name}");
        }
        let neutral = r#"{"best_of":1,"echo":false,"functions":[],"suffix":"",
            "tools":[],"n_cmpl":1.0,"n_probs":0,"prompt_logprobs":false,"return_token_ids":false}"#;
        assert_eq!(of_an_answer(neutral).unwrap(), [""; 0]);
    }

    #[test]
    fn a_wish_for_no_thoughts_in_a_form_that_is_not_read_is_named() {
        let body = br#"{"thinking": {"type": "disabled"}}"#;
        assert_eq!(ignored(body).expect("a body"), ["thinking"]);
    }

    #[test]
    fn names_are_in_order_and_there_once() {
        assert!(KNOWN.is_sorted_by(|a, b| a < b));
        assert!(REFUSED.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(REFUSED.iter().all(|(name, _)| KNOWN.contains(name)));
    }

    #[test]
    fn every_known_parameter_that_is_given_is_named() {
        for name in KNOWN {
            let body = format!(r#"{{"model":"m","{name}":{{"a":[1]}},"unheard_of":1,"top_p":1}}"#);
            assert_eq!(ignored(body.as_bytes()).unwrap(), [*name]);
            let body = format!(r#"{{"{name}":null}}"#);
            assert!(ignored(body.as_bytes()).unwrap().is_empty(), "{name}");
        }
        let body = br#"{"user":"u","typical_p":0.1,"seed":1,"user":"v"}"#;
        assert_eq!(ignored(body).unwrap(), ["user", "typical_p"]);
    }
}
