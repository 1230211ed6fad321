//! What models of each family write, and what is to be read of it.
//!
//! `¦` stands inside a text that reads like a marker and is none: it is taken out before the answer
//! is read, and keeps the text from becoming the marker's token.

mod own_forms;

use rkllmd::reply::{OpenedIn, ReplyFamily, ToolTypes};
use serde_json::json;

use super::{Said, call, call_with_id, reasoning, text};

pub struct Example {
    pub family: ReplyFamily,
    pub opened_in: OpenedIn,
    pub output: &'static str,
    pub said: Vec<Said>,
}

fn example(family: ReplyFamily, output: &'static str, said: Vec<Said>) -> Example {
    Example {
        family,
        opened_in: OpenedIn::Content,
        output,
        said,
    }
}

fn thinking(family: ReplyFamily, output: &'static str, said: Vec<Said>) -> Example {
    Example {
        opened_in: OpenedIn::Reasoning,
        ..example(family, output, said)
    }
}

pub fn types() -> ToolTypes {
    let schema = json!({"properties": {
        "place": {"type": "string"},
        "days": {"type": "integer"},
        "options": {"type": "object"},
        "exact": {"type": "boolean"},
        "near": {"$ref": "#/$defs/Spot"},
    }, "$defs": {"Spot": {"type": "object"}}});
    ToolTypes::new([("get_weather", schema.as_object()), ("now", None)])
}

fn hermes() -> Vec<Example> {
    use ReplyFamily::Hermes;
    vec![
        example(
            Hermes,
            "Hello <b>world</b>.",
            vec![text("Hello <b>world</b>.")],
        ),
        example(
            Hermes,
            "<think>\nShort.\n</think>\n\nHello.",
            vec![reasoning("Short."), text("Hello.")],
        ),
        example(
            Hermes,
            "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"place\": \"Z\\u00fcrich\",  \"days\":[1,[2]]}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
            vec![
                text("Let me see."),
                call(
                    "get_weather",
                    "{\"place\": \"Z\\u00fcrich\",  \"days\":[1,[2]]}",
                ),
                call("now", "{}"),
            ],
        ),
        // Quotes, braces and the closer inside a string.
        example(
            Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"</¦tool_call>{\\\\\", \"b\": \"😀\"}}\n</tool_call>",
            vec![call(
                "f",
                "{\"a\": \"}\\\"</tool_call>{\\\\\", \"b\": \"😀\"}",
            )],
        ),
        // Arguments before the name, an unknown key, and text behind.
        example(
            Hermes,
            "<tool_call>{\"type\": \"function\", \"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>\nDone.",
            vec![call("f", "{\"a\": 1}"), text("Done.")],
        ),
        // No closer, a list, two objects in one pair of markers, no arguments.
        example(
            Hermes,
            "<tool_call>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\"}]",
            vec![call("f", "{\"a\": 1}"), call("g", "{}")],
        ),
        example(
            Hermes,
            "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n{\"name\": \"g\", \"arguments\": {}}</tool_call>",
            vec![call("f", "{}"), call("g", "{}")],
        ),
        // A brace too few.
        example(
            Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>",
            vec![call("f", "{\"a\": 1}")],
        ),
        // The function inside, as OpenAI has it.
        example(
            Hermes,
            "<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"a\": {}}}}</tool_call>",
            vec![call("f", "{\"a\": {}}")],
        ),
        // A brace too many.
        example(
            Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}}\n</tool_call>",
            vec![call("f", "{}")],
        ),
        // The model ends its answer behind the arguments, or in them.
        example(
            Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}",
            vec![call("f", "{\"a\": 1}")],
        ),
        // A thought that a call ends, and one that nothing ends.
        example(
            Hermes,
            "<think>\nI call.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
            vec![reasoning("I call."), call("f", "{}")],
        ),
        thinking(
            Hermes,
            "So and so </thi",
            vec![reasoning("So and so </thi")],
        ),
        thinking(
            Hermes,
            "So.\n</think>\n</think>\n\nHi <¦think>.",
            vec![reasoning("So."), text("Hi <think>.")],
        ),
        example(Hermes, "</think>\n\nHi.", vec![text("Hi.")]),
        example(Hermes, "  \n", vec![text("  \n")]),
        // White space before an answer is the answer's, before a call it says nothing.
        example(Hermes, "\n Hi", vec![text("\n Hi")]),
        example(
            Hermes,
            "\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n",
            vec![call("f", "{}")],
        ),
    ]
}

