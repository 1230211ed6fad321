"""A session of the official `ollama` package, unchanged, with a daemon.

Usage: ollama_client.py HOST MODEL ARGUMENTS
The model answers "both" with a thought and calls of `f`, with ARGUMENTS, and of `g`, their results with
"All done.", and "slow" with "one two three four five ".
"""

import json
import sys

import ollama

client = ollama.Client(host=sys.argv[1], timeout=60)
model, expected = sys.argv[2], json.loads(sys.argv[3])
slow = [{"role": "user", "content": "slow"}]
answer = "one two three four five "

# What is there.
[listed] = client.list().models
assert listed.model == f"{model}:latest", listed
assert listed.size > 0 and listed.modified_at is not None, listed
assert listed.details.format == "rkllm", listed
assert client.ps().models == [], "nothing is loaded"
shown = client.show(model.upper())
assert "tools" in shown.capabilities and "thinking" in shown.capabilities, shown
assert shown.modelinfo["general.architecture"] == "rkllm", shown

# Loaded by a request for nothing, and unloaded by one.
loaded = client.generate(model=model, prompt="")
assert loaded.done and loaded.done_reason == "load" and loaded.load_duration > 0, loaded
[running] = client.ps().models
assert running.model == f"{model}:latest" and running.expires_at.year > 2100, running
assert len(running.digest) == 64 and running.digest == listed.digest, "the command line shows twelve of them"
unloaded = client.chat(model=model, messages=[], keep_alive=0)
assert unloaded.done_reason == "unload", unloaded
assert client.ps().models == [], "it is unloaded when it says so"

# A chat, whole and streamed.
whole = client.chat(model=f"{model}:latest", messages=slow, options={"temperature": 0}, keep_alive=-1)
assert whole.message.content == answer, whole
assert (whole.done_reason, whole.model) == ("stop", f"{model}:latest"), whole
# The token that ends the answer may be one of them.
assert whole.eval_count in (5, 6) and whole.prompt_eval_count > 0, whole
parts = whole.load_duration + whole.prompt_eval_duration + whole.eval_duration
assert 0 < parts <= whole.total_duration, whole
chunks = list(client.chat(model=model, messages=slow, stream=True))
assert "".join(chunk.message.content for chunk in chunks) == answer, chunks
assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True], chunks
assert chunks[-1].eval_count == whole.eval_count, chunks[-1]
stopped = client.chat(model=model, messages=slow, options={"stop": ["three"], "num_predict": 4})
assert stopped.message.content == "one two ", stopped
cut = client.chat(model=model, messages=slow, options={"num_predict": 2})
assert (cut.message.content, cut.done_reason) == ("one two ", "length"), cut

# A text.
text = client.generate(model=model, prompt="slow", system="be kind")
assert text.response == answer, text
text = "".join(part.response for part in client.generate(model=model, prompt="slow", raw=True, stream=True))
assert text == answer, text


# An agent's loop with two calls at once, and thoughts.
def f(text: str) -> str:
    """Does it.

    Args:
      text: what it is done to
    """


def g(text: str) -> str:
    """Does it as well.

    Args:
      text: what it is done to
    """


both = [{"role": "user", "content": "both"}]
for streamed in (True, False):
    asked = client.chat(model=model, messages=both, tools=[f, g], think=True, stream=streamed)
    said = list(asked) if streamed else [asked]
    assert "".join(part.message.thinking or "" for part in said) == "so", said
    calls = [call for part in said for call in part.message.tool_calls or []]
    assert [call.function.name for call in calls] == ["f", "g"], calls
    assert calls[0].function.arguments == expected, calls[0]
    assert calls[1].function.arguments == {"text": "x"}, calls[1]
    turn = ollama.Message(role="assistant", thinking="so", tool_calls=calls)
    results = [
        {"role": "tool", "tool_name": name, "content": f"first of {name}"} for name in ("g", "f")
    ]
    last = client.chat(model=model, messages=[*both, turn, *results], tools=[f, g], think=False)
    assert last.message.content == "All done.", last

