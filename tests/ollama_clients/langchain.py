"""A session of `langchain-ollama`, unchanged, with a daemon.

Usage: langchain.py HOST MODEL ARGUMENTS REAL
The models answer as for `home_assistant.py`.
"""

import json
import sys

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from ollama import ResponseError

host, model, expected, real = sys.argv[1:]
expected = json.loads(expected)
answer = "one two three four five "


@tool
def f(text: str) -> str:
    """Does it."""
    return "first of f"


@tool
def g(text: str) -> str:
    """Does it as well."""
    return "first of g"


# Chats, whole and streamed.
chat = ChatOllama(model=model, base_url=host, temperature=0, keep_alive="5m", validate_model_on_init=True)
whole = chat.invoke("slow")
assert whole.content == answer, whole
assert whole.usage_metadata["output_tokens"] in (5, 6), whole
assert whole.response_metadata["done_reason"] == "stop", whole
chunks = list(chat.stream("slow"))
assert "".join(chunk.content for chunk in chunks) == answer and len(chunks) > 2, chunks

# An agent's loop with two calls at once, and thoughts.
thinker = ChatOllama(model=model, base_url=host, reasoning=True).bind_tools([f, g])
asked = HumanMessage("both")
for streamed in (False, True):
    said = None
    for part in thinker.stream([asked]) if streamed else [thinker.invoke([asked])]:
        said = part if said is None else said + part
    assert said.additional_kwargs["reasoning_content"] == "so", said
    calls = [(call["name"], call["args"]) for call in said.tool_calls]
    assert calls == [("f", expected), ("g", {"text": "x"})], calls
    turn = AIMessage(said.content, tool_calls=said.tool_calls)
    results = [
        ToolMessage(f"first of {call['name']}", tool_call_id=call["id"], name=call["name"])
        for call in said.tool_calls
    ]
    last = ChatOllama(model=model, base_url=host, reasoning=False).bind_tools([f, g])
    assert last.invoke([asked, turn, *results]).content == "All done."

# An answer of a form.
schema = {
    "title": "Lamp",
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
}
formed = ChatOllama(model=real, base_url=host).with_structured_output(schema, method="json_schema")
assert isinstance(formed.invoke("Is the lamp on?")["on"], bool)

# A text, and embeddings.
assert OllamaLLM(model=model, base_url=host).invoke("slow") == answer
embeddings = OllamaEmbeddings(model=model, base_url=host)
assert len(embeddings.embed_documents(["one", "one two three"])) == 2
assert len(embeddings.embed_query("one")) == 8

# What is refused.
try:
    ChatOllama(model="no-such-model", base_url=host).invoke("slow")
except ResponseError as error:
    assert error.status_code == 404 and "not found" in error.error, error
else:
    raise AssertionError("a model came from nowhere")

print("whole session ok")
