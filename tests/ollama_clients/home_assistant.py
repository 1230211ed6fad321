"""What Home Assistant's `ollama` integration asks, in its order, with the package that it pins.

Read from `homeassistant/components/ollama` of its release 2026.11.0: `config_flow.py` and `__init__.py`
list the models, where 401 and 403 mean a wrong key; `entity.py` streams chats in rounds, whose results
have neither ids nor names; `ai_task.py` asks for JSON of a schema.

Usage: home_assistant.py HOST KEY MODEL ARGUMENTS REAL
The model answers as for `ollama_client.py`; REAL is one whose answers can be kept to a format.
"""

import asyncio
import json
import sys

import ollama

host, key, model, expected, real = sys.argv[1:]
expected = json.loads(expected)
ROUNDS = 10


def client(key):
    return ollama.AsyncClient(host=host, headers={"Authorization": f"Bearer {key}"}, verify=True)


def tool(name):
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    function = {"name": name, "parameters": parameters, "description": "Does it"}
    return {"type": "function", "function": function}


async def deltas(stream):
    """As `_transform_stream` puts an answer together."""
    said = {"content": "", "thinking": "", "calls": []}
    async for response in stream:
        message = response["message"]
        for call in message.get("tool_calls") or ():
            said["calls"].append((call["function"]["name"], call["function"]["arguments"]))
        said["content"] += message.get("content") or ""
        said["thinking"] += message.get("thinking") or ""
    assert response["done"], response
    return said


async def ask(server, messages, model=model, tools=None, think=False, structure=None, keep_alive=-1):
    stream = await server.chat(
        model=model,
        messages=list(messages),
        tools=tools,
        stream=True,
        keep_alive=keep_alive,
        options={"num_ctx": 8192},
        think=think,
        format=structure,
    )
    return await deltas(stream)


async def main():
    try:
        await client("wrong").list()
    except ollama.ResponseError as error:
        assert error.status_code in (401, 403), error
    else:
        raise AssertionError("a wrong key was taken")
    server = client(key)
    async with asyncio.timeout(5):
        listed = (await server.list()).models
    # The name that is chosen from the list is compared as it is.
    chosen = f"{model}:latest"
    assert chosen in [entry.model for entry in listed], listed
    try:
        await server.pull("qwen3:4b-instruct")
    except ollama.ResponseError as error:
        assert 400 <= error.status_code < 500, error
    else:
        raise AssertionError("a model came from nowhere")

    # A conversation with functions.
    system = ollama.Message(role="system", content="You are a voice assistant.")
    history = [system, ollama.Message(role="user", content="both")]
    tools = [tool("f"), tool("g")]
    for think, thought in ((True, "so"), (False, "")):
        messages, rounds = list(history), 0
        while rounds < ROUNDS:
            rounds += 1
            said = await ask(server, messages, chosen, tools, think)
            turn = ollama.Message.ToolCall
            calls = [turn(function=turn.Function(name=n, arguments=a)) for n, a in said["calls"]]
            messages.append(
                ollama.Message(
                    role="assistant",
                    content=said["content"],
                    thinking=said["thinking"] or None,
                    tool_calls=calls or None,
                )
            )
            if not calls:
                break
            assert said["calls"] == [("f", expected), ("g", {"text": "x"})], said
            assert not think or said["thinking"] == thought, said
            for name, _ in said["calls"]:
                result = json.dumps({"data": f"first of {name}", "error": None})
                messages.append(ollama.Message(role="tool", content=result))
        assert (rounds, said["content"]) == (2, "All done."), (rounds, said)
    # As its options may have it.
    said = await ask(server, [system, ollama.Message(role="user", content="slow")], keep_alive="300s")
    assert said["content"] == "one two three four five ", said

    # A task whose answer has a form.
    structure = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "name": {"type": "string", "enum": ["lamp", "fan"]}},
        "required": ["on", "name"],
    }
    task = [system, ollama.Message(role="user", content="Is the lamp on?")]
    said = await ask(server, task, real, structure=structure)
    answer = json.loads(said["content"])
    assert isinstance(answer["on"], bool) and answer["name"] in ("lamp", "fan"), answer


asyncio.run(main())
print("whole session ok")
