"""The official `ollama` package, unchanged, pulls a model and asks it something.

Usage: pull.py HOST MODEL ABSENT BYTES
The hub has MODEL, whose file has BYTES, and no ABSENT.
"""

import sys

import ollama

host, model, absent, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
client = ollama.Client(host=host, timeout=300)

assert client.list().models == []
steps = list(client.pull(model, stream=True))
assert steps[0].status == "pulling manifest", steps[0]
assert steps[-1].status == "success", steps[-1]
brought = [step for step in steps if step.digest]
assert {step.total for step in brought} == {size}, brought
assert {step.digest for step in brought} == {brought[0].digest}, brought
assert brought[0].digest.startswith("sha256:"), brought[0]
completed = [step.completed for step in brought]
assert completed == sorted(completed) and completed[-1] == size, completed

[listed] = client.list().models
assert listed.size == size, listed
answer = client.chat(model=model, messages=[{"role": "user", "content": "Hello!"}], options={"num_predict": 4})
assert answer.eval_count > 0, answer

# Whole, and there before.
assert client.pull(model).status == "success"
for stream in (False, True):
    try:
        list(client.pull(absent, stream=stream))
    except ollama.ResponseError as error:
        assert error.status_code == 404 and absent in error.error, error
    else:
        raise AssertionError("nothing was refused")

print("whole session ok")
