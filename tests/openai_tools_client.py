"""An agent's loop with the official `openai` package, unchanged.

Usage: openai_tools_client.py BASE_URL MODEL ARGUMENTS
The model answers "both" with calls of `f`, with ARGUMENTS, and of `g`, their results with another call
of `g`, and the result of that in words.
"""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)
model, expected = sys.argv[2], sys.argv[3]
tools = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Does it",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
    for name in ("f", "g")
]


def ask(messages, streamed):
    if not streamed:
        return client.chat.completions.create(model=model, messages=messages, tools=tools).choices[0]
    with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0]


def answered(messages, choice, result):
    """The conversation with the calls of `choice` and their results, in the other order than they were made."""
    return [
        *messages,
        choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
        *(
            {"role": "tool", "tool_call_id": call.id, "content": f"{result} {call.function.name}"}
            for call in reversed(choice.message.tool_calls)
        ),
    ]


for streamed in (True, False):
    messages = [{"role": "user", "content": "both"}]
    choice = ask(messages, streamed)
    assert choice.finish_reason == "tool_calls", choice
    calls = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["f", "g"], calls
    assert calls[0].function.arguments == expected, calls[0]
    assert json.loads(calls[1].function.arguments) == {"text": "x"}, calls[1]
    assert len({call.id for call in calls}) == 2, calls

    messages = answered(messages, choice, "first of")
    choice = ask(messages, streamed)
    assert choice.finish_reason == "tool_calls", choice
    [call] = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("g", {"text": "y"}), call

    last = ask(answered(messages, choice, "second of"), streamed)
    assert last.finish_reason == "stop", last
    assert last.message.content == "All done.", last
    assert last.message.reasoning_content == "so", last

print("agent loop ok")
