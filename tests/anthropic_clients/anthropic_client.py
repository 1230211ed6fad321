"""A session of the official `anthropic` package, unchanged, with a daemon.

Usage: anthropic_client.py HOST KEY MODEL ARGUMENTS REAL
MODEL answers "both" with a thought and calls of `f`, with ARGUMENTS, and of `g`, their results with "All done.",
and "slow" with "one two three four five "; REAL is a model whose tokens are known and whose answers are kept to
formats. `claude-3-5-haiku-latest` is another name of MODEL.
"""

import json
import sys

import anthropic
from anthropic.types import Message, ModelInfo, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

host, key, model, expected, real = sys.argv[1:]
expected = json.loads(expected)
client = anthropic.Anthropic(base_url=host, api_key=key, max_retries=0, timeout=60)
answer = "one two three four five "
slow = {"role": "user", "content": "slow"}
both = {"role": "user", "content": "both"}
tools = [
    {"name": name, "description": "Does it", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}
    for name in ("f", "g")
]
events = TypeAdapter(RawMessageStreamEvent)


def known(value):
    """All of it has its place in the package's types."""
    if isinstance(value, BaseModel):
        assert not value.model_extra, value
        for name in type(value).model_fields:
            known(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            known(item)


def checked(message):
    message = message.to_dict()
    known(Message.model_validate(message))
    return message["content"], message["stop_reason"]


def ask(*messages, **more):
    return client.messages.create(**{"model": model, "max_tokens": 200, "messages": list(messages), **more})


def prompt_of(usage):
    """Tokens of the prompt; of those that a slot still held it may not be known how many they were."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0)


# What is there.
[listed] = [entry for entry in client.models.list() if entry.id == model]
known(ModelInfo.model_validate(listed.to_dict()))
assert listed.display_name == model and listed.created_at.year >= 2020 and listed.max_input_tokens > 0, listed
assert client.models.retrieve(model).id == model
assert client.models.retrieve("claude-3-5-haiku-latest").id == model

# A message, whole and streamed.
whole = ask(slow, extra_body={"temperature": 0}, metadata={"user_id": "u"}, system="be kind")
assert checked(whole) == ([{"type": "text", "text": answer}], "end_turn"), whole
assert (whole.model, whole.role) == (model, "assistant") and whole._request_id.startswith("req_"), whole
# The token that ends the answer may be one of them.
assert whole.usage.output_tokens in (5, 6) and whole.usage.input_tokens > 0, whole
again = ask(slow, system="be kind").usage
assert prompt_of(again) == prompt_of(whole.usage), (again, whole.usage)
with client.messages.stream(model="claude-3-5-haiku-latest", max_tokens=200, messages=[slow]) as stream:
    assert "".join(stream.text_stream) == answer
    final = stream.get_final_message()
assert checked(final) == checked(whole), final
assert final.usage.output_tokens == whole.usage.output_tokens, final
names = []
for event in ask(slow, stream=True):
    known(events.validate_python(event.to_dict()))
    names.append(event.type)
assert names[:2] == ["message_start", "content_block_start"] and names[-1] == "message_stop", names
assert names[-3:-1] == ["content_block_stop", "message_delta"], names

# What ends an answer.
stopped = ask(slow, stop_sequences=["five", "three"])
assert checked(stopped) == ([{"type": "text", "text": "one two "}], "stop_sequence"), stopped
assert stopped.stop_sequence == "three", stopped
cut = ask(slow, max_tokens=2)
assert checked(cut) == ([{"type": "text", "text": "one two "}], "max_tokens"), cut
begun = ask(slow, {"role": "assistant", "content": "one two "})
assert begun.content[0].text, begun

# An agent's loop with two calls at once, and thoughts.
thinking = {"type": "enabled", "budget_tokens": 1024}
for streamed in (False, True):
    if streamed:
        with client.messages.stream(
            model=model, max_tokens=2000, messages=[both], tools=tools, thinking=thinking
        ) as stream:
            asked = stream.get_final_message()
    else:
        asked = ask(both, max_tokens=2000, tools=tools, thinking=thinking)
    _, reason = checked(asked)
    assert reason == "tool_use", asked
    thought, *said, f, g = asked.content
    assert (thought.type, thought.thinking) == ("thinking", "so") and thought.signature, asked
    assert "".join(block.text for block in said).strip() == "Let me see.", asked
    assert (f.type, f.name, f.input) == ("tool_use", "f", expected), asked
    assert (g.type, g.name, g.input) == ("tool_use", "g", {"text": "x"}), asked
    assert asked.usage.output_tokens_details.thinking_tokens > 0, asked.usage
    results = [
        {"type": "tool_result", "tool_use_id": g.id, "content": [{"type": "text", "text": "first of g"}]},
        {"type": "tool_result", "tool_use_id": f.id, "content": "first of f", "is_error": True},
        {"type": "text", "text": "and now?", "cache_control": {"type": "ephemeral"}},
    ]
    turns = [both, {"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
    last = ask(*turns, tools=tools, thinking={"type": "disabled"})
    assert checked(last) == ([{"type": "text", "text": "All done."}], "end_turn"), last
single = ask(both, tools=tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
assert [block.name for block in single.content if block.type == "tool_use"] == ["f"], single
hidden = ask(both, max_tokens=2000, tools=tools, thinking={"type": "adaptive", "display": "omitted"})
assert hidden.content[0].thinking == "" and hidden.content[0].signature, hidden

# A stream ends with what its prompt had.
hello = {"role": "user", "content": "Say hello."}
with client.messages.stream(model=real, system="Be kind.", max_tokens=3, messages=[hello]) as stream:
    said = stream.get_final_message()
assert prompt_of(said.usage) > 5 and said.usage.output_tokens == 3, said


# An answer of a form, and a call that is required.
class Lamp(BaseModel):
    on: bool


formed = client.messages.parse(
    model=real, max_tokens=50, messages=[{"role": "user", "content": "Is the lamp on?"}], output_format=Lamp
)
assert isinstance(formed.parsed_output, Lamp), formed

# What is refused.
wrong = {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]}
refusals = [
    (lambda: ask(slow, model="no-such-model"), anthropic.NotFoundError, "not_found_error", "no-such-model"),
    (lambda: ask(slow, extra_body={"temperature": 9}), anthropic.BadRequestError, "invalid_request_error", "temperature"),
    (lambda: ask(wrong), anthropic.BadRequestError, "invalid_request_error", "does not support images"),
    (lambda: ask(), anthropic.BadRequestError, "invalid_request_error", "messages"),
    (lambda: list(ask(slow, model="no-such-model", stream=True)), anthropic.NotFoundError, "not_found_error", "does not exist"),
    (lambda: client.messages.count_tokens(model=model, messages=[slow]), anthropic.BadRequestError, "invalid_request_error", "tokenizer"),
    (lambda: ask({"role": "user", "content": "long " * 20000}, model=real), anthropic.BadRequestError, "invalid_request_error", "prompt is too long: "),
    (lambda: client.models.retrieve("no-such-model"), anthropic.NotFoundError, "not_found_error", "does not exist"),
    (
        lambda: anthropic.Anthropic(base_url=host, api_key="wrong", max_retries=0).messages.create(
            model=model, max_tokens=1, messages=[slow]
        ),
        anthropic.AuthenticationError,
        "authentication_error",
        "key",
    ),
]
for refused, kind, name, words in refusals:
    try:
        refused()
    except kind as error:
        assert error.type == name and words in error.api_message, error
        assert error.request_id == error.body["request_id"], error
    else:
        raise AssertionError(f"nothing was refused with {words}")

# A worker that fails in the middle of an answer that may not go on.
try:
    with client.messages.stream(model=model, max_tokens=200, messages=[{"role": "user", "content": "die"}]) as stream:
        heard = "".join(stream.text_stream)
except anthropic.APIStatusError as error:
    assert error.type == "api_error", error
else:
    raise AssertionError(f"a dead worker said {heard}")

print("whole session ok")
