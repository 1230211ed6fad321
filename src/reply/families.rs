//! The formats of families that are well known, for models whose template does not tell.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::format::{
    Around, CallBody, Calls, IdPlace, JsonKeys, Marker, NameThenJson, Parameters, Reasoning,
    ReplyFormat,
};

/// How a family of models writes its replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplyFamily {
    /// Qwen 2.5 and 3, SmolLM3, Granite 4: JSON in `<tool_call>`, thoughts in `<think>`.
    Hermes,
    /// Also Qwen 3.5.
    Qwen3Coder,
    /// 3.1 and 3.2.
    Llama3,
    /// Nemo and 7B v0.3: a list of objects.
    MistralList,
    /// Name and arguments with markers between.
    Mistral,
    DeepseekR1,
    Gemma4,
    Functiongemma,
    Phi4Mini,
    Granite3,
    Internlm2,
    Lfm2,
    Minicpm5,
    Glm4,
    GptOss,
    /// For models that were taught no form: one that the prompt describes.
    Generic,
}

fn thought(open: &str, close: &str) -> Option<Reasoning> {
    Some(Reasoning::new(open, Marker::text(close).after("\n")))
}

/// Prompts of these families open a thought, or hold an empty one.
fn think() -> Option<Reasoning> {
    let thought = thought("<think>", "</think>")?;
    Some(Reasoning {
        opened_by_prompts: true,
        ..thought
    })
}

fn around(open: &str, close: &str) -> Around {
    Around {
        open: Marker::text(open).after("\n"),
        close: Some(Marker::text(close)),
    }
}

fn open(open: &str) -> Around {
    Around {
        open: Marker::text(open),
        close: None,
    }
}

fn calls(call: Vec<Around>, body: CallBody) -> Option<Calls> {
    Some(Calls::new(call, body))
}

fn json(arguments: &str) -> CallBody {
    CallBody::Json(JsonKeys::new("name", arguments))
}

fn some(text: &str) -> Option<Marker> {
    Some(Marker::text(text))
}

impl ReplyFamily {
    pub const ALL: [Self; 16] = [
        Self::Hermes,
        Self::Qwen3Coder,
        Self::Llama3,
        Self::MistralList,
        Self::Mistral,
        Self::DeepseekR1,
        Self::Gemma4,
        Self::Functiongemma,
        Self::Phi4Mini,
        Self::Granite3,
        Self::Internlm2,
        Self::Lfm2,
        Self::Minicpm5,
        Self::Glm4,
        Self::GptOss,
        Self::Generic,
    ];

    /// The family that a template speaks of.
    pub fn of_template(template: &str) -> Option<Self> {
        let has = |texts: &[&str]| texts.iter().all(|text| template.contains(text));
        let family = match () {
            () if has(&["<|channel|>", "<|message|>", "<|start|>"]) => Self::GptOss,
            () if has(&["<|tool_call>", "<tool_call|>"]) => Self::Gemma4,
            () if has(&["<start_function_call>"]) => Self::Functiongemma,
            () if has(&["<tool_call>", "<function=", "<parameter="]) => Self::Qwen3Coder,
            () if has(&["<function name=", "<param name="]) => Self::Minicpm5,
            () if has(&["<arg_key>", "<arg_value>"]) => Self::Glm4,
            () if has(&["<｜tool▁calls▁begin｜>"]) => Self::DeepseekR1,
            () if has(&["[TOOL_CALLS]", "[ARGS]"]) => Self::Mistral,
            () if has(&["[TOOL_CALLS]"]) => Self::MistralList,
            () if has(&["<|tool_call_start|>"]) || has(&["List of tools: "]) => Self::Lfm2,
            () if has(&["<|action_start|>", "<|plugin|>"]) => Self::Internlm2,
            () if has(&["<|tool|>", "<|/tool|>"]) => Self::Phi4Mini,
            () if has(&["<|start_of_role|>", "<|tool_call|>"]) => Self::Granite3,
            () if has(&["<tool_call>"]) => Self::Hermes,
            () if has(&["<|start_header_id|>", "ipython"]) => Self::Llama3,
            () => return None,
        };
        Some(family)
    }

