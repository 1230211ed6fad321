"""A stream of OpenAI's chats, read from the standard input, as one JSON object: what it came to."""

import json
import sys

from openai.types.chat import ChatCompletionChunk

import strict

# What the daemon adds.
EXTENSIONS = ["choices[].delta.reasoning_content", "timings"]

events = [line.removeprefix("data: ") for line in sys.stdin.read().split("\n\n") if line]
assert events.pop() == "[DONE]", events
told = {"reasoning": "", "text": "", "calls": [], "tokens": None}
reasons = []
for event in map(json.loads, events):
    chunk = strict.read(ChatCompletionChunk, event, EXTENSIONS)
    if chunk.usage is not None:
        told["tokens"] = chunk.usage.prompt_tokens
    for choice in chunk.choices:
        assert not reasons, f"behind the end: {event}"
        told["text"] += choice.delta.content or ""
        told["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or []:
            if call.index == len(told["calls"]):
                assert call.id and call.type == "function", event
                told["calls"].append({"name": call.function.name, "arguments": ""})
            told["calls"][call.index]["arguments"] += call.function.arguments
        reasons += [choice.finish_reason] if choice.finish_reason else []
assert reasons == ["tool_calls"], reasons
for call in told["calls"]:
    call["arguments"] = json.loads(call["arguments"])
print(json.dumps(told))
