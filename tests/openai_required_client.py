"""Calls that are required, with the official `openai` package, unchanged.

Usage: openai_required_client.py BASE_URL MODEL
The functions are pydantic models, strict, and the client itself parses what the model calls them with.
"""

import sys
from typing import Annotated, Literal

import openai
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
model = sys.argv[2]


class Weather(BaseModel):
    place: Annotated[str, Field(max_length=12)]
    unit: Literal["celsius", "fahrenheit"]


class Lamp(BaseModel):
    on: bool
    level: Annotated[int, Field(ge=0, le=9)]


tools = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Lamp)]
messages = [{"role": "user", "content": "What is the weather in Bern?"}]
common = {"model": model, "messages": messages, "tools": tools, "max_tokens": 300, "temperature": 1.5}
one = {"tool_choice": "required", "parallel_tool_calls": False}
lamp = {"tool_choice": {"type": "function", "function": {"name": "Lamp"}}}

for seed in range(3):
    choice = client.chat.completions.parse(**common, **one, seed=seed).choices[0]
    [call] = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls", choice
    assert isinstance(call.function.parsed_arguments, (Weather, Lamp)), call

    choice = client.chat.completions.parse(**common, **lamp, seed=seed).choices[0]
    [call] = choice.message.tool_calls
    assert choice.finish_reason == "stop", choice
    assert isinstance(call.function.parsed_arguments, Lamp), call

    with client.chat.completions.stream(**common, **one, seed=seed) as stream:
        for _ in stream:
            pass
        [call] = stream.get_final_completion().choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, (Weather, Lamp)), call

print("required calls ok")
