"""Open WebUI, unchanged, with a daemon as its Ollama and as its connection of OpenAI's kind for llama.cpp's server.

What its pages do is asked of it over its own HTTP API; what it then asks of the daemon passes a forwarder that writes
it down. The daemon has keys, and Open WebUI one of an administrator. Everything is on loopback, in a network of its
own that has nothing else, and everything that was started has ended when this ends.

Usage: open_webui.py DAEMON RUNTIME RECORD
DAEMON is the program, RUNTIME a fake library; RECORD becomes the list of what was asked and answered, as JSON.
"""

import contextlib
import fcntl
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid

daemon, runtime, record = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
HERE = pathlib.Path(__file__).parent
LOOPBACK = "127.0.0.1"
# Far longer than anything here takes.
PATIENCE = 300

# Writes calls as Hermes models do.
TEMPLATE = (HERE.parent / "daemon/function_calls.jinja").read_text()
# Words that are in none of the functions that Open WebUI adds by itself.
SLOW, BOTH, RESULT = "slowly-please", "both-of-them", "result-of"
WORDS = "one two three four five "
TITLE = '{ "title": "Counting" }'
CALLS = "".join(
    f'<tool_call>\n{{"name": "{name}", "arguments": {{"text": "{name}"}}}}\n</tool_call>\n' for name in "fg"
)
# The first whose question is in the prompt is taken.
ANSWERS = [
    ("Generate a concise title", [TITLE]),
    (RESULT, ["All done."]),
    (BOTH, ["<think>\nso\n</think>\n\n", "Let me see.\n", CALLS]),
    (SLOW, re.findall(r"\S+ ", WORDS)),
]