# Embeddings.
embedded = client.embed(model=model, input=["one", "one two three"], dimensions=4)
assert [len(row) for row in embedded.embeddings] == [4, 4], embedded
for row in embedded.embeddings:
    assert abs(sum(value * value for value in row) - 1) < 1e-5, row
assert embedded.prompt_eval_count == 4 and embedded.total_duration > 0, embedded
assert len(client.embeddings(model=model, prompt="one").embedding) == 8

# A model that is made of another, copied, used by its names, and removed.
made = client.create("Mine", from_=model, system="You are slow", parameters={"num_predict": 2, "stop": ["four"]})
assert made.status == "success", made
assert [part.status for part in client.create("mine:latest", from_="mine", system="be kind", stream=True)] == ["success"]
client.copy("mine", "other/copy:1")
listed = {entry.model: entry for entry in client.list().models}
assert sorted(listed) == sorted([f"{model}:latest", "Mine:latest", "other/copy:1"]), listed
assert len({entry.digest for entry in listed.values()}) == 3, listed
shown = client.show("mine")
assert shown.parameters.split()[-2:] == ["stop", '"four"'] and "num_predict" in shown.parameters, shown
assert shown.details.parent_model == f"{model}:latest" and "be kind" in shown.modelfile, shown
for name in ("mine", "OTHER/copy:1"):
    answered = client.chat(model=name, messages=slow)
    assert (answered.message.content, answered.model) == ("one two ", name), answered
    answered = client.generate(model=name, prompt="slow", options={"num_predict": -1})
    assert answered.response == "one two three ", answered
client.delete("mine")
client.delete("other/copy:1")
assert [entry.model for entry in client.list().models] == [f"{model}:latest"]

# Templates of a request and of a model.
template = "{{ if .System }}{{ .System }} {{ end }}Ask: {{ .Prompt }}\n{{ .Response }}\n"
answered = client.generate(model=model, prompt="slow", template=template, context=[])
assert answered.response == "one two three four five " and answered.context is None, answered
client.create("written", from_=model, template=template, system="be kind")
assert client.show("written").template == template
assert client.generate(model="written", prompt="slow").response == "one two three four five "
assert client.chat(model="written", messages=slow).message.content == "one two three four five "
client.delete("written")

# What is refused.
refusals = [
    (lambda: client.chat(model="no-such-model", messages=slow), 404, "model 'no-such-model' not found"),
    (lambda: client.chat(model=model, messages=slow, options={"temperature": 9}), 400, "options.temperature"),
    (lambda: client.generate(model=model, prompt="a", suffix="b"), 400, "does not support insert"),
    (lambda: client.chat(model=model, messages=slow, format="json"), 400, "tokenizer"),
    (lambda: list(client.chat(model="no-such-model", messages=slow, stream=True)), 404, "not found"),
    (lambda: client.pull("llama3"), 400, "OWNER/NAME"),
    (lambda: client.push("llama3"), 400, "not offered"),
    (lambda: client.create("mine", from_=model, template="{{ range .Messages }}"), 400, "line 1, column 1"),
    (lambda: client.generate(model=model, prompt="a", context=[1, 2]), 400, "tokenizer"),
    (lambda: client.create("mine", from_="no-such-model"), 404, "not found"),
    (lambda: client.create(model, from_=model), 400, "installed"),
    (lambda: client.copy("no-such-model", "other"), 404, "not found"),
    (lambda: client.delete(model), 400, "models folder"),
    (lambda: client.delete("no-such-model"), 404, "not found"),
]
for ask, status, words in refusals:
    try:
        ask()
    except ollama.ResponseError as error:
        assert error.status_code == status and words in error.error, error
    else:
        raise AssertionError(f"nothing was refused with {words}")

print("whole session ok")
