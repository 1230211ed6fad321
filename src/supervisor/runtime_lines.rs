//! Facts and reasons in the lines a runtime prints. The formats are those of the vendor's releases
//! 1.2.1 to 1.3.1 (rknn-llm issues 424, 437, 467); a line that is missing or different leaves its
//! fact absent.

use super::RuntimeFacts;

/// The printed reason for a prompt that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptTooLong {
    pub prompt_tokens: u32,
    pub limit_tokens: u32,
}

const PROMPT_TOO_LONG: &str = "E rkllm: the length of prompt is greater than max context (prompt: ";

/// Fills in what the lines of a load say.
pub fn read_facts(lines: &[String], facts: &mut RuntimeFacts) {
    for body in lines.iter().filter_map(|line| message(line)) {
        for (key, value) in body.split(", ").filter_map(|part| part.split_once(": ")) {
            let text = || Some(value.trim().to_owned()).filter(|text| !text.is_empty());
            match key.trim() {
                "rkllm-runtime version" => facts.runtime_version = text(),
                "rknpu driver version" => facts.driver_version = text(),
                "platform" => facts.platform = text(),
                "rkllm-toolkit version" => facts.toolkit_version = text(),
                "max_context_limit" => facts.max_context_limit = value.trim().parse().ok(),
                "npu_core_num" => facts.npu_core_num = value.trim().parse().ok(),
                "target_platform" => facts.target_platform = text(),
                "model_dtype" => facts.model_dtype = text(),
                _ => {}
            }
        }
    }
}

/// The model's limit, when a load was refused because more context was asked for.
pub fn context_limit(lines: &[String]) -> Option<u32> {
    lines.iter().find_map(|line| {
        let rest = line.split_once("max_context[")?.1;
        let limit = rest.split_once("max_context_limit[")?.1;
        limit.split_once(']')?.0.parse().ok()
    })
}

/// Token count and limit, when a prompt was refused because it is too long.
pub fn prompt_too_long(lines: &[String]) -> Option<PromptTooLong> {
    lines.iter().find_map(|line| {
        // The whole line of the vendor's: a line may hold a user's text with numbers like these.
        let rest = line.strip_prefix(PROMPT_TOO_LONG)?;
        let (prompt, rest) = rest.split_once(" tokens, max context: ")?;
        Some(PromptTooLong {
            prompt_tokens: prompt.parse().ok()?,
            limit_tokens: rest.split_once(')')?.0.parse().ok()?,
        })
    })
}

/// The first line that reports an error, for the reason why a model cannot be loaded.
pub fn first_error(lines: &[String]) -> Option<&str> {
    lines
        .iter()
        .find(|line| line.starts_with("E "))
        .map(String::as_str)
}

fn message(line: &str) -> Option<&str> {
    line.split_once("rkllm: ").map(|(_, body)| body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_init_lines_become_facts() {
        let mut facts = RuntimeFacts::default();
        read_facts(
            &lines(
                "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3588\n\
                 I rkllm: loading rkllm model from /m/x.rkllm\n\
                 I rkllm: rkllm-toolkit version: 1.2.3, max_context_limit: 4096, npu_core_num: 3, target_platform: RK3588, model_dtype: W8A8\n\
                 I rkllm: Enabled cpus: [4, 5, 6, 7]\n",
            ),
            &mut facts,
        );
        assert_eq!(facts.runtime_version.as_deref(), Some("1.2.3"));
        assert_eq!(facts.driver_version.as_deref(), Some("0.9.8"));
        assert_eq!(facts.platform.as_deref(), Some("RK3588"));
        assert_eq!(facts.toolkit_version.as_deref(), Some("1.2.3"));
        assert_eq!(facts.max_context_limit, Some(4096));
        assert_eq!(facts.npu_core_num, Some(3));
        assert_eq!(facts.model_dtype.as_deref(), Some("W8A8"));
    }

    #[test]
    fn refusals_carry_their_numbers() {
        let refused = lines(
            "E rkllm: max_context[8192] must be less than the model's max_context_limit[4096]",
        );
        assert_eq!(context_limit(&refused), Some(4096));
        let long = lines(
            "E rkllm: the length of prompt is greater than max context (prompt: 1299 tokens, max context: 1020)",
        );
        assert_eq!(
            prompt_too_long(&long),
            Some(PromptTooLong {
                prompt_tokens: 1299,
                limit_tokens: 1020
            })
        );
        assert_eq!(prompt_too_long(&refused), None);
        assert_eq!(first_error(&long), Some(long[0].as_str()));
    }

    proptest! {
        #[test]
        fn no_line_panics(text in prop::collection::vec("\\PC{0,80}", 0..8)) {
            read_facts(&text, &mut RuntimeFacts::default());
            context_limit(&text);
            prompt_too_long(&text);
            first_error(&text);
        }
    }
}
