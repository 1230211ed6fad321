"""Clients that ask for typed answers, unchanged, with a daemon.

Usage: typed_clients.py CLIENT BASE_URL MODEL
"""

import sys
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

client_name, base_url, model = sys.argv[1:]


class Toy(BaseModel):
    colour: Literal["red", "green", "blue"]
    parts: Annotated[int, Field(ge=1, le=99)]


class Pet(BaseModel):
    name: Annotated[str, Field(max_length=12)]
    kind: Literal["cat", "dog"]
    age: Annotated[int, Field(ge=0, le=30)]
    toys: Annotated[list[Toy], Field(max_length=2)]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool


class Household(BaseModel):
    """Of two, a field tells which one it is: a `oneOf` of references."""

    animal: Annotated[Cat | Dog, Field(discriminator="kind")]


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


question = "Invent a pet."
messages = [{"role": "user", "content": question}]


def of_openai():
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)
    options = {"model": model, "messages": messages, "max_tokens": 200, "temperature": 1}
    # What begins alike comes one after the other, so that its beginning is evaluated once.
    for seed in range(3):
        parsed = client.chat.completions.parse(**options, seed=seed, response_format=Pet)
        assert parsed.choices[0].finish_reason == "stop", parsed
        assert isinstance(parsed.choices[0].message.parsed, Pet), parsed
    for seed in range(3):
        parsed = client.chat.completions.parse(**options, seed=seed, response_format=Household)
        assert isinstance(parsed.choices[0].message.parsed, Household), parsed
    with client.chat.completions.stream(**options, response_format=Pet) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Pet)
    chosen = client.chat.completions.create(**options, extra_body={"guided_choice": ["cat", "dog"]})
    assert chosen.choices[0].message.content in ("cat", "dog"), chosen


def of_instructor():
    import instructor
    from instructor.core.exceptions import IncompleteOutputException
    import openai

    plain = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)
    options = {"model": model, "messages": messages, "max_tokens": 300, "max_retries": 0}
    client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
    pet = client.chat.completions.create(**options, response_model=Pet)
    assert isinstance(pet, Pet), pet
    client = instructor.from_openai(plain, mode=instructor.Mode.TOOLS)
    pet = client.chat.completions.create(**options, response_model=Pet)
    assert isinstance(pet, Pet), pet
    # This mode asks for any object and trusts the model with the rest.
    client = instructor.from_openai(plain, mode=instructor.Mode.JSON)
    # A small one does not always come to an end; where it does, that is mostly soon.
    for most, seed in [(most, seed) for most in (100, 300) for seed in range(12)]:
        asked = options | {"max_tokens": most, "seed": seed, "temperature": 1}
        try:
            anything = client.chat.completions.create(**asked, response_model=Anything)
        except IncompleteOutputException:
            continue
        assert isinstance(anything, Anything), anything
        return
    raise AssertionError("no answer ended")


def of_pydantic_ai():
    from pydantic_ai import Agent, NativeOutput, ToolOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=base_url, api_key="none")
    for output in (NativeOutput(Pet), ToolOutput(Pet)):
        agent = Agent(OpenAIChatModel(model, provider=provider), output_type=output)
        answered = agent.run_sync(question, model_settings={"max_tokens": 300})
        assert isinstance(answered.output, Pet), answered


def of_langchain():
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        base_url=base_url, api_key="none", model=model, max_tokens=300, max_retries=0, timeout=60
    )
    for method in ("json_schema", "function_calling"):
        pet = chat.with_structured_output(Pet, method=method).invoke(question)
        assert isinstance(pet, Pet), (method, pet)


{
    "openai": of_openai,
    "instructor": of_instructor,
    "pydantic-ai": of_pydantic_ai,
    "langchain": of_langchain,
}[client_name]()
print("typed answers ok")