fn mistral() -> Vec<Example> {
    use ReplyFamily::{Mistral, MistralList};
    vec![
        example(
            MistralList,
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [\"]\"]}, \"id\": \"abcdefghi\"}, {\"name\": \"g\", \"arguments\": {}, \"id\": \"abcdefghj\"}]",
            vec![call("f", "{\"a\": [\"]\"]}"), call("g", "{}")],
        ),
        example(
            MistralList,
            "[TOOL_CALLS] [{\"id\": \"abcdefghi\", \"name\": \"f\", \"arguments\": {}}]",
            vec![call_with_id("abcdefghi", "f", "{}")],
        ),
        // An id behind a call says nothing; what nothing ends is none.
        example(
            MistralList,
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}, \"id\": \"abcdefghi}] It rains",
            vec![call("f", "{}"), text("\"id\": \"abcdefghi}] It rains")],
        ),
        example(
            Mistral,
            "I see.[TOOL_CALLS]get_weather[ARGS]{\"place\": \"[¦ARGS]\"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}",
            vec![
                text("I see."),
                call("get_weather", "{\"place\": \"[ARGS]\"}"),
                call_with_id("abcdefghi", "now", "{}"),
            ],
        ),
        example(
            Mistral,
            "[THINK]Well.[/THINK][TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]",
            vec![reasoning("Well."), call("f", "{}")],
        ),
        example(
            Mistral,
            "[TOOL_CALLS]f{\"a\": 1}",
            vec![call("f", "{\"a\": 1}")],
        ),
        // Its prompts open no thought.
        example(
            Mistral,
            "It ends with [/¦THINK], see.",
            vec![text("It ends with [/THINK], see.")],
        ),
        example(
            Mistral,
            "See [1] and [TOOL].",
            vec![text("See [1] and [TOOL].")],
        ),
    ]
}

fn qwen3_coder() -> Vec<Example> {
    use ReplyFamily::Qwen3Coder;
    vec![
        example(
            Qwen3Coder,
            "I look.\n<tool_call>\n<function=get_weather>\n<parameter=place>\n\"Zürich\"\n</¦tool_call>\n\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=options>\n{\"a\": [1, \"<\"]}\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n</function>\n</tool_call>",
            vec![
                text("I look."),
                call(
                    "get_weather",
                    "{\"place\": \"\\\"Zürich\\\"\\n</tool_call>\\n\", \"days\": 3, \"options\": {\"a\": [1, \"<\"]}, \"exact\": true}",
                ),
            ],
        ),
        // Without the outer markers, without parameters, and a value that is not what it should be.
        example(
            Qwen3Coder,
            "<function=now>\n</function>\n<function=get_weather>\n<parameter=days>\nmany\n</parameter>\n</function>\n</tool_call>",
            vec![
                call("now", "{}"),
                call("get_weather", "{\"days\": \"many\"}"),
            ],
        ),
        thinking(
            Qwen3Coder,
            "Now?\n</think>\n\n<tool_call>\n<function=unknown>\n<parameter=n>\n42\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
            vec![
                reasoning("Now?"),
                call("unknown", "{\"n\": \"42\"}"),
                call("now", "{}"),
            ],
        ),
        example(
            Qwen3Coder,
            "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
            vec![call("now", "{}")],
        ),
        // An object whose schema stands elsewhere.
        example(
            Qwen3Coder,
            "<tool_call>\n<function=get_weather>\n<parameter=near>\n{\"a\": 1}\n</parameter>\n</function>\n</tool_call>",
            vec![call("get_weather", "{\"near\": {\"a\": 1}}")],
        ),
        // The lines of a value are its own, but for those around it.
        example(
            Qwen3Coder,
            "<tool_call>\n<function=f>\n<parameter=a>\n\n# Title\n\n</parameter>\n</function>\n</tool_call>",
            vec![call("f", "{\"a\": \"\\n# Title\\n\"}")],
        ),
        // A parameter that is not closed ends where its call does and another begins.
        example(
            Qwen3Coder,
            "<tool_call>\n<function=f>\n<parameter=a>\nabc\n</tool_call>\n<tool_call>\n<function=g>\n<parameter=b>\nx\n</parameter>\n</function>\n</tool_call>",
            vec![call("f", "{\"a\": \"abc\"}"), call("g", "{\"b\": \"x\"}")],
        ),
        example(
            Qwen3Coder,
            "<tool_call>\n<function=f>\n<parameter=a>\nabc\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n<parameter=b>\nx\n</function>\n</tool_call>",
            vec![call("f", "{\"a\": \"abc\"}"), call("g", "{\"b\": \"x\"}")],
        ),
        example(
            Qwen3Coder,
            "<tool_call>\n<function=f>\n<parameter=a>\nabc\n</tool_call>\n",
            vec![call("f", "{\"a\": \"abc\"}")],
        ),
        // The end of a function is missing: what its parameters' closers prove is there.
        example(
            Qwen3Coder,
            "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n",
            vec![call("f", "{\"a\": \"1\"}")],
        ),
        example(
            Qwen3Coder,
            "<tool_call>\n<function=f>\n<parameter=a>\n1",
            vec![call("f", "{\"a\": \"1\"}")],
        ),
    ]
}

