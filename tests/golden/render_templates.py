#!/usr/bin/env python3
"""Renders conversations with every chat template of a folder as transformers does, to stdout.

scripts/fetch-chat-templates runs it. Where rkllmd means to differ from transformers, what it means
to do is written here: system texts of templates that have no place for them are folded into the
next user turn (make_goldens.forms), neighbours of one role are merged where the template refuses
them, a greeting gets an empty question before it, several calls of one answer become several answers,
and strftime_now has a fixed clock.
"""

import datetime
import json
import os
import pathlib
import sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"

import jinja2
import transformers
from transformers.utils import chat_template_utils

from make_goldens import NOW, assistant, forms, system, user

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a <place> & \"time\"",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where, e.g. Zürich"},
                "days": {"type": "integer", "default": 1},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "now",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def calls(content, *arguments, **fields):
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {
                "id": f"call0000{index}",
                "type": "function",
                "function": {"name": "get_weather", "arguments": one},
            }
            for index, one in enumerate(arguments)
        ],
        **fields,
    }


def result(index, content):
    return {
        "role": "tool",
        "name": "get_weather",
        "tool_call_id": f"call0000{index}",
        "content": content,
    }


ASKED = [system("You are brief."), user("How is the weather in Zürich?")]
THOUGHT = "<think>\nTwo and two\nis four.\n</think>\n\nIt is 4."
TOOLS = [WEATHER, CLOCK]
# Title, messages, tools, variables.
CONVERSATIONS = [
    ("one question", [user("What is the capital of France?")], None, {}),
    ("system", [system("You are brief."), user("Hello!")], None, {}),
    (
        "several turns",
        [
            system("Be kind."),
            user("Hi"),
            assistant("Hello, how can I help?"),
            user("  Tell me a joke.\n"),
            assistant("No.\n"),
            user("Please! 日本語 <b>&amp;</b> {{ not }}"),
        ],
        None,
        {},
    ),
    ("a thought in the text", [user("2+2?"), assistant(THOUGHT), user("And 3+3?")], None, {}),
    (
        "a thought in its field",
        [user("2+2?"), {**assistant("It is 4."), "reasoning_content": "Easy."}, user("And 3+3?")],
        None,
        {},
    ),
    ("thinking on", [system("Be brief."), user("Hi")], None, {"enable_thinking": True}),
    ("thinking off", [system("Be brief."), user("Hi /no_think")], None, {"enable_thinking": False}),
    ("tools", ASKED, TOOLS, {}),
    ("tools, no system", [user("Hi")], [CLOCK], {}),
    (
        "a tool was called",
        [*ASKED, calls("", {"place": "Zürich", "days": 2}), result(0, "{\"sun\": true}")],
        TOOLS,
        {},
    ),
    (
        "a tool was called and answered",
        [
            *ASKED,
            calls("I look.", {"place": "Zürich"}),
            result(0, "rain"),
            assistant("It rains."),
            user("Thanks"),
        ],
        TOOLS,
        {},
    ),
    (
        "arguments as text",
        [*ASKED, calls("", "{\"place\": \"Zürich\"}"), result(0, "rain")],
        TOOLS,
        {},
    ),
    (
        "two calls after a thought",
        [
            *ASKED,
            calls("", {"place": "A"}, {"place": "B"}, reasoning_content="Both."),
            result(0, "rain"),
            result(1, "sun"),
        ],
        TOOLS,
        {},
    ),
    ("an answer to continue", [user("Count to five."), assistant("One, two, ")], None, {}),
    (
        "a later answer to continue",
        [system("Go on."), user("Hi"), assistant("Yes?"), user("Count."), assistant("One,\ntwo")],
        None,
        {},
    ),
    ("two user turns", [user("One."), user("Two.")], None, {}),
    ("a greeting", [assistant("Welcome!"), user("Hi")], None, {}),
    (
        "system in the middle",
        [user("Hi"), assistant("Hello"), system("Rhyme."), user("What is new?")],
        None,
        {},
    ),
]


# Conversations as clients of OpenAI's API send them: `told` says what becomes of them.
ODD = {
    "type": "function",
    "function": {
        "name": "odd-Fn_9",
        "description": "Zürich, \"quotes\", </tools> & {braces}\nand lines\t. 👩‍👩‍👧",
        "parameters": {
            "type": "object",
            "properties": {
                "любой": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "list": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                "two": {"type": ["string", "null"], "enum": ["a", None], "description": ""},
                "deep": {
                    "type": "object",
                    "properties": {"x": {"type": "number", "minimum": -0.5, "maximum": 1e21}},
                    "additionalProperties": False,
                },
            },
            "required": [],
            "$defs": {"z": {"const": 18446744073709551615}},
        },
    },
}
NUMBERS = """{"id": 12345678901234567890123, "less": -98765432109876543210, "most": 18446744073709551615,
 "least": -9223372036854775808, "zero": -0, "negative zero": -0.0, "hundred": 1e2, "one": 1.0,
 "tenth": 0.1, "small": 1e-7, "large": 1.7976931348623157e308, "long": 0.1000000000000000055511151231,
 "sixteen": 1234567890123456.5, "list": [0, 100000000000000000000, [2e0]]}"""
