//! Chat template families the daemon brings itself, for models whose files carry no template.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SpecialTokens;

/// A family of chat formats, by the name `model.toml` uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateFamily {
    Chatml,
    Llama3,
    Gemma,
    Phi3,
    DeepseekR1,
    Zephyr,
}

impl fmt::Display for TemplateFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chatml => "chatml",
            Self::Llama3 => "llama3",
            Self::Gemma => "gemma",
            Self::Phi3 => "phi3",
            Self::DeepseekR1 => "deepseek-r1",
            Self::Zephyr => "zephyr",
        })
    }
}

/// Parts of file names and the family they tell. The first that matches wins, so the more special
/// names stand first; `None` marks relatives that look alike and speak another format.
const NAMES: &[(&str, Option<TemplateFamily>)] = &[
    ("deepseekr1", Some(TemplateFamily::DeepseekR1)),
    ("tinyllama", Some(TemplateFamily::Zephyr)),
    ("zephyr", Some(TemplateFamily::Zephyr)),
    ("chatml", Some(TemplateFamily::Chatml)),
    ("llama3", Some(TemplateFamily::Llama3)),
    ("gemma4", None),
    ("gemma", Some(TemplateFamily::Gemma)),
    ("phi3", Some(TemplateFamily::Phi3)),
    ("qwen", Some(TemplateFamily::Chatml)),
    ("smollm", Some(TemplateFamily::Chatml)),
    ("internlm2", Some(TemplateFamily::Chatml)),
    ("internlm3", Some(TemplateFamily::Chatml)),
];

impl TemplateFamily {
    pub const ALL: [Self; 6] = [
        Self::Chatml,
        Self::Llama3,
        Self::Gemma,
        Self::Phi3,
        Self::DeepseekR1,
        Self::Zephyr,
    ];

    /// The family that a model's file name tells, if it does.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let name: String = name
            .chars()
            .filter(|c| !matches!(c, '-' | '_' | '.' | ' '))
            .flat_map(char::to_lowercase)
            .collect();
        NAMES
            .iter()
            .find(|(part, _)| name.contains(part))
            .and_then(|(_, family)| *family)
    }

    /// The family's Jinja text.
    pub fn template(self) -> &'static str {
        match self {
            Self::Chatml => include_str!("families/chatml.jinja"),
            Self::Llama3 => include_str!("families/llama3.jinja"),
            Self::Gemma => include_str!("families/gemma.jinja"),
            Self::Phi3 => include_str!("families/phi3.jinja"),
            Self::DeepseekR1 => include_str!("families/deepseek-r1.jinja"),
            Self::Zephyr => include_str!("families/zephyr.jinja"),
        }
    }

    /// The texts of BOS and EOS in this family, where the model's files do not tell.
    pub fn special_tokens(self) -> SpecialTokens {
        let (bos, eos) = match self {
            Self::Chatml => ("", "<|im_end|>"),
            Self::Llama3 => ("<|begin_of_text|>", "<|eot_id|>"),
            Self::Gemma => ("<bos>", "<eos>"),
            Self::Phi3 => ("<s>", "<|endoftext|>"),
            Self::DeepseekR1 => ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
            Self::Zephyr => ("<s>", "</s>"),
        };
        SpecialTokens {
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        }
    }

    /// The control tokens that this family's messages begin and end with.
    pub fn control_tokens(self) -> &'static [&'static str] {
        match self {
            Self::Chatml => &["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
            Self::Llama3 => &[
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
                "<|eom_id|>",
                "<|python_tag|>",
            ],
            Self::Gemma => &["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
            Self::Phi3 => &[
                "<s>",
                "</s>",
                "<|system|>",
                "<|user|>",
                "<|assistant|>",
                "<|end|>",
                "<|endoftext|>",
            ],
            Self::DeepseekR1 => &[
                "<｜begin▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                "<｜User｜>",
                "<｜Assistant｜>",
            ],
            Self::Zephyr => &["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"],
        }
    }
}

/// Markers of messages outside the families, of templates that models bring themselves.
const OTHER_MARKERS: &[&str] = &[
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[gMASK]",
    "<sop>",
    "<|turn>",
    "<turn|>",
];

/// Every control token known without a model's own list.
pub fn well_known_control_tokens() -> impl Iterator<Item = &'static str> {
    TemplateFamily::ALL
        .into_iter()
        .flat_map(|family| family.control_tokens().iter().copied())
        .chain(OTHER_MARKERS.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_the_family() {
        use TemplateFamily::*;
        for (name, family) in [
            ("Qwen3-1.7B-w8a8-rk3588", Some(Chatml)),
            ("SmolLM2-135M-Instruct.Q4_1", Some(Chatml)),
            ("Llama-3.2-1B-Instruct_W8A8", Some(Llama3)),
            ("meta_llama3_8b", Some(Llama3)),
            ("DeepSeek-R1-Distill-Qwen-1.5B", Some(DeepseekR1)),
            ("deepseek_r1_distill_llama_8b", Some(DeepseekR1)),
            ("TinyLlama-1.1B-Chat-v1.0", Some(Zephyr)),
            ("gemma-3-1b-it", Some(Gemma)),
            ("Gemma4-E2B", None),
            ("Phi-3.5-mini-instruct", Some(Phi3)),
            ("Phi-4-mini", None),
            ("llama-2-7b-chat", None),
            ("model", None),
        ] {
            assert_eq!(TemplateFamily::from_file_name(name), family, "{name}");
        }
    }

    #[test]
    fn a_family_is_displayed_as_it_is_configured() {
        for family in TemplateFamily::ALL {
            let configured = serde_json::to_value(family).unwrap();
            assert_eq!(configured, serde_json::json!(family.to_string()));
        }
    }
}
