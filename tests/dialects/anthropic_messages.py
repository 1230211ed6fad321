"""A stream of Anthropic's messages, read from the standard input, as one JSON object: what it came to."""

import json
import sys

from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

import strict

# What the daemon adds.
EXTENSIONS = []

events = [event.split("\n") for event in sys.stdin.read().split("\n\n") if event]
told = {"reasoning": "", "text": "", "calls": [], "tokens": None}
reasons = []
kinds = []
for name, data in events:
    if name == "event: ping":
        # The package passes over it before it reads the event.
        assert json.loads(data.removeprefix("data: ")) == {"type": "ping"}, data
        continue
    event = strict.read(TypeAdapter(RawMessageStreamEvent), json.loads(data.removeprefix("data: ")), EXTENSIONS)
    assert name == f"event: {event.type}", (name, data)
    assert kinds[-1:] != ["message_stop"], f"behind the end: {data}"
    kinds.append(event.type)
    if event.type == "content_block_start" and event.content_block.type == "tool_use":
        assert event.content_block.id and event.content_block.input == {}, event
        told["calls"].append({"name": event.content_block.name, "arguments": ""})
    elif event.type == "content_block_delta":
        match event.delta.type:
            case "text_delta":
                told["text"] += event.delta.text
            case "thinking_delta":
                told["reasoning"] += event.delta.thinking
            case "input_json_delta":
                told["calls"][-1]["arguments"] += event.delta.partial_json
    elif event.type == "message_delta":
        reasons.append(event.delta.stop_reason)
        told["tokens"] = event.usage.input_tokens + (event.usage.cache_read_input_tokens or 0)
assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds
assert reasons == ["tool_use"], reasons
for call in told["calls"]:
    call["arguments"] = json.loads(call["arguments"])
print(json.dumps(told))
