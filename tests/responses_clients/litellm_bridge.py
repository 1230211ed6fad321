"""A session of litellm, unchanged, that asks a daemon for responses: by its own function for them, and by its chats, which
it makes responses of.

Usage: litellm_bridge.py BASE_URL KEY MODEL ARGUMENTS
The model answers as for `openai_responses_client.py`.
"""

import json
import os
import sys

# It looks up prices otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

url, key, model, expected = sys.argv[1:]
expected = json.loads(expected)
answer = "one two three four five "
parameters = {"type": "object", "properties": {"text": {"type": "string"}}}
litellm.suppress_debug_info = True


def respond(**more):
    return litellm.responses(model=f"openai/{model}", api_base=url, api_key=key, **more)


def text_of(response):
    parts = [part.text for item in response.output if item.type == "message" for part in item.content]
    return "".join(parts)


# Responses, whole and streamed, and gone on from.
whole = respond(input="slow")
assert text_of(whole) == answer and whole.status == "completed", whole
assert whole.usage.input_tokens > 0, whole
events = list(respond(input="slow", stream=True))
deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
assert "".join(deltas) == answer and len(deltas) > 1, events
assert events[-1].type == "response.completed", events
then = respond(input="slow", previous_response_id=whole.id)
assert text_of(then) == answer, then

# Two calls at once, and their results.
tools = [{"type": "function", "name": name, "description": "Does it", "parameters": parameters} for name in ("f", "g")]
called = respond(input="both", tools=tools)
made = [item for item in called.output if item.type == "function_call"]
calls = [(call.name, json.loads(call.arguments)) for call in made]
assert calls == [("f", expected), ("g", {"text": "x"})], called
results = [{"type": "function_call_output", "call_id": call.call_id, "output": "first of it"} for call in made]
last = respond(input=results, tools=tools, previous_response_id=called.id)
assert text_of(last) == "All done.", last


# Chats that become responses.
def ask(messages, of=model, **more):
    return litellm.completion(
        model=f"openai/responses/{of}", messages=messages, api_base=url, api_key=key, **more
    )


slow = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "slow"}]
both = [{"role": "user", "content": "both"}]
whole = ask(slow)
assert whole.choices[0].message.content == answer and whole.choices[0].finish_reason == "stop", whole
streamed = list(ask(slow, stream=True))
text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
assert text == answer and len(streamed) > 2, streamed
functions = [
    {"type": "function", "function": {"name": name, "description": "Does it", "parameters": parameters}}
    for name in ("f", "g")
]
for stream in (False, True):
    said = ask(both, tools=functions, stream=stream)
    said = litellm.stream_chunk_builder(list(said)) if stream else said
    made = said.choices[0].message.tool_calls
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in made]
    assert calls == [("f", expected), ("g", {"text": "x"})], (stream, calls)
    turn = {"role": "assistant", "content": None, "tool_calls": [call.model_dump() for call in made]}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "first of it"} for call in made]
    last = ask([*both, turn, *results], tools=functions)
    assert last.choices[0].message.content == "All done.", (stream, last)

# What is refused.
for refused in (lambda: ask(slow, of="no-such-model"), lambda: litellm.responses(
    model="openai/no-such-model", input="slow", api_base=url, api_key=key
)):
    try:
        refused()
    except litellm.exceptions.NotFoundError as error:
        assert "does not exist" in str(error), error
    else:
        raise AssertionError("a model came from nowhere")
print("whole session ok")
