//! Of families whose calls are no JSON, or stand in lists.

use rkllmd::reply::ReplyFamily;

use super::{Example, example, thinking};
use crate::reply_support::{call, reasoning, text};

pub(super) fn gemma() -> Vec<Example> {
    use ReplyFamily::{Functiongemma, Gemma4, Generic};
    vec![
        example(
            Gemma4,
            "<|channel>thought\nI look it up.\n<channel|><|tool_call>call:get_weather{days:3,options:{a:[1,true,<|\"|>x<|\"|>],b:null},place:<|\"|>a \"b\"\n{<tool_call¦|><|\"|>}<tool_call|><|tool_call>call:now{}<tool_call|>",
            vec![
                reasoning("I look it up."),
                call(
                    "get_weather",
                    "{\"days\":3,\"options\":{\"a\":[1,true,\"x\"],\"b\":null},\"place\":\"a \\\"b\\\"\\n{<tool_call|>\"}",
                ),
                call("now", "{}"),
            ],
        ),
        example(
            Gemma4,
            "<|channel>thought\n<channel|>Hello.",
            vec![text("Hello.")],
        ),
        example(Gemma4, "Hello.", vec![text("Hello.")]),
        example(
            Gemma4,
            "<|tool_call>call:f{a:<|\"|>cut",
            vec![call("f", "{\"a\":\"cut\"}")],
        ),
        example(
            Functiongemma,
            "<start_function_call>call:get_weather{place:<escape>Zürich<escape>,days:2}<end_function_call><start_function_call>call:now{}<end_function_call>",
            vec![
                call("get_weather", "{\"place\":\"Zürich\",\"days\":2}"),
                call("now", "{}"),
            ],
        ),
        example(
            Functiongemma,
            "I look.<start_function_call>call:f{a:[1,<escape>x}<escape>]}<end_function_call>",
            vec![text("I look."), call("f", "{\"a\":[1,\"x}\"]}")],
        ),
        example(Functiongemma, "Hello.", vec![text("Hello.")]),
        // Gemma 3 knows no form; the prompt describes one.
        example(
            Generic,
            "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
            vec![call("now", "{}")],
        ),
        example(
            Generic,
            "{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
            vec![call("f", "{\"a\": 1}")],
        ),
    ]
}

