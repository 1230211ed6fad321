"""A session of litellm's `ollama` providers, unchanged, with a daemon.

Usage: litellm_provider.py HOST MODEL ARGUMENTS REAL
The models answer as for `home_assistant.py`.
"""

import json
import os
import sys

# It looks up prices otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

host, model, expected, real = sys.argv[1:]
expected = json.loads(expected)
answer = "one two three four five "
slow = [{"role": "user", "content": "slow"}]
both = [{"role": "user", "content": "both"}]
litellm.suppress_debug_info = True


def function(name):
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "Does it", "parameters": parameters}}


def ask(messages, provider="ollama_chat", of=model, **more):
    return litellm.completion(model=f"{provider}/{of}", messages=messages, api_base=host, **more)


# Chats by either provider, whole and streamed.
for provider in ("ollama_chat", "ollama"):
    whole = ask(slow, provider)
    assert whole.choices[0].message.content.strip() == answer.strip(), (provider, whole)
    assert whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0, whole
    streamed = list(ask(slow, provider, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text.strip() == answer.strip() and len(streamed) > 2, (provider, streamed)

# Two calls at once, and their results.
for stream in (False, True):
    said = ask(both, tools=[function("f"), function("g")], stream=stream)
    # Its own collector of chunks takes calls of two chunks for one, of an Ollama's answer as well: it looks for the
    # `index` of a call beside `function`, where Ollama has it inside.
    messages = [part.choices[0].delta for part in said] if stream else [said.choices[0].message]
    made = [call for message in messages for call in message.tool_calls or ()]
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in made]
    assert calls == [("f", expected), ("g", {"text": "x"})], (stream, calls)
    thoughts = [getattr(message, "reasoning_content", None) or "" for message in messages]
    assert "".join(thoughts) == "so", (stream, messages)
    turn = {"role": "assistant", "content": "", "tool_calls": [call.model_dump() for call in made]}
    results = [
        {"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": f"first of {call.function.name}"}
        for call in made
    ]
    last = ask([*both, turn, *results], tools=[function("f"), function("g")])
    assert last.choices[0].message.content.strip() == "All done.", last

# An answer of a form.
schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
form = {"type": "json_schema", "json_schema": {"name": "lamp", "schema": schema}}
formed = ask([{"role": "user", "content": "Is the lamp on?"}], of=real, response_format=form)
assert isinstance(json.loads(formed.choices[0].message.content)["on"], bool), formed

# Embeddings.
embedded = litellm.embedding(model=f"ollama/{model}", input=["one", "one two three"], api_base=host)
assert [len(row["embedding"]) for row in embedded.data] == [8, 8], embedded

# What is refused.
try:
    ask(slow, of="no-such-model")
except litellm.exceptions.APIError as error:
    assert "not found" in str(error), error
except Exception as error:
    assert "not found" in str(error), error
else:
    raise AssertionError("a model came from nowhere")

print("whole session ok")