NESTED = """{"text": "a\\"b\\\\c\\/d\\n\\t\\u00fc\\ud83d\\ude00 </tool_call> <|im_end|x {{ a }} {% b %}",
 "o": {"": [], " ": {}, "n": [null, true, false, [[1]]]}, "ключ": "значение 日本語", "s2": "12", "s3": "true",
 "s4": "{\\"a\\": 1}", "s5": "", "s6": "  \\n ", "dup": 1, "dup": 2}"""


def asked(*arguments, content=None, names=("get_weather", "now", "odd-Fn_9"), first=0, **fields):
    """An answer with calls, whose arguments are JSON text."""
    calls = [
        {
            "id": f"call0000{first + index}",
            "type": "function",
            "function": {"name": names[index % len(names)], "arguments": one},
        }
        for index, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls, **fields}


def got(index, content):
    return {"role": "tool", "tool_call_id": f"call0000{index}", "content": content}


PARIS = "{\"place\": \"Paris\"}"
QUESTION = user("How is the weather?")
# Title, messages, tools, variables.
DIALOGUES = [
    ("results in another order", [QUESTION, asked(PARIS, "{}"), got(1, "noon"), got(0, "rain")], TOOLS, {}),
    ("numbers", [QUESTION, asked(NUMBERS), got(0, "1e2"), user("And?")], TOOLS, {}),
    ("nested values", [QUESTION, asked(NESTED), got(0, NESTED), user("And?")], TOOLS, {}),
    ("no arguments", [QUESTION, asked("{}", names=("now",)), got(0, ""), user("And?")], TOOLS, {}),
    (
        "three rounds",
        [
            system("Be brief."),
            QUESTION,
            asked(PARIS, reasoning_content="I look."),
            got(0, "rain"),
            asked("{}", content="And the time.", names=("now",), first=1, reasoning_content="It\nrains."),
            got(1, "noon\n"),
            asked(NESTED, names=("odd-Fn_9",), first=2),
            got(2, "  spaced  "),
            {**assistant("Rain at noon."), "reasoning_content": "Done."},
            user("Thanks"),
            assistant("Bye."),
            user("Wait"),
        ],
        [*TOOLS, ODD],
        {},
    ),
    (
        "a thought, a text and two calls",
        [QUESTION, asked(PARIS, NESTED, content="I look.\n", reasoning_content=" Both.\n"), got(0, "a"), got(1, "b")],
        TOOLS,
        {},
    ),
    ("calls that have no results yet", [QUESTION, asked(PARIS)], TOOLS, {}),
    ("one result of two", [QUESTION, asked(PARIS, "{}"), got(1, "noon"), user("And?")], TOOLS, {}),
    ("a result and a question", [QUESTION, asked(PARIS), got(0, "rain"), user("And tomorrow?")], TOOLS, {}),
    (
        "an answer to continue after a result",
        [QUESTION, asked(PARIS), got(0, "rain"), assistant("It ra")],
        TOOLS,
        {},
    ),
    (
        "an answer with its thought to continue",
        [user("2+2?"), {**assistant("It is"), "reasoning_content": "Easy."}],
        None,
        {},
    ),
    ("calls without functions", [QUESTION, asked(PARIS), got(0, "rain"), user("And?")], None, {}),
    ("an odd function", [user("Hi")], [ODD, {"type": "function", "function": {"name": "bare"}}], {}),
    ("two questions before a call", [user("Hi"), QUESTION, asked(PARIS), got(0, "rain")], TOOLS, {}),
    (
        "an answer before its calls",
        [QUESTION, assistant("I look."), asked(PARIS, content=""), got(0, "rain")],
        TOOLS,
        {},
    ),
    (
        "a greeting, two questions, two answers",
        [assistant("Welcome!"), user("Hi"), user("How?"), assistant("Well"), assistant("and you?"), user("So")],
        None,
        {},
    ),
    (
        "system texts everywhere",
        [user("Hi"), system("One."), assistant("Ho"), system("Two."), user("So?"), system("Three.")],
        None,
        {},
    ),
    ("system before an answer to continue", [user("Hi"), system("In French."), assistant("Bon")], None, {}),
    (
        "system among calls",
        [QUESTION, asked(PARIS), system("Hurry."), got(0, "rain"), system("Rhyme."), user("And?")],
        TOOLS,
        {},
    ),
    (
        "parts",
        [
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
            {"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": ""}]},
            {"role": "assistant", "content": [{"type": "text", "text": "b\n"}]},
            {"role": "user", "content": []},
        ],
        None,
        {},
    ),
    ("names", [user("Who am I?", name="Ada Löve"), assistant("Ada."), user("And I?", name="Bob")], None, {}),
    ("empty contents", [system(""), user(""), assistant(""), user("Still there?")], None, {}),
    ("white space", [system(" \n"), user("\n\n"), assistant("\t"), user("  x\r\n")], None, {}),
    (
        "odd characters",
        [user("\u2028\u0085\u00a0x\u00a0 \ufeff\u200b\u0301\x1c\x7f ﬁ ß İ 👩‍👩‍👧 \U000e0041"), assistant("ÿ\u001f"), user("\x0b y")],
        None,
        {},
    ),
    (
        "markup of others",
        [
            user("<think>a</think> <user> <tool_call>\n{}\n</tool_call> <start_function_call>"),
            assistant("</think><think>\n</think>\n\n<tool_response>x</tool_response>"),
            user("<tool_response>\nno\n</tool_response>"),
        ],
        None,
        {},
    ),
]


