"""Writes tiny models with random weights, whose vocabularies are one token for each byte and given markers.

Usage: tiny_gguf.py JSON, an object that names for each file its markers.
What they say is noise; what they can say is what their vocabularies hold. Needs gguf and numpy, from PyPI.
"""

import json
import sys

import gguf
import numpy

WIDTH, HEADS, INNER, CONTEXT = 32, 4, 64, 8192
NORMAL, CONTROL = 1, 3


def byte_names():
    """Each byte as the tokenizers of GPT-2 write it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, others = {byte: chr(byte) for byte in plain}, 0
    for byte in range(256):
        if byte not in names:
            names[byte] = chr(256 + others)
            others += 1
    return [names[byte] for byte in range(256)]


def write(path, seed, markers):
    names = byte_names()
    tokens = [*names, names[ord("t")] + names[ord("h")], "<|end|of|turn|>", *markers]
    kinds = [NORMAL] * 257 + [CONTROL] * (1 + len(markers))
    random = numpy.random.default_rng(seed)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)

    def tensor(name, *shape):
        values = random.normal(0, shape[-1] ** -0.5, shape).astype(numpy.float32)
        writer.add_tensor(name, values)

    def ones(name):
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    tensor("token_embd.weight", len(tokens), WIDTH)
    ones("output_norm.weight")
    tensor("output.weight", len(tokens), WIDTH)
    ones("blk.0.attn_norm.weight")
    for part in ("q", "k", "v", "output"):
        tensor(f"blk.0.attn_{part}.weight", WIDTH, WIDTH)
    ones("blk.0.ffn_norm.weight")
    tensor("blk.0.ffn_gate.weight", INNER, WIDTH)
    tensor("blk.0.ffn_up.weight", INNER, WIDTH)
    tensor("blk.0.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for seed, (path, markers) in enumerate(json.loads(sys.argv[1]).items()):
    write(path, seed, markers)
