"""A session of the official `openai` package about responses, unchanged, with a daemon.

Usage: openai_responses_client.py BASE_URL KEY OTHER_KEY MODEL ARGUMENTS REAL
MODEL answers "both" with a thought and calls of `f`, with ARGUMENTS, and of `g`, their results with "All done.", and
"slow" with "one two three four five ", and "long" for a minute; REAL is a model whose tokens are known and whose answers are kept to formats.
"""

import json
import sys
import time

import openai
from pydantic import BaseModel

url, key, other_key, model, expected, real = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
other = openai.OpenAI(base_url=url, api_key=other_key, max_retries=0, timeout=60)
answer = "one two three four five "
tools = [
    {
        "type": "function",
        "name": name,
        "description": "Does it",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    for name in ("f", "g")
]


def refused(status, code, ask):
    try:
        ask()
    except openai.APIStatusError as error:
        assert (error.status_code, error.code) == (status, code), error
        return error
    raise AssertionError(f"not refused: {code}")


# A response, whole and streamed.
whole = client.responses.create(model=model, input="slow", temperature=0, metadata={"a": "b"})
assert (whole.output_text, whole.status, whole.model) == (answer, "completed", model), whole
assert whole.id.startswith("resp_") and whole.metadata == {"a": "b"} and whole.created_at > 0, whole
# The token that ends the answer may be one of them.
assert whole.usage.output_tokens in (5, 6) and whole.usage.input_tokens > 0, whole
with client.responses.stream(model=model, input="slow") as stream:
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    final = stream.get_final_response()
assert "".join(deltas) == answer == final.output_text and len(deltas) > 1, deltas
events = list(client.responses.create(model=model, input="slow", stream=True))
assert [event.sequence_number for event in events] == list(range(len(events))), events
assert events[0].type == "response.created" and events[-1].type == "response.completed", events
assert events[0].response.id == events[-1].response.id, events
cut = client.responses.create(model=model, input="slow", max_output_tokens=2)
assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens"), cut

# What is kept.
again = client.responses.retrieve(whole.id)
assert again.to_dict() == whole.to_dict(), again
[item] = client.responses.input_items.list(whole.id)
assert (item.role, item.content[0].text) == ("user", "slow"), item
refused(404, "previous_response_not_found", lambda: other.responses.retrieve(whole.id))
client.responses.delete(whole.id)
refused(404, "previous_response_not_found", lambda: client.responses.retrieve(whole.id))
gone = refused(
    400,
    "previous_response_not_found",
    lambda: client.responses.create(model=model, input="slow", previous_response_id=whole.id),
)
assert gone.param == "previous_response_id", gone


def calls_of(response):
    kinds = [item.type for item in response.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"], response
    assert response.output[0].content[0].text == "so", response
    calls = response.output[2:]
    assert [call.name for call in calls] == ["f", "g"] and calls[0].arguments == expected, calls
    return calls


def results_of(calls):
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"first of {call.name}"} for call in calls
    ]


# An agent's loop: the daemon keeps the conversation, or the client does.
with client.responses.stream(model=model, input="both", tools=tools) as stream:
    called = stream.get_final_response()
results = results_of(calls_of(called))
done = client.responses.create(model=model, input=results, tools=tools, previous_response_id=called.id)
assert done.output_text == "All done.", done
history = [{"role": "user", "content": "both"}]
called = client.responses.create(
    model=model, input=history, tools=tools, store=False, include=["reasoning.encrypted_content"]
)
calls = calls_of(called)
assert called.output[0].encrypted_content, called
history += called.output + results_of(calls)
raw = client.responses.with_raw_response.create(model=model, input=history, tools=tools, store=False)
assert "encrypted_content" not in raw.headers.get("x-rkllmd-not-applied", ""), raw.headers
assert raw.parse().output_text == "All done.", raw.parse()
refused(404, "previous_response_not_found", lambda: client.responses.retrieve(called.id))

# In less room: what stands for the conversation is sent in its place.
compacted = client.responses.compact(model=model, input=history)
[stands] = compacted.output
assert (compacted.object, stands.type, compacted.usage.total_tokens) == ("response.compaction", "compaction", 0), compacted
again = client.responses.create(model=model, input=[stands], tools=tools, store=False)
assert again.output_text == "All done.", again

# Kept to a schema, of a real model.


class Answer(BaseModel):
    is_blue: bool


parsed = client.responses.parse(model=real, input="Is the sky blue?", text_format=Answer, temperature=0)
assert isinstance(parsed.output_parsed, Answer), parsed
# Its file is all that there is of it, without a tokenizer.
uncounted = lambda: client.responses.input_tokens.count(model=real, input="Is the sky blue?")
refused(400, "tokenizer_unknown", uncounted)

# What is refused.
unknown = refused(404, "model_not_found", lambda: client.responses.create(model="absent", input="x"))
assert isinstance(unknown, openai.NotFoundError), unknown
image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
seen = refused(400, "unsupported_parameter", lambda: client.responses.create(model=model, input=image))
assert seen.param == "input[0].content[0].type", seen
# In the background: asked for, looked at, followed from any of its events on, and cancelled.
unkept = refused(
    400, "invalid_value", lambda: client.responses.create(model=model, input="x", background=True, store=False)
)
assert unkept.param == "background", unkept


def until(response, *statuses):
    deadline = time.monotonic() + 60
    while response.status not in statuses:
        assert time.monotonic() < deadline, response
        time.sleep(0.02)
        response = client.responses.retrieve(response.id)
    return response


queued = client.responses.create(model=model, input="slow", background=True)
assert (queued.status, queued.background, queued.output) == ("queued", True, []), queued
made = until(queued, "completed", "failed")
assert (made.status, made.output_text, made.id) == ("completed", answer, queued.id), made
events = list(client.responses.retrieve(queued.id, stream=True))
assert [event.sequence_number for event in events] == list(range(len(events))), events
assert [event.type for event in events[:3]] == [
    "response.created",
    "response.queued",
    "response.in_progress",
], events
assert events[-1].type == "response.completed" and events[-1].response.output_text == answer, events
behind = list(client.responses.retrieve(queued.id, stream=True, starting_after=4))
assert behind == events[5:], behind
assert client.responses.cancel(queued.id).status == "completed"
then = client.responses.create(model=model, input="slow", previous_response_id=queued.id)
assert then.output_text == answer, then
# A client that leaves its stream finds it again.
with client.responses.create(model=model, input="long", background=True, stream=True) as stream:
    left = next(iter(stream)).response
assert until(left, "in_progress").status == "in_progress"
refused(404, "previous_response_not_found", lambda: other.responses.cancel(left.id))
cancelled = client.responses.cancel(left.id)
assert (cancelled.status, cancelled.error) == ("cancelled", None), cancelled
assert client.responses.retrieve(left.id).to_dict() == cancelled.to_dict()
refused(400, "invalid_value", lambda: client.responses.create(model=model, input="x", previous_response_id=left.id))
refused(400, "invalid_value", lambda: client.responses.cancel(then.id))
many = [client.responses.create(model=model, input="long", background=True) for _ in range(2)]
refused(429, "too_many_in_background", lambda: client.responses.create(model=model, input="long", background=True))
for response in many:
    assert client.responses.cancel(response.id).status == "cancelled"
    client.responses.delete(response.id)
    refused(404, "previous_response_not_found", lambda: client.responses.retrieve(response.id))
try:
    for event in client.responses.create(model=model, input="die", stream=True):
        pass
except openai.APIError as error:
    assert error.code in ("worker_died", "answer_interrupted"), error
else:
    raise AssertionError("a stream that fails raises")
print("whole session ok")
