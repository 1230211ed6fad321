"""A session of litellm's `anthropic` provider, unchanged, with a daemon.

Usage: litellm_provider.py HOST KEY MODEL ARGUMENTS
The model answers as for `anthropic_client.py`.
"""

import json
import os
import sys

# It looks up prices otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

host, key, model, expected = sys.argv[1:]
expected = json.loads(expected)
answer = "one two three four five "
slow = [{"role": "user", "content": "slow"}]
both = [{"role": "user", "content": "both"}]
litellm.suppress_debug_info = True


def function(name):
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "Does it", "parameters": parameters}}


def ask(messages, of=model, **more):
    return litellm.completion(
        model=f"anthropic/{of}", messages=messages, api_base=host, api_key=key, max_tokens=2000, **more
    )


# Chats, whole and streamed.
whole = ask(slow)
assert whole.choices[0].message.content == answer and whole.choices[0].finish_reason == "stop", whole
assert whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens in (5, 6), whole
streamed = list(ask(slow, stream=True, stream_options={"include_usage": True}))
text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
assert text == answer and len(streamed) > 5, streamed
stopped = ask(slow, stop=["three"])
assert stopped.choices[0].message.content == "one two ", stopped

# Two calls at once, and their results.
tools = [function("f"), function("g")]
for stream in (False, True):
    said = ask(both, tools=tools, stream=stream)
    said = litellm.stream_chunk_builder(list(said)) if stream else said
    made = said.choices[0].message.tool_calls
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in made]
    assert calls == [("f", expected), ("g", {"text": "x"})], (stream, calls)
    assert said.choices[0].finish_reason == "tool_calls", said
    turn = {"role": "assistant", "content": None, "tool_calls": [call.model_dump() for call in made]}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "first of it"} for call in made]
    last = ask([*both, turn, *results], tools=tools)
    assert last.choices[0].message.content == "All done.", last

# What is refused.
try:
    ask(slow, of="no-such-model")
except litellm.exceptions.NotFoundError as error:
    assert "does not exist" in str(error), error
else:
    raise AssertionError("a model came from nowhere")

print("whole session ok")
