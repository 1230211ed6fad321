"""Log probabilities with the official `openai` package, unchanged, of a daemon whose runtime can tell them.

Usage: openai_logprobs_client.py BASE_URL MODEL
"""

import math
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
model = sys.argv[2]
hello = [{"role": "user", "content": "Count from one to five."}]
asked = dict(model=model, messages=hello, max_tokens=12, temperature=0, logprobs=True, top_logprobs=5)


def hold(content, tokens):
    assert bytes(byte for token in tokens for byte in token.bytes).decode() == content, tokens
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 5, token
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) < 1.001, token


whole = client.chat.completions.create(**asked, n=2)
for choice in whole.choices:
    hold(choice.message.content, choice.logprobs.content)
content, tokens = "", []
for chunk in client.chat.completions.create(**asked, stream=True):
    for choice in chunk.choices:
        content += choice.delta.content or ""
        tokens += choice.logprobs.content if choice.logprobs else []
hold(content, tokens)
assert content == whole.choices[0].message.content

# As harnesses that measure perplexity ask.
text = "The cat sat on the mat."
echoed = client.completions.create(model=model, prompt=text, max_tokens=0, echo=True, logprobs=1)
told = echoed.choices[0].logprobs
assert echoed.choices[0].text == "".join(told.tokens) == text, echoed
assert told.token_logprobs[0] is None and all(value <= 0 for value in told.token_logprobs[1:]), told
assert [text[place:][: len(token)] for place, token in zip(told.text_offset, told.tokens)] == told.tokens
assert told.top_logprobs[0] is None and len(told.top_logprobs[1]) in (1, 2), told

print("whole session ok")