def bring_loopback_up():
    """A network of one's own has it, but down."""
    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def end_on_signals():
    """As it ends on failures: with all that was started."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def free_port():
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def until(what, found):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (value := found()) is not None:
            return value
        # Between two looks at another process there is no event to wait for.
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {PATIENCE} s")


@contextlib.contextmanager
def running(command, log, **settings):
    """A program and all that it starts, until the end of this; its last words are shown where that is a failure."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **settings)
    try:
        yield process
    except BaseException:
        print(f"--- {log}", *log.read_text(errors="replace").splitlines()[-60:], sep="\n", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Forwarder(http.server.BaseHTTPRequestHandler):
    """Hands on what is asked and answered as it comes, and writes it down."""

    protocol_version = "HTTP/1.1"
    address = None
    exchanges = []

    def forward(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding"):
            raise AssertionError("a body of unknown length")
        server = http.client.HTTPConnection(*self.address)
        server.request(self.command, self.path, body or None, dict(self.headers))
        answer = server.getresponse()
        exchange = {"method": self.command, "path": self.path, "body": readable(body), "status": answer.status}
        self.exchanges.append(exchange)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        told = b""
        try:
            while piece := answer.read1(65536):
                told += piece
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            exchange["left"] = True
        exchange["not_applied"] = answer.getheader("x-rkllmd-not-applied")
        exchange["answer"] = readable(told)
        server.close()

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = forward

    def log_message(self, *_):
        pass


class Hub(http.server.BaseHTTPRequestHandler):
    """Has one repository with one model, whose file is whole and can be listed, and speaks Hugging Face's protocol."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    NAME = "owner/name"
    FILE = "model-Q4_1.gguf"
    KEY, KIND = b"general.architecture", b"llama"
    # A header with one text, and no tensors.
    CONTENT = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", len(KEY))
        + KEY
        + struct.pack("<IQ", 8, len(KIND))
        + KIND
        + bytes(100_000)
    )

    def do_GET(self):
        digits = hashlib.sha256(self.CONTENT).hexdigest()
        size = len(self.CONTENT)
        path = self.path.split("?")[0]
        kind, body = "application/json", None
        if path == f"/api/models/{self.NAME}/revision/main":
            lfs = {"sha256": digits, "size": size, "pointerSize": 134}
            file = {"rfilename": self.FILE, "size": size, "blobId": self.COMMIT, "lfs": lfs}
            listing = {"id": self.NAME, "sha": self.COMMIT, "private": False, "gated": False, "siblings": [file]}
            body = json.dumps(listing).encode()
        elif path == f"/{self.NAME}/resolve/{self.COMMIT}/{self.FILE}":
            kind, body = "application/octet-stream", self.CONTENT
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("x-error-code", "RepoNotFound")
        else:
            self.send_header("x-repo-commit", self.COMMIT)
            self.send_header("x-linked-etag", f'"{digits}"')
            self.send_header("x-linked-size", str(size))
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


def readable(body):
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")


def serve(handler):
    """In threads that end with this; the port."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Page:
    """Asks Open WebUI as its pages do."""

    def __init__(self, port):
        self.port, self.token = port, None

    def ask(self, method, path, body=None):
        """The status and what was answered."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=PATIENCE)
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read().decode()
        connection.close()
        try:
            return answer.status, json.loads(said)
        except ValueError:
            return answer.status, said

    def get(self, path):
        return self.whole("GET", path)

    def post(self, path, body):
        return self.whole("POST", path, body)

    def whole(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        assert status == 200, (method, path, status, answer)
        return answer

    def is_up(self):
        try:
            return self.ask("GET", "/health")[0] == 200 or None
        except OSError:
            return None

    def chat(self, model, question, **more):
        """A streamed chat, put together: thoughts, content, calls and the reason of its end."""
        messages = question if isinstance(question, list) else [{"role": "user", "content": question}]
        said = {"thinking": "", "content": "", "calls": [], "reason": None, "usage": None}
        told = self.post("/api/chat/completions", {"model": model, "stream": True, "messages": messages, **more})
        events = [line.removeprefix("data: ") for line in told.splitlines() if line.startswith("data: ")]
        assert events and events.pop() == "[DONE]", told
        for event in map(json.loads, events):
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                said["thinking"] += delta.get("reasoning_content") or ""
                said["content"] += delta.get("content") or ""
                for call in delta.get("tool_calls") or ():
                    if call["index"] == len(said["calls"]):
                        said["calls"].append({"index": call["index"], "id": call["id"], "name": "", "arguments": ""})
                    for name in ("name", "arguments"):
                        said["calls"][call["index"]][name] += call["function"].get(name) or ""
                said["reason"] = choice.get("finish_reason") or said["reason"]
            said["usage"] = event.get("usage") or said["usage"]
        return said


def tool(name):
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return {"type": "function", "function": {"name": name, "description": "Does it", "parameters": parameters}}


def hold_conversations(page, model):
    said = page.chat(model, SLOW, stream_options={"include_usage": True})
    assert (said["content"], said["reason"]) == (WORDS, "stop"), said
    assert said["usage"]["completion_tokens"] > 0, said
    params = {"temperature": 0.1, "top_k": 20, "seed": 7, "max_tokens": 3, "num_ctx": 2048, "stop": ["four"]}
    said = page.chat(model, SLOW, params=params)
    assert said["content"].split() == WORDS.split()[:3], said

    # Two calls at once, and their results.
    tools = [tool("f"), tool("g")]
    question = {"role": "user", "content": BOTH}
    said = page.chat(model, [question], tools=tools)
    assert (said["thinking"].strip(), said["content"].strip()) == ("so", "Let me see."), said
    called = [(call["name"], json.loads(call["arguments"])) for call in said["calls"]]
    assert called == [("f", {"text": "f"}), ("g", {"text": "g"})], said
    assert said["reason"] == "tool_calls", said
    calls = [
        {
            "index": call["index"],
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for call in said["calls"]
    ]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"{RESULT} {call['name']}"} for call in said["calls"]
    ]
    turns = [question, {"role": "assistant", "content": said["content"], "tool_calls": calls}, *results]
    said = page.chat(model, turns, tools=tools)
    assert (said["content"], said["calls"], said["reason"]) == ("All done.", [], "stop"), said

    # What its pages ask for beside a chat.
    turns = [{"role": "user", "content": SLOW}, {"role": "assistant", "content": WORDS}]
    titled = page.post("/api/v1/tasks/title/completions", {"model": model, "messages": turns})
    assert titled["choices"][0]["message"]["content"] == TITLE, titled
    for task in ("tags", "follow_up", "queries", "emoji"):
        body = {"model": model, "messages": turns, "prompt": SLOW, "type": "web_search"}
        answered = page.post(f"/api/v1/tasks/{task}/completions", body)
        assert answered["choices"][0]["message"]["content"], (task, answered)
    # What is too long is told as the daemon says it.
    long = {"model": model, "stream": True, "messages": [{"role": "user", "content": "word " * 60_000}]}
    status, answer = page.ask("POST", "/api/chat/completions", long)
    assert status == 400 and "maximum context length" in json.dumps(answer), (status, answer)


def hold_kept_chat(page, model):
    """As the page does it: the answer is made behind it, and its title with it."""
    asked, answered = str(uuid.uuid4()), str(uuid.uuid4())
    question = {"id": asked, "parentId": None, "role": "user", "content": SLOW, "timestamp": int(time.time())}
    begun = page.post(
        "/api/chat/completions",
        {
            "model": model,
            "stream": True,
            "messages": [{"role": "user", "content": SLOW}],
            "params": {},
            "features": {},
            "variables": {},
            "id": answered,
            "parent_id": None,
            "session_id": str(uuid.uuid4()),
            "user_message": question,
            "background_tasks": {"title_generation": True, "tags_generation": True, "follow_up_generation": True},
        },
    )

    def finished():
        kept = page.get(f"/api/v1/chats/{begun['chat_id']}")
        message = kept["chat"]["history"]["messages"].get(answered) or {}
        is_titled = kept["title"] != "New Chat"
        return kept if message.get("done") and is_titled else None

    kept = until(f"an answer of {begun}", finished)
    said = kept["chat"]["history"]["messages"][answered]
    assert said["content"].strip() == WORDS.strip(), said
    assert kept["title"] == "Counting", kept["title"]


def manage_by_ollama(page):
    model = "m:latest"
    loaded = page.get("/ollama/api/ps")["models"]
    assert [entry["model"] for entry in loaded] == [model], loaded
    assert page.post("/ollama/api/show", {"model": model})["model_info"]
    vectors = page.post("/ollama/api/embed", {"model": model, "input": ["one", "two"]})["embeddings"]
    assert len(vectors) == 2, vectors
    assert page.post("/ollama/api/embeddings", {"model": model, "prompt": "one"})["embedding"]
    assert len(page.post("/api/embeddings", {"model": model, "input": ["one", "two"]})["data"]) == 2
    lines = page.post("/ollama/api/generate", {"model": model, "prompt": SLOW})
    assert "".join(json.loads(line)["response"] for line in lines.splitlines()) == WORDS, lines
    chunks = page.post(
        "/ollama/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": SLOW}]}
    )
    assert chunks["choices"][0]["message"]["content"] == WORDS, chunks

    assert page.post("/ollama/api/create/0", {"model": "kind", "from": model, "system": "Be kind."})["status"] == "success"
    assert page.post("/ollama/api/copy/0", {"source": "kind:latest", "destination": "kinder"}) is True
    for name in ("kind:latest", "kinder:latest"):
        assert page.whole("DELETE", "/ollama/api/delete/0", {"model": name}) is True
    lines = page.post("/ollama/api/pull/0", {"model": Hub.NAME}).splitlines()
    assert json.loads(lines[-1]) == {"status": "success"}, lines
    assert page.whole("DELETE", "/ollama/api/delete/0", {"model": f"{Hub.NAME}:latest"}) is True
    for method, path, asked, expected in (
        ("POST", "/ollama/api/pull/0", "llama3", 400),
        ("POST", "/ollama/api/pull/0", "owner/no-such-model", 404),
        ("DELETE", "/ollama/api/push/0", model, 400),
    ):
        status, answer = page.ask(method, path, {"model": asked})
        assert status == expected and answer["detail"], (path, asked, status, answer)

    assert page.post("/ollama/api/unload", {"model": model}) == {"status": True}
    assert page.get("/ollama/api/ps")["models"] == []


def manage_as_llama_server(page):
    def value():
        entries = page.get("/openai/models/0/catalog")["data"]
        return {entry["id"]: entry["status"]["value"] for entry in entries}

    assert value() == {"m": "unloaded"}, value()
    assert page.post("/openai/models/0/load", {"model": "m"})["success"] is True
    until("loading", lambda: value() == {"m": "loaded"} or None)
    assert page.post("/openai/models/0/unload", {"model": "m"})["success"] is True
    until("unloading", lambda: value() == {"m": "unloaded"} or None)
    # A download, its end, and that of the model.
    assert page.post("/openai/models/0/download", {"model": Hub.NAME})["success"] is True
    until("the download", lambda: value().get(Hub.NAME) == "unloaded" or None)
    assert page.whole("DELETE", f"/openai/models/0?model={Hub.NAME}")
    assert Hub.NAME not in value(), value()
    status, answer = page.ask("POST", "/openai/models/0/download", {"model": "llama3"})
    assert status == 400, (status, answer)
    status, answer = page.ask("DELETE", "/openai/models/0?model=no-such-model")
    assert status == 404, (status, answer)


def hold_session(page, url, key):
    newcomer = {"name": "First", "email": "first@example.com", "password": "a long password"}
    user = page.post("/api/v1/auths/signup", newcomer)
    assert user["role"] == "admin", user
    page.token = user["token"]
    listed = {entry["id"]: entry["owned_by"] for entry in page.get("/api/models?refresh=true")["data"]}
    assert {"m:latest", "m"} <= set(listed), listed
    assert page.get("/ollama/api/version")["version"]
    assert page.post("/ollama/verify", {"url": url, "key": key})["version"]
    verified = {"url": f"{url}/v1", "key": key, "config": {"provider": "llama.cpp"}}
    assert page.post("/openai/verify", verified)["data"]
    for path, wrong in (("/ollama/verify", {"url": url}), ("/openai/verify", verified)):
        status, answer = page.ask("POST", path, {**wrong, "key": "wrong"})
        assert status >= 400 and "the key is not valid" in json.dumps(answer), (path, status, answer)
    for model in ("m:latest", "m"):
        hold_conversations(page, model)
        hold_kept_chat(page, model)
    manage_by_ollama(page)
    manage_as_llama_server(page)


def main():
    end_on_signals()
    bring_loopback_up()
    with contextlib.ExitStack() as ends:
        folder = pathlib.Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="rkllmd-open-webui.")))
        model = folder / "models" / "m"
        model.mkdir(parents=True)
        (model / "chat_template.jinja").write_text(TEMPLATE)
        answers = "".join(
            f"[[answer]]\nwhen-prompt-contains = {json.dumps(question)}\ntokens = {json.dumps(tokens)}\n"
            for question, tokens in ANSWERS
        )
        (model / "model.rkllm").write_text(f'tokens = ["nothing"]\neos-token-id = 2\n{answers}')
        config = folder / "rkllmd.toml"
        hub = f"http://{LOOPBACK}:{serve(Hub)}"
        config.write_text(
            f"runtime.npu-library = {json.dumps(str(runtime))}\nhub.endpoint = {json.dumps(hub)}\nhub.keep-free-bytes = 0\n"
        )
        ours = {
            **os.environ,
            "RKLLMD_HTTP__KEYS_FILE": str(folder / "keys.toml"),
            "RKLLMD_LIBRARY__STATE_DIR": str(folder / "state"),
        }
        command = [daemon, "keys", "add", "open-webui", "--role", "admin", "--config", "/dev/null"]
        key = subprocess.run(command, env=ours, check=True, capture_output=True, text=True).stdout.strip()

        log = folder / "daemon.log"
        command = [daemon, "serve", "--config", config, "--models", folder / "models", "--listen", f"{LOOPBACK}:0"]
        ends.enter_context(running(command, log, env=ours))
        listening = until("listening", lambda: re.search(r"listening address=127\.0\.0\.1:(\d+)", log.read_text()))
        Forwarder.address = (LOOPBACK, int(listening[1]))
        url = f"http://{LOOPBACK}:{serve(Forwarder)}"

        # Its parts that are for the internet, for documents and for models of its own are off.
        theirs = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DATA_DIR": str(folder / "data"),
            "STATIC_DIR": str(folder / "static"),
            "WEBUI_SECRET_KEY": "of this session",
            "USE_SLIM_DOCKER": "true",
            "OFFLINE_MODE": "true",
            "ENABLE_VERSION_UPDATE_CHECK": "false",
            "ANONYMIZED_TELEMETRY": "false",
            "DO_NOT_TRACK": "true",
            "SCARF_NO_ANALYTICS": "true",
            "ENABLE_COMMUNITY_SHARING": "false",
            "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
            "OLLAMA_BASE_URLS": url,
            "OLLAMA_API_CONFIGS": json.dumps({"0": {"enable": True, "key": key}}),
            "OPENAI_API_BASE_URLS": f"{url}/v1",
            "OPENAI_API_KEYS": key,
            "OPENAI_API_CONFIGS": json.dumps({"0": {"enable": True, "provider": "llama.cpp"}}),
            "MODELS_CACHE_TTL": "1",
        }
        port = free_port()
        program = pathlib.Path(sys.executable).parent / "open-webui"
        command = [sys.executable, program, "serve", "--host", LOOPBACK, "--port", str(port)]
        (folder / "data").mkdir()
        process = ends.enter_context(running(command, folder / "open-webui.log", env=theirs, cwd=folder))
        page = Page(port)

        def up():
            assert process.poll() is None, "Open WebUI has ended"
            return page.is_up()

        until("Open WebUI being there", up)
        try:
            hold_session(page, url, key)
        finally:
            record.write_text(json.dumps(Forwarder.exchanges, indent=1).replace(key, "KEY"))


main()
print("whole session ok")
