"""A session on a WebSocket of the official `openai` package about responses, unchanged, with a daemon.

Usage: socket_session.py BASE_URL KEY OTHER_KEY MODEL REAL SHORT
MODEL answers "slow" with "one two three four five "; REAL is a model whose tokens are known; the context of SHORT has 64
tokens, each a word.
"""

import asyncio
import sys

import openai

url, key, other_key, model, real, short = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
answer = "one two three four five "


def end_of(events):
    """What one response came to, with its events in order."""
    events = list(events)
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    assert events[0].type == "response.created", events
    ended = events[-1].response
    assert events[0].response.id == ended.id, events
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == ended.output_text, events
    return ended


def until_the_end(connection):
    for event in connection:
        assert event.type != "error", event
        yield event
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            return


def ask(connection, **fields):
    connection.response.create(**fields)
    return end_of(until_the_end(connection))


def refused(connection, status, code, **fields):
    connection.response.create(**fields)
    event = connection.recv()
    assert event.type == "error", event
    assert (event.status, event.error.code) == (status, code), event


with client.responses.connect() as connection:
    first = ask(connection, model=model, input="slow", store=False, metadata={"a": "b"})
    assert (first.output_text, first.status, first.metadata) == (answer, "completed", {"a": "b"}), first
    second = ask(connection, model=model, input="slow", store=False, previous_response_id=first.id)
    assert (second.output_text, second.previous_response_id) == (answer, first.id), second
    # Only the last one of a socket is there.
    gone = dict(model=model, input="slow", previous_response_id=first.id)
    refused(connection, 400, "previous_response_not_found", **gone)
    refused(connection, 404, "model_not_found", model="absent", input="slow")
    refused(connection, 400, "missing_required_parameter", model=model)
    # One that is kept is found without the socket too.
    kept = ask(connection, model=model, input="slow")
    assert client.responses.retrieve(kept.id).output_text == answer, kept
    cut = ask(connection, model=model, input="slow", max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens"), cut

    # What is evaluated beforehand is not evaluated again.
    told = "You answer in one word. " * 40
    question = dict(model=real, instructions=told, store=False, temperature=0)
    prepared = ask(connection, input="Is the sky blue?", generate=False, **question)
    assert (prepared.status, prepared.output, prepared.usage.output_tokens) == ("completed", [], 0), prepared
    evaluated = prepared.usage.input_tokens
    assert evaluated > 40, prepared
    done = ask(connection, input=[], previous_response_id=prepared.id, max_output_tokens=4, **question)
    assert done.usage.input_tokens == evaluated and done.usage.output_tokens > 0, done
    # Its last part of 64 tokens is evaluated in any case.
    assert done.usage.input_tokens_details.cached_tokens > evaluated // 2, done

    # A history that is too long is cut to what its answer will have of it, not to what fits without one.
    turns = []
    for turn in range(10):
        turns.append({"role": "user", "content": f"asked{turn} b c d"})
        turns.append({"role": "assistant", "content": f"said{turn} f g h"})
    turns.append({"role": "user", "content": "last"})
    history = dict(model=short, truncation="auto", store=False)
    prepared = ask(connection, input=turns, generate=False, **history)
    done = ask(connection, input=[], previous_response_id=prepared.id, **history)
    assert 0 < prepared.usage.input_tokens == done.usage.input_tokens, (prepared, done)

# Several streams of one socket, as OpenAI's guide has them: two conversations, and a fork beside one of them.
with client.responses.connect() as connection:

    def send(stream, **fields):
        connection.response.create(stream_id=stream, model=model, input="slow", store=False, **fields)

    def ends_of(streams):
        heard, ended = {stream: [] for stream in streams}, {}
        while len(ended) < len(streams):
            event = connection.recv()
            assert event.type != "error", event
            heard[event.stream_id].append(event)
            if event.type == "response.completed":
                ended[event.stream_id] = end_of(heard[event.stream_id])
                assert ended[event.stream_id].output_text == answer, event
        return ended

    for stream in ("planner", "research"):
        send(stream)
    plan = ends_of(["planner", "research"])["planner"].id
    for stream in ("critic", "planner"):
        send(stream, previous_response_id=plan)
    ended = ends_of(["critic", "planner"])
    assert [response.previous_response_id for response in ended.values()] == [plan, plan], ended
    send("no such name")
    event = connection.recv()
    assert (event.type, event.error.code) == ("error", "invalid_stream_id"), event

stranger = openai.OpenAI(base_url=url, api_key=other_key, max_retries=0, timeout=60)
with stranger.responses.connect() as connection:
    foreign = dict(model=model, input="slow", previous_response_id=kept.id)
    refused(connection, 400, "previous_response_not_found", **foreign)


async def handlers():
    """The same by handlers, and a second connection at the same time."""
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
    async with client.responses.connect() as one, client.responses.connect() as two:
        said = []
        for connection in (one, two):
            await connection.response.create(model=model, input="slow", store=False)
        for connection in (one, two):
            text = ""
            async for event in connection:
                if event.type == "response.output_text.delta":
                    text += event.delta
                if event.type == "response.completed":
                    break
            said.append(text)
        assert said == [answer, answer], said


asyncio.run(handlers())
print("whole session ok")
