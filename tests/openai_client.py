"""A session of the official `openai` package, unchanged, with a daemon.

Usage: openai_client.py BASE_URL MODEL
The model answers "one two three four five " to everything, slowly enough to leave in the middle.
"""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)
model = sys.argv[2]
answer = "one two three four five "
hello = [{"role": "user", "content": "hello"}]

assert [entry.id for entry in client.models.list()] == [model]
assert client.models.retrieve(model).id == model

whole = client.chat.completions.create(model=model, messages=hello, temperature=0)
assert whole.choices[0].message.content == answer, whole
assert whole.choices[0].finish_reason == "stop", whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

parts = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
chunks = list(
    client.chat.completions.create(
        model=model, messages=parts, stream=True, stream_options={"include_usage": True}
    )
)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == answer, text
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, chunks[-1]
assert len({c.id for c in chunks}) == 1

stopped = client.chat.completions.create(model=model, messages=hello, stop=["three"])
assert stopped.choices[0].message.content == "one two ", stopped

raw = client.completions.create(model=model, prompt="hello", max_tokens=2)
assert (raw.choices[0].text, raw.choices[0].finish_reason) == ("one two ", "length"), raw

with client.chat.completions.create(model=model, messages=hello, stream=True) as stream:
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
assert client.chat.completions.create(model=model, messages=hello).choices[0].message.content == answer

refusals = [
    (dict(model="no-such-model"), openai.NotFoundError, "model_not_found"),
    (dict(n=2), openai.BadRequestError, "unsupported_parameter"),
    (dict(temperature=9), openai.BadRequestError, "invalid_value"),
]
for change, kind, code in refusals:
    try:
        client.chat.completions.create(**{"model": model, "messages": hello, **change})
    except kind as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"{change} was accepted")

print("whole session ok")