    pub fn format(self) -> ReplyFormat {
        let (reasoning, calls) = match self {
            Self::Hermes => (
                think(),
                calls(
                    vec![around("<tool_call>", "</tool_call>")],
                    json("arguments"),
                ),
            ),
            Self::Qwen3Coder => (
                think(),
                calls(
                    vec![around("<tool_call>", "</tool_call>")],
                    CallBody::Parameters(Parameters {
                        before_name: some("<function="),
                        after_name: Marker::text(">"),
                        before_key: Marker::text("<parameter="),
                        after_key: Marker::text(">"),
                        before_value: None,
                        after_value: Marker::text("</parameter>").after("\n"),
                        after_arguments: some("</function>"),
                        has_cdata: false,
                    }),
                ),
            ),
            Self::Llama3 => (
                None,
                Some(Calls {
                    section: None,
                    call: vec![open("<|python_tag|>")],
                    bare_json: true,
                    also_python: true,
                    skipped: Vec::new(),
                    body: json("parameters"),
                }),
            ),
            Self::MistralList => (
                None,
                calls(
                    vec![open("[TOOL_CALLS]")],
                    CallBody::Json(JsonKeys {
                        id: Some("id".to_owned()),
                        ..JsonKeys::new("name", "arguments")
                    }),
                ),
            ),
            Self::Mistral => (
                thought("[THINK]", "[/THINK]"),
                calls(
                    vec![open("[TOOL_CALLS]")],
                    CallBody::NameThenJson(NameThenJson {
                        before_name: None,
                        id: Some(IdPlace::Behind(Marker::text("[CALL_ID]"))),
                        before_arguments: Marker::text("[ARGS]"),
                        after_arguments: None,
                    }),
                ),
            ),
            Self::DeepseekR1 => (
                think(),
                Some(Calls {
                    section: Some(Around::new(
                        "<｜tool▁calls▁begin｜>",
                        "<｜tool▁calls▁end｜>",
                    )),
                    call: vec![Around::new("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")],
                    bare_json: false,
                    also_python: false,
                    skipped: Vec::new(),
                    body: CallBody::NameThenJson(NameThenJson {
                        before_name: some("<｜tool▁sep｜>"),
                        id: None,
                        before_arguments: Marker::text("```json").after("\n"),
                        after_arguments: some("```"),
                    }),
                }),
            ),
            Self::Gemma4 => (
                Some(Reasoning {
                    open: Marker::text("<|channel>"),
                    label: "thought".to_owned(),
                    close: Marker::text("<channel|>").after("\n"),
                    opened_by_prompts: true,
                }),
                calls(
                    vec![Around::new("<|tool_call>", "<tool_call|>")],
                    CallBody::KeyValues {
                        before_name: "call:".to_owned(),
                        quote: Marker::text("<|\"|>"),
                    },
                ),
            ),
            Self::Functiongemma => (
                None,
                calls(
                    vec![Around::new("<start_function_call>", "<end_function_call>")],
                    CallBody::KeyValues {
                        before_name: "call:".to_owned(),
                        quote: Marker::text("<escape>"),
                    },
                ),
            ),
            Self::Phi4Mini => (
                None,
                calls(
                    vec![
                        Around::new("<|tool_call|>", "<|/tool_call|>"),
                        open("functools["),
                    ],
                    json("arguments"),
                ),
            ),
            Self::Granite3 => (
                think(),
                calls(vec![open("<|tool_call|>")], json("arguments")),
            ),
            Self::Internlm2 => (
                None,
                Some(Calls {
                    section: None,
                    call: vec![around("<|action_start|>", "<|action_end|>")],
                    bare_json: false,
                    also_python: false,
                    skipped: vec![Marker::text("<|plugin|>"), Marker::text("<|interpreter|>")],
                    body: json("parameters"),
                }),
            ),
            Self::Lfm2 => (
                think(),
                calls(
                    vec![Around::new("<|tool_call_start|>", "<|tool_call_end|>")],
                    CallBody::Python,
                ),
            ),
            Self::Minicpm5 => (
                think(),
                calls(
                    Vec::new(),
                    CallBody::Parameters(Parameters {
                        before_name: some("<function name=\""),
                        after_name: Marker::text("\">"),
                        before_key: Marker::text("<param name=\""),
                        after_key: Marker::text("\">"),
                        before_value: None,
                        after_value: Marker::text("</param>"),
                        after_arguments: some("</function>"),
                        has_cdata: true,
                    }),
                ),
            ),
            Self::Glm4 => (
                think(),
                calls(
                    vec![around("<tool_call>", "</tool_call>")],
                    CallBody::Parameters(Parameters {
                        before_name: None,
                        after_name: Marker::text("\n"),
                        before_key: Marker::text("<arg_key>"),
                        after_key: Marker::text("</arg_key>"),
                        before_value: some("<arg_value>"),
                        after_value: Marker::text("</arg_value>"),
                        after_arguments: None,
                        has_cdata: false,
                    }),
                ),
            ),
            Self::GptOss => {
                return ReplyFormat {
                    harmony: true,
                    ..ReplyFormat::default()
                };
            }
            Self::Generic => (
                think(),
                Some(Calls {
                    section: None,
                    call: vec![around("<tool_call>", "</tool_call>")],
                    bare_json: true,
                    also_python: false,
                    skipped: Vec::new(),
                    body: json("arguments"),
                }),
            ),
        };
        let content = (self == Self::Granite3).then(|| Around::new("<response>", "</response>"));
        ReplyFormat {
            reasoning,
            calls,
            content,
            ..ReplyFormat::default()
        }
    }
}

impl fmt::Display for ReplyFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its name in a file is its name for people.
        self.serialize(f)
    }
}