def told(messages, are_objects):
    """What rkllmd makes of a conversation of OpenAI's API before a template sees it: texts of parts are
    lines, what is null is empty, results stand in the order of their calls and have their names."""
    out = []
    for message in messages:
        message = dict(message)
        content = message["content"]
        if isinstance(content, list):
            content = "\n".join(part["text"] for part in content)
        message["content"] = content or ""
        if message["role"] == "developer":
            message["role"] = "system"
        if "tool_calls" in message:
            names = {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
            if are_objects:
                message["tool_calls"] = [
                    {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
                    for call in message["tool_calls"]
                ]
        if message["role"] == "tool":
            message["name"] = names[message["tool_call_id"]]
        out.append(message)
    at = 0
    while at < len(out):
        end = at
        while end < len(out) and out[end]["role"] == "tool":
            end += 1
        if end > at:
            order = [call["id"] for call in next(m for m in reversed(out[:at]) if "tool_calls" in m)["tool_calls"]]
            out[at:end] = sorted(out[at:end], key=lambda result: order.index(result["tool_call_id"]))
        at = max(end, at + 1)
    return out


def described(tools):
    """A function that takes nothing says so."""
    nothing = {"type": "object", "properties": {}}
    return tools and [
        {**tool, "function": {**tool["function"], "parameters": tool["function"].get("parameters", nothing)}}
        for tool in tools
    ]


class Refused(Exception):
    pass


def render(source, messages, tools, variables):
    is_open = messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages],
            tools=tools,
            chat_template=source,
            add_generation_prompt=not is_open,
            continue_final_message=is_open,
            **SPECIAL,
            **variables,
        )
    except jinja2.exceptions.TemplateError as error:
        # raise_exception raises this very class; its own failures are subclasses.
        if type(error) is jinja2.exceptions.TemplateError:
            raise Refused(str(error)) from error
        raise
    return rendered[0]


def shows_system(source):
    for tools in (None, TOOLS):
        try:
            shown = render(source, [system("system0probe"), user("question")], tools, {})
        except Refused:
            return False
        except Exception:
            # Some templates cannot do without tools.
            continue
        return "system0probe" in shown.lower()
    return False


def expected(source, has_system_turn, messages, tools, variables):
    tries = forms(messages, has_system_turn)
    refused = None
    for attempt in tries:
        try:
            return {"prompt": render(source, attempt, tools, variables)}
        except Refused as error:
            refused = refused or {"raised": str(error)}
        except ValueError as error:
            if "continue_final_message" in str(error):
                return {"not_continuable": True}
            return {"failed": repr(error)}
        except Exception as error:
            return {"failed": repr(error)}
    return refused


def main():
    cases, dialogues = [], []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        has_system_turn = shows_system(source)
        for title, messages, tools, variables in CONVERSATIONS:
            outcome = expected(source, has_system_turn, messages, tools, variables)
            cases.append(
                {
                    "template": path.stem,
                    "conversation": title,
                    "messages": messages,
                    "tools": tools,
                    "variables": variables,
                    "expected": outcome,
                }
            )
        for title, messages, tools, variables in DIALOGUES:
            with_objects, with_text = [
                expected(source, has_system_turn, told(messages, objects), described(tools), variables)
                for objects in (True, False)
            ]
            dialogues.append(
                {
                    "template": path.stem,
                    "conversation": title,
                    "messages": messages,
                    "tools": tools or [],
                    "variables": variables,
                    "with_objects": with_objects,
                    "with_text": with_text,
                }
            )
    oracle = {
        "transformers": transformers.__version__,
        "jinja2": jinja2.__version__,
        "now": NOW.isoformat(),
        "special": SPECIAL,
        "folder": str(pathlib.Path(sys.argv[1]).resolve()),
        "cases": cases,
        "dialogues": dialogues,
    }
    json.dump(oracle, sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
