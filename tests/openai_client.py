"""A session of the official `openai` package, unchanged, with a daemon.

Usage: openai_client.py BASE_URL MODEL
The model answers "one two three four five " to everything, slowly enough to leave in the middle.
"""

import struct
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

several = client.chat.completions.create(model=model, messages=hello, n=3, seed=1)
assert [choice.index for choice in several.choices] == [0, 1, 2], several
assert {choice.message.content for choice in several.choices} == {answer}, several
assert several.usage.prompt_tokens == whole.usage.prompt_tokens, several.usage
assert several.usage.completion_tokens == 3 * whole.usage.completion_tokens, several.usage
pieces = ["", ""]
for chunk in client.chat.completions.create(model=model, messages=hello, n=2, stream=True):
    for choice in chunk.choices:
        pieces[choice.index] += choice.delta.content or ""
assert pieces == [answer, answer], pieces
prompts = client.completions.create(model=model, prompt=["hello", "you"], max_tokens=1, echo=True)
assert [choice.text for choice in prompts.choices] == ["helloone ", "youone "], prompts

with client.chat.completions.create(model=model, messages=hello, stream=True) as stream:
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
assert client.chat.completions.create(model=model, messages=hello).choices[0].message.content == answer

# The package asks for base64 by itself and decodes it; `float` comes as numbers.
texts = ["one", "one two three"]
decoded = client.embeddings.create(model=model, input=texts)
plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
assert [entry.index for entry in decoded.data] == [0, 1], decoded
for one, other in zip(decoded.data, plain.data, strict=True):
    assert len(one.embedding) == len(other.embedding) == 8, one
    as_f32 = [struct.unpack("<f", struct.pack("<f", value))[0] for value in other.embedding]
    assert list(one.embedding) == as_f32, (one, other)
    assert abs(sum(value * value for value in as_f32) - 1) < 1e-6, other
assert decoded.usage.prompt_tokens == plain.usage.prompt_tokens == 4, decoded.usage
tokens = client.embeddings.create(model=model, input=[[5, 6], [7]], dimensions=4)
assert [len(entry.embedding) for entry in tokens.data] == [4, 4], tokens
try:
    client.embeddings.create(model=model, input="one", dimensions=9)
except openai.BadRequestError as error:
    assert error.param == "dimensions", error
else:
    raise AssertionError("9 of 8 dimensions were given")

refusals = [
    (dict(model="no-such-model"), openai.NotFoundError, "model_not_found"),
    (dict(n=99), openai.BadRequestError, "invalid_value"),
    (dict(logprobs=True), openai.BadRequestError, "cannot_tell_logprobs"),
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