pub(super) fn lists_in_markers() -> Vec<Example> {
    use ReplyFamily::{Granite3, Internlm2, Phi4Mini};
    vec![
        example(
            Phi4Mini,
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": [1, \"]\"]}}]<|/tool_call|>",
            vec![call("f", "{\"a\": [1, \"]\"]}")],
        ),
        example(
            Phi4Mini,
            "functools[{\"name\": \"f\", \"arguments\": {\"a\": [[1], [2]]}}, {\"name\": \"g\", \"arguments\": {}}]",
            vec![call("f", "{\"a\": [[1], [2]]}"), call("g", "{}")],
        ),
        example(
            Phi4Mini,
            "In func and tools.",
            vec![text("In func and tools.")],
        ),
        example(
            Granite3,
            "<think>Well.</think><response>Now.</response><|tool_call|>[{\"name\": \"f\", \"arguments\": {}}]",
            vec![reasoning("Well."), text("Now."), call("f", "{}")],
        ),
        example(
            Granite3,
            "I look.<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": [[1], [\"]\"]]}}, {\"name\": \"g\", \"arguments\": {}}]",
            vec![
                text("I look."),
                call("f", "{\"a\": [[1], [\"]\"]]}"),
                call("g", "{}"),
            ],
        ),
        example(Granite3, "Hello.", vec![text("Hello.")]),
        example(
            Internlm2,
            "<|action_start|><|plugin|>\n{\"name\": \"f\", \"parameters\": {\"a\": [[1], \"]}\"]}}<|action_end|>\n",
            vec![call("f", "{\"a\": [[1], \"]}\"]}")],
        ),
        example(Internlm2, "Hello.", vec![text("Hello.")]),
        example(
            Internlm2,
            "I act.<|action_start|><|plugin|>\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}<|action_end|>\n",
            vec![text("I act."), call("f", "{\"a\": 1}")],
        ),
    ]
}

pub(super) fn python() -> Vec<Example> {
    use ReplyFamily::Lfm2;
    vec![
        example(
            Lfm2,
            "<|tool_call_start|>[get_weather(place=\"Zürich\", days=2), f(a='it\\'s \"so\"', b=[1, None, {'c': (True, -1.5e3)}], d=\"\\x41\\u00e9\\n\\z\"), now()]<|tool_call_end|>Checking.",
            vec![
                call("get_weather", "{\"place\": \"Zürich\", \"days\": 2}"),
                call(
                    "f",
                    "{\"a\": \"it's \\\"so\\\"\", \"b\": [1, null, {\"c\": [true, -1.5e3]}], \"d\": \"Aé\\n\\\\z\"}",
                ),
                call("now", "{}"),
                text("Checking."),
            ],
        ),
        example(
            Lfm2,
            "<think>Hm.</think><|tool_call_start|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]<|tool_call_end|>",
            vec![reasoning("Hm."), call("f", "{\"a\": 1}")],
        ),
        example(
            Lfm2,
            "<|tool_call_start|>[f(a=\")]<|tool_call_end¦|>\")]<|tool_call_end|>",
            vec![call("f", "{\"a\": \")]<|tool_call_end|>\"}")],
        ),
        // Quotes in threes.
        example(
            Lfm2,
            "<|tool_call_start|>[f(a=\"\"\"He said \"hi\" to \"\" me.\"\"\", b=\"\", c='''it's\\n\n''', d=['', \"\"\"\"\"\", \"\"\"\"x\"\"\"\"])]<|tool_call_end|>",
            vec![call(
                "f",
                "{\"a\": \"He said \\\"hi\\\" to \\\"\\\" me.\", \"b\": \"\", \"c\": \"it's\\n\\n\", \"d\": [\"\", \"\", \"\\\"x\\\"\"]}",
            )],
        ),
        example(
            Lfm2,
            "<|tool_call_start|>[f(a=r\"\"\"\\d\"\"\")]<|tool_call_end|>",
            vec![call("f", "{\"a\": \"\\\\d\"}")],
        ),
        example(
            Lfm2,
            "<|tool_call_start|>[f(1, x, a=y z)]<|tool_call_end|>",
            vec![call("f", "{\"0\": 1, \"1\": \"x\", \"a\": \"y z\"}")],
        ),
        example(
            Lfm2,
            "<|tool_call_start|>[f(a=[\"b\"<|tool_call_end|>",
            vec![call("f", "{\"a\": [\"b\"]}")],
        ),
    ]
}

pub(super) fn tags() -> Vec<Example> {
    use ReplyFamily::{Glm4, Minicpm5};
    vec![
        thinking(
            Minicpm5,
            "So.\n</think>\n\n<function name=\"get_weather\"><param name=\"place\"><![CDATA[a </¦param> <b>]]></param><param name=\"days\">3</param></function>\n<function name=\"now\"></function>",
            vec![
                reasoning("So."),
                call(
                    "get_weather",
                    "{\"place\": \"a </param> <b>\", \"days\": 3}",
                ),
                call("now", "{}"),
            ],
        ),
        example(
            Minicpm5,
            "<function name=\"f\"><param name=\"a\"><![CDATA[\n# Title\n]]></param><param name=\"b\">\nx\n</param></function>",
            vec![call("f", "{\"a\": \"\\n# Title\\n\", \"b\": \"\\nx\\n\"}")],
        ),
        example(
            Minicpm5,
            "<function name=\"f\"><param name=\"a\">abc</function>\n<function name=\"g\"><param name=\"b\">x</param></function>",
            vec![call("f", "{\"a\": \"abc\"}"), call("g", "{\"b\": \"x\"}")],
        ),
        example(
            Glm4,
            "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>\n# Title\n</arg_value>\n</tool_call>",
            vec![call("f", "{\"a\": \"\\n# Title\\n\"}")],
        ),
        example(
            Glm4,
            "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>abc</tool_call>\n<tool_call>g\n<arg_key>b</arg_key>\n<arg_value>x</tool_call>",
            vec![call("f", "{\"a\": \"abc\"}"), call("g", "{\"b\": \"x\"}")],
        ),
        example(
            Glm4,
            "<think>Both.</think>\nI ask.\n<tool_call>get_weather\n<arg_key>place</arg_key>\n<arg_value>A</¦tool_call></arg_value>\n<arg_key>options</arg_key>\n<arg_value>{\"a\": 1}</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
            vec![
                reasoning("Both."),
                text("I ask."),
                call(
                    "get_weather",
                    "{\"place\": \"A</tool_call>\", \"options\": {\"a\": 1}}",
                ),
                call("now", "{}"),
            ],
        ),
        example(
            Glm4,
            "<tool_call>get_weather<arg_key>days</arg_key><arg_value>2</arg_value></tool_call><tool_call>now</tool_call>",
            vec![call("get_weather", "{\"days\": 2}"), call("now", "{}")],
        ),
    ]
}

pub(super) fn gpt_oss() -> Vec<Example> {
    use ReplyFamily::GptOss;
    vec![
        example(
            GptOss,
            "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"place\": \"}<|¦call|>\"}<|call|>",
            vec![
                reasoning("Think."),
                text("I look."),
                call("get_weather", "{\"place\": \"}<|call|>\"}"),
            ],
        ),
        example(
            GptOss,
            "<|channel|>final<|message|>Hello.<|return|>",
            vec![text("Hello.")],
        ),
        example(
            GptOss,
            " to=functions.now<|channel|>commentary json<|message|>{}<|call|>",
            vec![call("now", "{}")],
        ),
        example(
            GptOss,
            "<|channel|>commentary to=functions.f<|message|>{\"a\": 1<|end|>",
            vec![call("f", "{\"a\": 1")],
        ),
        example(GptOss, "Plain.", vec![text("Plain.")]),
    ]
}
