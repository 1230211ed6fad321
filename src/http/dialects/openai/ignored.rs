//! Parameters that clients know from other servers and that do nothing here. A request with one is
//! answered, and the answer's `x-rkllmd-not-applied` names it, so that no client takes it for done. What
//! OpenAI's own parameters would change of an answer's shape is refused by name instead (`neutral`); what
//! other servers' would is named only.

use serde::de::{IgnoredAny, MapAccess};

use crate::http::request::together::Fields;

/// In the order of their names. OpenAI's, llama.cpp's server's, vLLM's and Ollama's.
const KNOWN: &[&str] = &[
    "adaptive_decay",
    "adaptive_target",
    "add_generation_prompt",
    "add_special_tokens",
    "allowed_token_ids",
    "bad_words",
    "cache_prompt",
    "cache_reuse",
    "cache_salt",
    "chat_template",
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
    "embd_normalize",
    "enable_thinking",
    "format",
    "grammar",
    "grammar_lazy",
    "grammar_triggers",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "id_slot",
    "ignore_eos",
    "image_data",
    "include_stop_str_in_output",
    "input_extra",
    "input_prefix",
    "input_suffix",
    "input_type",
    "json_schema",
    "keep_alive",
    "kv_transfer_params",
    "length_penalty",
    "logits_processors",
    "lora",
    "metadata",
    "min_keep",
    "min_p",
    "min_tokens",
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
    "parse_tool_calls",
    "post_sampling_probs",
    "prediction",
    "preserved_tokens",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_logprobs",
    "reasoning",
    "reasoning_budget",
    "repeat_last_n",
    "request_id",
    "response_fields",
    "return_progress",
    "return_token_ids",
    "return_tokens",
    "return_tokens_as_token_ids",
    "safety_identifier",
    "samplers",
    "service_tier",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop_token_ids",
    "store",
    "structured_outputs",
    "t_max_predict_ms",
    "t_max_prompt_ms",
    "task",
    "tfs_z",
    "think",
    "thinking",
    "thinking_budget",
    "thinking_forced_open",
    "timings_per_token",
    "top_a",
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

/// The known parameters that a body gives and the daemon does not read; null counts as absent.
#[derive(Debug, Default)]
pub(super) struct Ignored(pub Vec<&'static str>);

impl<'de> Fields<'de> for Ignored {
    fn place(name: &str) -> Option<usize> {
        KNOWN.binary_search(&name).ok()
    }

    fn once(_place: usize) -> Option<&'static str> {
        None
    }

    fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error> {
        let is_there = map.next_value::<Option<IgnoredAny>>()?.is_some();
        if is_there && !self.0.contains(&KNOWN[place]) {
            self.0.push(KNOWN[place]);
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
        let Together(read, Ignored(names)): Together<Read, _> = fields(body)?;
        assert!(read.top_p.is_none_or(|top_p| top_p == 1.0));
        Ok(names)
    }

    #[test]
    fn a_wish_for_no_thoughts_in_a_form_that_is_not_read_is_named() {
        let body = br#"{"thinking": {"type": "disabled"}}"#;
        assert_eq!(ignored(body).expect("a body"), ["thinking"]);
    }

    #[test]
    fn names_are_in_order_and_there_once() {
        assert!(KNOWN.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn every_known_parameter_that_is_given_is_named() {
        for name in KNOWN {
            let body = format!(r#"{{"model":"m","{name}":{{"a":[1]}},"unheard_of":1,"top_p":1}}"#);
            assert_eq!(ignored(body.as_bytes()).unwrap(), [*name]);
            let body = format!(r#"{{"{name}":null}}"#);
            assert!(ignored(body.as_bytes()).unwrap().is_empty(), "{name}");
        }
        let body = br#"{"user":"u","min_p":0.1,"seed":1,"user":"v"}"#;
        assert_eq!(ignored(body).unwrap(), ["user", "min_p"]);
    }
}
