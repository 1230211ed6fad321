//! Facts and reasons in the lines a runtime prints. The formats are those of the vendor's releases
//! 1.2.1 to 1.3.1 (docs/vendor-library.md §2); a line that is missing or different leaves its
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
    for body in lines.iter().filter_map(|line| fact_list(line)) {
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
        let rest = line.strip_prefix("E rkllm: max_context[")?;
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

/// The last line that reports an error, for the reason of a call that failed.
pub fn last_error(lines: &[String]) -> Option<&str> {
    lines
        .iter()
        .rev()
        .find(|line| line.starts_with("E rkllm:"))
        .map(String::as_str)
}

/// The facts of one of the two lines that list some. Other lines may hold a path or a text that reads
/// like them.
fn fact_list(line: &str) -> Option<&str> {
    let body = line.strip_prefix("I rkllm: ")?;
    let lists = ["rkllm-runtime version: ", "rkllm-toolkit version: "];
    lists
        .iter()
        .any(|first| body.starts_with(first))
        .then_some(body)
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

    const RUNTIME: &str =
        "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3588";
    const MODEL: &str = "I rkllm: rkllm-toolkit version: 1.2.3, max_context_limit: 4096, npu_core_num: 3, target_platform: RK3588, model_dtype: W8A8";
    const CONTEXT: &str =
        "E rkllm: max_context[8192] must be less than the model's max_context_limit[4096]";
    const TOO_LONG: &str = "E rkllm: the length of prompt is greater than max context (prompt: 1299 tokens, max context: 1020)";
    const VENDOR_LINES: [&str; 4] = [RUNTIME, MODEL, CONTEXT, TOO_LONG];

    fn facts(line: &str) -> RuntimeFacts {
        let mut facts = RuntimeFacts::default();
        read_facts(&[line.to_owned()], &mut facts);
        facts
    }

    /// Whether anything but "an error was printed" is taken from a line.
    fn says_something(line: &str) -> bool {
        let lines = [line.to_owned()];
        facts(line) != RuntimeFacts::default()
            || context_limit(&lines).is_some()
            || prompt_too_long(&lines).is_some()
    }

    /// Lines that hold a vendor's line, or parts of one, in something else: a path, a user's text.
    #[test]
    fn a_line_within_a_line_says_nothing() {
        for vendor in VENDOR_LINES {
            assert!(says_something(vendor), "{vendor}");
            for around in [
                format!("the user said {vendor}"),
                format!(" {vendor}"),
                format!("I rkllm: loading rkllm model from /m/{vendor}.rkllm"),
                format!("E rkllm: cannot open {vendor}"),
                format!("I rkllm: {vendor}"),
                vendor.replacen("rkllm: ", "", 1),
                vendor.to_uppercase(),
            ] {
                assert!(!says_something(&around), "{around}");
            }
        }
        for line in [
            "I rkllm: loading rkllm model from /m/x, platform: RK9999.rkllm",
            "I rkllm: platform: RK9999",
            "platform: RK9999",
            "rkllm: platform: RK9999",
            "max_context[1] max_context_limit[2]",
            "E rkllm: max_context[8192] must be less than the model's max_context_limit[lots]",
        ] {
            assert!(!says_something(line), "{line}");
        }
    }

    proptest! {
        #[test]
        fn text_before_a_vendors_line_takes_its_meaning(before in "[^\n]{1,30}", nth in 0usize..4) {
            let line = format!("{before}{}", VENDOR_LINES[nth]);
            prop_assert!(!says_something(&line), "{:?}", line);
        }

        #[test]
        fn a_damaged_vendors_line_never_panics_and_invents_no_number(
            nth in 0usize..4,
            at in any::<prop::sample::Index>(),
            instead in "\\PC{0,3}",
        ) {
            let vendor = VENDOR_LINES[nth];
            let at = at.index(vendor.len());
            let line = format!("{}{instead}{}", &vendor[..at], &vendor[at..]);
            let lines = [line.clone()];
            let read = facts(&line);
            let numbers = [
                read.max_context_limit,
                read.npu_core_num,
                context_limit(&lines),
                prompt_too_long(&lines).map(|long| long.prompt_tokens),
                prompt_too_long(&lines).map(|long| long.limit_tokens),
            ];
            for number in numbers.into_iter().flatten() {
                prop_assert!(line.contains(&number.to_string()), "{} is not in {:?}", number, line);
            }
        }

        #[test]
        fn no_line_panics(text in prop::collection::vec("\\PC{0,80}", 0..8)) {
            read_facts(&text, &mut RuntimeFacts::default());
            context_limit(&text);
            prompt_too_long(&text);
            first_error(&text);
        }
    }
}