fn deepseek() -> Vec<Example> {
    use ReplyFamily::DeepseekR1;
    vec![
        thinking(
            DeepseekR1,
            "Hm.\n</think>\n\nOne moment.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"place\": \"```\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            vec![
                reasoning("Hm."),
                text("One moment."),
                call("get_weather", "{\"place\": \"```\"}"),
                call("now", "{}"),
            ],
        ),
        thinking(
            DeepseekR1,
            "Only thoughts",
            vec![reasoning("Only thoughts")],
        ),
    ]
}

fn llama() -> Vec<Example> {
    use ReplyFamily::Llama3;
    vec![
        example(
            Llama3,
            "{\"name\": \"get_weather\", \"parameters\": {\"place\": \"<|¦python_tag|>\"}}",
            vec![call("get_weather", "{\"place\": \"<|python_tag|>\"}")],
        ),
        example(
            Llama3,
            "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": [{}]}}",
            vec![call("f", "{\"a\": [{}]}")],
        ),
        example(
            Llama3,
            "<|python_tag|>brave_search.call(query=\"a \\\"b\\\"\")",
            vec![call("brave_search", "{\"query\": \"a \\\"b\\\"\"}")],
        ),
        example(
            Llama3,
            "\n[{\"name\": \"f\", \"parameters\": {}}, {\"name\": \"g\", \"parameters\": {\"b\": 1}}]",
            vec![call("f", "{}"), call("g", "{\"b\": 1}")],
        ),
        example(
            Llama3,
            "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
            vec![call("f", "{}"), call("g", "{}")],
        ),
        // An answer in JSON is none.
        example(
            Llama3,
            "{\"name\": \"Ada\", \"born\": 1815}",
            vec![text("{\"name\": \"Ada\", \"born\": 1815}")],
        ),
        example(
            Llama3,
            "{\"name\": \"Ada\"} it is",
            vec![text("{\"name\": \"Ada\"} it is")],
        ),
        example(Llama3, "{\"name\": \"now\"}", vec![call("now", "{}")]),
        example(Llama3, "{1, 2} is a set", vec![text("{1, 2} is a set")]),
        example(Llama3, "[1, 2] is a list", vec![text("[1, 2] is a list")]),
        example(Llama3, "[[\"a\"]]", vec![text("[[\"a\"]]")]),
        example(Llama3, "{\"na", vec![text("{\"na")]),
        example(Llama3, " [", vec![text(" [")]),
        example(
            Llama3,
            "So: {\"name\": \"f\", \"parameters\": {}}",
            vec![text("So: {\"name\": \"f\", \"parameters\": {}}")],
        ),
    ]
}

pub fn examples() -> Vec<Example> {
    [
        hermes(),
        mistral(),
        qwen3_coder(),
        deepseek(),
        llama(),
        own_forms::gemma(),
        own_forms::lists_in_markers(),
        own_forms::python(),
        own_forms::tags(),
        own_forms::gpt_oss(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
