"""A stream of OpenAI's responses, read from the standard input, as one JSON object: what it came to."""

import json
import sys

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

import strict

# What the daemon adds, or other releases of the package know.
EXTENSIONS = ["name"] + [f"response.{name}" for name in ("presence_penalty", "frequency_penalty", "store")]

events = [event.split("\n") for event in sys.stdin.read().split("\n\n") if event]
assert events.pop() == ["data: [DONE]"], events
told = {"reasoning": "", "text": "", "calls": [], "tokens": None}
kinds = []
for number, (name, data) in enumerate(events):
    raw = json.loads(data.removeprefix("data: "))
    usage = raw.get("response", {}).get("usage") or {}
    for details, known in (
        ("input_tokens_details", {"cached_tokens": 0, "cache_write_tokens": 0}),
        ("output_tokens_details", {"reasoning_tokens": 0}),
    ):
        # What is not known is null, for which the package has no place.
        if details in usage and usage[details] is None:
            usage[details] = known
    # It reads these as decimals, and strictly.
    for at in ("created_at", "completed_at"):
        if raw.get("response", {}).get(at) is not None:
            raw["response"][at] = float(raw["response"][at])
    event = strict.read(TypeAdapter(ResponseStreamEvent), raw, EXTENSIONS)
    assert name == f"event: {event.type}" and event.sequence_number == number, (name, data)
    kinds.append(event.type)
    match event.type:
        case "response.output_text.delta":
            told["text"] += event.delta
        case "response.reasoning_text.delta":
            told["reasoning"] += event.delta
        case "response.output_item.done" if event.item.type == "function_call":
            arguments = json.loads(event.item.arguments)
            told["calls"].append({"name": event.item.name, "arguments": arguments})
        case "response.completed":
            told["tokens"] = event.response.usage.input_tokens
            assert [item.type for item in event.response.output] == [
                "reasoning",
                "message",
                "function_call",
                "function_call",
            ], event
assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed", kinds
print(json.dumps(told))
