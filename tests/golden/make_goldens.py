#!/usr/bin/env python3
"""Writes prompts.json, the prompts that rkllmd's chat templates are compared with byte for byte.

This is an independent oracle: Python's jinja2, set up as transformers' apply_chat_template sets it
up (sandboxed, trim_blocks, lstrip_blocks, loop controls, tojson, raise_exception, strftime_now,
generation blocks, continue_final_message). It shares no code with rkllmd, only the template texts.

To write the file again, with the jinja2 version that it names:

    pip install jinja2==3.1.6
    python3 tests/golden/make_goldens.py

The output depends on nothing but this script and the templates; `--check` compares instead of
writing.
"""

import datetime
import json
import pathlib
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).resolve().parent
FAMILIES = HERE.parent.parent / "src" / "prompt" / "families"
OUTPUT = HERE / "prompts.json"
NOW = datetime.datetime(2025, 3, 9, 14, 5, 6)
END_MARK = "END_OF_THE_OPEN_MESSAGE "


class Generation(Extension):
    """`{% generation %}` marks text for training; rendering shows what is in it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


class Refused(Exception):
    """raise_exception was called."""


def raise_exception(message):
    raise Refused(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def compile_template(text):
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env.from_string(text)


def apply(template, messages, special, kwargs):
    """The prompt; a trailing assistant message is continued as transformers continues it."""
    messages = [dict(message) for message in messages]
    is_open = messages[-1]["role"] == "assistant"
    if is_open:
        messages[-1]["content"] += END_MARK
    prompt = template.render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=not is_open,
        **special,
        **kwargs,
    )
    if is_open:
        end = prompt.rindex(END_MARK.strip())
        keeps_white_space = prompt[end : end + len(END_MARK)] == END_MARK
        prompt = prompt[:end] if keeps_white_space else prompt[:end].rstrip()
        # A template may show a message twice; transformers would leave its mark there.
        prompt = prompt.replace(END_MARK, "").replace(END_MARK.strip(), "")
    return prompt


def fold(messages):
    """System text goes before the next user text, or stays where it is if there is none; for
    templates without a system turn."""
    folded, pending = [], []
    for message in messages:
        if message["role"] == "system":
            if message["content"].strip():
                pending.append((len(folded), message["content"]))
        elif message["role"] == "user":
            content = "\n\n".join([text for _, text in pending] + [message["content"]])
            folded.append({**message, "content": content})
            pending = []
        else:
            folded.append(message)
    added = 0
    for before, text in pending:
        at = before + added
        if at > 0 and folded[at - 1]["role"] == "user":
            folded[at - 1] = {**folded[at - 1], "content": joined(folded[at - 1], user(text))}
        else:
            folded.insert(at, user(text))
            added += 1
    return folded


def joined(*messages):
    return "\n\n".join(message["content"] for message in messages if message["content"])


def merge(messages):
    """Neighbours of one role, where the template wants roles to alternate."""
    merged = []
    for message in messages:
        last = merged[-1] if merged else {}
        more, last_more = ({key: m[key] for key in m if key not in ("role", "content")} for m in (message, last))
        is_one = last.get("role") == message["role"] and (
            (message["role"] == "user" and more == last_more)
            or (message["role"] == "assistant" and "tool_calls" not in last and not more.keys() & last_more)
        )
        if is_one:
            merged[-1] = {**last, **message, "content": joined(last, message)}
        else:
            merged.append(message)
    return merged


def one_call_an_answer(messages):
    """Each call has an answer of its own, with its result behind it."""
    split = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            split.append(message)
            continue
        for call in calls:
            split.append({**message, "tool_calls": [call]})
            message = {"role": "assistant", "content": ""}
            while rest and rest[0].get("tool_call_id") == call["id"]:
                split.append(rest.pop(0))
    return split


def begin_with_the_user(messages):
    """An answer that opens the conversation gets an empty question before it."""
    roles = [message["role"] for message in messages]
    first = next((at for at, role in enumerate(roles) if role != "system"), None)
    if first is not None and roles[first] == "assistant":
        return [*messages[:first], user(""), *messages[first:]]
    return messages


def forms(messages, has_system_turn):
    """What is tried in turn until the template refuses none."""
    has_system = any(message["role"] == "system" for message in messages)
    tries = [messages] if has_system_turn or not has_system else []
    if has_system:
        tries.append(fold(messages))
    merged = merge(tries[-1])
    opened = begin_with_the_user(merged)
    return [*tries, merged, opened, one_call_an_answer(opened)]


CHATML = {"bos_token": "", "eos_token": "<|im_end|>"}
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
PHI3 = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
MISTRAL = {"bos_token": "<s>", "eos_token": "</s>"}
DEEPSEEK = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}

TEMPLATES = [
    ("family/chatml", FAMILIES / "chatml.jinja", CHATML),
    ("family/llama3", FAMILIES / "llama3.jinja", LLAMA3),
    ("family/gemma", FAMILIES / "gemma.jinja", GEMMA),
    ("family/phi3", FAMILIES / "phi3.jinja", PHI3),
    ("family/deepseek-r1", FAMILIES / "deepseek-r1.jinja", DEEPSEEK),
    ("family/zephyr", FAMILIES / "zephyr.jinja", MISTRAL),
    ("qwen3-like", HERE / "templates" / "qwen3-like.jinja", CHATML),
    ("llama3-dated", HERE / "templates" / "llama3-dated.jinja", LLAMA3),
    ("gemma-like", HERE / "templates" / "gemma-like.jinja", GEMMA),
    ("phi3-like", HERE / "templates" / "phi3-like.jinja", PHI3),
    ("mistral-like", HERE / "templates" / "mistral-like.jinja", MISTRAL),
    ("deepseek-r1-like", HERE / "templates" / "deepseek-r1-like.jinja", DEEPSEEK),
    ("zephyr-like", HERE / "templates" / "zephyr-like.jinja", MISTRAL),
    ("language-tour", HERE / "templates" / "language-tour.jinja", CHATML),
]


def system(content):
    return {"role": "system", "content": content}


def user(content, **fields):
    return {"role": "user", "content": content, **fields}


def assistant(content):
    return {"role": "assistant", "content": content}


THOUGHT = "<think>\nTwo and two\nis four.\n</think>\n\nIt is 4."
CONVERSATIONS = {
    "one question": [user("What is the capital of France?")],
    "system": [system("You are brief."), user("Hello!")],
    "several turns": [
        system("Be kind."),
        user("Hi"),
        assistant("Hello, how can I help?"),
        user("Tell me a joke."),
        assistant("No."),
        user("Please!"),
    ],
    "unicode": [
        system("Antworte höflich. 🤖"),
        user("日本語で「こんにちは」 — naïve café, Ελληνικά, \u0928\u092e\u0938\u094d\u0924\u0947, 👩‍👩‍👧‍👦"),
    ],
    "empty contents": [system(""), user(""), assistant(""), user("Still there?")],
    "white space at the ends": [
        system("  spaced system \n"),
        user("\n\n  a question with space  \t\n"),
        assistant("  an answer  \n\n"),
        user(" again\r\n"),
    ],
    "markup in the text": [
        user("<b>&amp; \"quotes\" 'single' \\ back\\nslash {{ not }} {% a %} {# template #}"),
    ],
    "thoughts in history": [user("2+2?"), assistant(THOUGHT), user("And 3+3?")],
    "a name": [user("Who am I?", name="Ada")],
    "loop words": [user("first"), assistant("skip me"), user("stop here")],
    "an answer to continue": [user("Count to five."), assistant("One, two, ")],
    "an answer to continue, spaced": [
        system("Go on."),
        user("Count."),
        assistant("  One, two,  \n"),
    ],
    "an empty answer to continue": [user("Count."), assistant("")],
    "a repeated answer to continue": [user("Yes"), assistant("Yes"), user("Yes"), assistant("Yes")],
    "a thought to continue": [user("2+2?"), assistant("<think>\nTwo and")],
    "an answer after a thought to continue": [user("2+2?"), assistant(THOUGHT)],
    "system in the middle": [
        user("Hi"),
        assistant("Hello"),
        system("From now on rhyme."),
        user("What is new?"),
    ],
    "two user turns": [user("One."), user("Two.")],
    "a greeting": [assistant("Welcome!"), user("Hi")],
}
VARIABLES = {
    "no thinking": {"enable_thinking": False},
    "thinking": {"enable_thinking": True},
    "a date": {"date_string": "1 Jan 2030"},
    "nested": {
        "extra": {
            "z": [1, -2.5, 1e21, 0.00001, True, None, "ünïcode \u2028 \u0007 <tag> & 'x'"],
            "a": {"empty": [], "none": {}, "deep": [[{"k": "v"}]]},
            "n": 11,
        }
    },
}


def cases(name, path, special):
    template = compile_template(path.read_text(encoding="utf-8"))
    runs = [(title, messages, "", {}) for title, messages in CONVERSATIONS.items()]
    runs += [("system", CONVERSATIONS["system"], kw, VARIABLES[kw]) for kw in VARIABLES]
    for title, messages, variables, kwargs in runs:
        case = {
            "template": name,
            "conversation": title,
            "variables": variables,
            "messages": messages,
            "kwargs": kwargs,
        }
        probe = [system("system0probe"), user("question")]
        try:
            has_system_turn = "system0probe" in apply(template, probe, special, {})
        except Refused:
            has_system_turn = False
        for form in forms(messages, has_system_turn):
            try:
                case["prompt"] = apply(template, form, special, kwargs)
                case.pop("raised", None)
            except Refused as refused:
                case.setdefault("raised", str(refused))
                continue
            except ValueError:
                case["not_continuable"] = True
            break
        yield case


def main():
    golden = {
        "jinja2": jinja2.__version__,
        "now": NOW.isoformat(),
        "templates": [
            {"name": name, "file": str(path.relative_to(HERE.parent.parent)), **special}
            for name, path, special in TEMPLATES
        ],
        "cases": [case for template in TEMPLATES for case in cases(*template)],
    }
    text = json.dumps(golden, ensure_ascii=False, indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        if OUTPUT.read_text(encoding="utf-8") != text:
            sys.exit(f"{OUTPUT} is not what this script writes")
        return
    OUTPUT.write_text(text, encoding="utf-8")
    print(f"{len(golden['cases'])} cases with jinja2 {jinja2.__version__}")


if __name__ == "__main__":
    main()
