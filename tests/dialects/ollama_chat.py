"""A stream of Ollama's chats, read from the standard input, as one JSON object: what it came to."""

import json
import sys

from ollama import ChatResponse

import strict

# What the daemon adds: Ollama tells a call's id and its place, which the package does not read.
EXTENSIONS = ["message.tool_calls[].id", "message.tool_calls[].function.index"]

told = {"reasoning": "", "text": "", "calls": [], "tokens": None}
reasons = []
for line in sys.stdin.read().splitlines():
    assert not reasons, f"behind the end: {line}"
    part = strict.read(ChatResponse, json.loads(line), EXTENSIONS)
    told["reasoning"] += part.message.thinking or ""
    told["text"] += part.message.content
    for call in part.message.tool_calls or []:
        told["calls"].append({"name": call.function.name, "arguments": dict(call.function.arguments)})
    if part.done:
        reasons.append(part.done_reason)
        told["tokens"] = part.prompt_eval_count
assert reasons == ["stop"], reasons
print(json.dumps(told))
