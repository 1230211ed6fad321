"""Says how likely llama-cpp-python finds the tokens of answers, each evaluated behind those before it, as it
does when it makes an answer.

Usage: llama_cpp_python.py FOLDER, where the package is and, in LLAMA_CPP_LIB_PATH, its library. Reads one object
from stdin: `model` (a file), `threads`, `context` (tokens), `top`, and `answers`, each with `prompt` (a text), `answer`
(ids) and `told`, which has for each token of the answer the ids that are asked for. Writes one object: `version`,
`library` (a file) and `answers`, each with `prompt_tokens`, how many its prompt has, and `places`, one for each token:
`told`, the log probabilities of those ids, and `top`, the likeliest ids with theirs. What the library prints is on
stderr.
"""

import json
import os
import sys

sys.path.insert(0, sys.argv[1])

import llama_cpp  # noqa: E402
import numpy  # noqa: E402


def place(llama, told, top):
    """Of the row behind the last token that was evaluated."""
    row = llama.scores[llama.n_tokens - 1]
    if not numpy.isfinite(row).all():
        raise SystemExit(f"the row behind token {llama.n_tokens} has values that are no numbers")
    logprobs = llama_cpp.Llama.logits_to_logprobs(row)
    likeliest = numpy.argsort(-logprobs, kind="stable")[:top]
    return {
        "told": [float(logprobs[token]) for token in told],
        "top": [[int(token), float(logprobs[token])] for token in likeliest],
    }


def evaluated(llama, answer, top):
    # With the tokens around a text that belong there by the model's file.
    prompt = llama.tokenize(answer["prompt"].encode(), add_bos=True, special=False)
    llama.reset()
    llama.eval(prompt)
    places = []
    for token, told in zip(answer["answer"], answer["told"], strict=True):
        places.append(place(llama, told, top))
        llama.eval([token])
    return {"prompt_tokens": len(prompt), "places": places}


def main():
    asked = json.load(sys.stdin)
    llama = llama_cpp.Llama(
        model_path=asked["model"],
        n_ctx=asked["context"],
        n_threads=asked["threads"],
        n_threads_batch=asked["threads"],
        logits_all=True,
        # As llama.cpp has it by default; the package has not, and rounds otherwise.
        flash_attn=True,
        verbose=True,
    )
    answers = [evaluated(llama, answer, asked["top"]) for answer in asked["answers"]]
    said = {
        "version": llama_cpp.__version__,
        "library": os.path.join(os.environ["LLAMA_CPP_LIB_PATH"], "libllama.so"),
        "answers": answers,
    }
    json.dump(said, sys.stdout)


main()
