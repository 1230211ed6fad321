"""Random bodies of requests, one a line, made of the types that a client's package has for them.

Usage: random_bodies.py MODULE TYPE SEED COUNT GIVEN
MODULE.TYPE is a TypedDict, or a union of several. What stands in GIVEN, a JSON object, is a body's own nine times of
ten, so that the rest of it comes to be read.
"""

import collections.abc
import importlib
import json
import os
import random
import sys
import types
import typing
from datetime import date, datetime

import pydantic
import typing_extensions as more

DEEPEST = 7
TEXTS = ["", "a", "hi", "auto", "none", "é🦀", "\n", "{}", '{"a": 1}', "[1, 2", "data:image/png;base64,AA==", "f"]
TEXTS += ["x" * 300]
NUMBERS = [0, 1, 2, -1, 7, 20, 1024, 4096, 2**31, 2**63, -(2**63)]
DECIMALS = [0.0, 1.0, 0.5, -1.5, 2.0, 1e-9, 1e300]
# How a schema is written; where a type says no more than "an object".
SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "object"},
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {},
]

# What a body is about, also where a type says that it may be left out.
WANTED = ["input"]

module, name, seed, count, given = sys.argv[1:]
given = json.loads(given)
rnd = random.Random(int(seed))
hints = {}


def is_typed_dict(kind):
    return typing.is_typeddict(kind) or more.is_typeddict(kind)


def fields(kind):
    """Names and types; whether they must be there."""
    if kind not in hints:
        found = more.get_type_hints(kind, include_extras=True)
        hints[kind] = [(name, of, is_required(kind, name, of)) for name, of in found.items()]
    return hints[kind]


def is_required(kind, name, of):
    # Of annotations that are texts, the class itself does not know it.
    marks = {"Required": True, "NotRequired": False}
    mark = getattr(more.get_origin(of), "__name__", None) or getattr(more.get_origin(of), "_name", None)
    return marks.get(mark, name in kind.__required_keys__)


def anything(depth):
    kinds = [lambda: rnd.choice(TEXTS), lambda: rnd.choice(NUMBERS), lambda: rnd.choice(DECIMALS), lambda: None]
    kinds += [lambda: rnd.random() < 0.5, lambda: rnd.choice(SCHEMAS)]
    if depth < DEEPEST:
        kinds.append(lambda: [anything(depth + 1) for _ in range(rnd.randrange(3))])
    return rnd.choice(kinds)()


def several(make, depth):
    most = 4 if depth < 3 else 2
    return [make() for _ in range(rnd.randrange(most) if depth < DEEPEST else 0)]


def made(kind, depth):
    if kind is typing.Any or kind is object:
        return anything(depth)
    if kind is None or kind is type(None):
        return None
    if isinstance(kind, more.TypeAliasType):
        return made(kind.__value__, depth)
    if is_typed_dict(kind):
        # Deep inside only what must be there.
        often = 0.25 if depth < DEEPEST else 0.0
        return {
            name: made(of, depth + 1)
            for name, of, must_be in fields(kind)
            if must_be or (depth == 0 and name in WANTED) or rnd.random() < often
        }
    origin, of = more.get_origin(kind), more.get_args(kind)
    # Where Python has them itself, these are the same.
    if origin in (typing.Annotated, more.Required, more.NotRequired):
        return made(of[0], depth)
    if origin in (typing.Literal, more.Literal):
        return rnd.choice(of)
    if origin in (typing.Union, types.UnionType):
        plain = [part for part in of if not is_deep(part)] if depth >= DEEPEST else []
        return made(rnd.choice(plain or of), depth)
    if origin in (dict, collections.abc.Mapping):
        return {rnd.choice(TEXTS[1:]): made(of[1], depth + 1) for _ in range(rnd.randrange(3))}
    if origin in (typing.IO, os.PathLike):
        # A file, which JSON has no place for but as a text.
        return rnd.choice(TEXTS)
    if origin is not None and (issubclass(origin, collections.abc.Iterable) or origin.__name__ == "SequenceNotStr"):
        return several(lambda: made(of[0], depth + 1), depth)
    if kind is str:
        return rnd.choice(TEXTS)
    if kind is bool:
        return rnd.random() < 0.5
    if kind is int:
        return rnd.choice(NUMBERS)
    if kind is float:
        return rnd.choice(DECIMALS + NUMBERS)
    if kind in (datetime, date):
        return "2026-11-30T12:00:00Z"
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        # An answer's part, as a client sends it back.
        often = 0.25 if depth < DEEPEST else 0.0
        found = kind.model_fields.items()
        return {
            field.alias or name: made(field.annotation, depth + 1)
            for name, field in found
            if field.is_required() or rnd.random() < often
        }
    if kind is bytes or kind is typing.IO or isinstance(kind, type) and issubclass(kind, os.PathLike):
        return rnd.choice(TEXTS)
    raise TypeError(f"no value of {kind!r} is known")


def is_deep(kind):
    return is_typed_dict(kind) or more.get_origin(kind) is not None and more.get_origin(kind) is not typing.Literal


kind = getattr(importlib.import_module(module), name)
for _ in range(int(count)):
    body = made(kind, 0)
    body.update((key, value) for key, value in given.items() if rnd.random() < 0.9)
    print(json.dumps(body))
