#!/usr/bin/env python3
"""A client of rkllmd's JSON-RPC in Python's standard library: a whole session on the Unix socket or
over a WebSocket. It checks what it gets and ends with status 1 at the first thing that is wrong.

    python3 examples/rpc_client.py --unix /run/rkllmd/rpc.sock --model my-model
    python3 examples/rpc_client.py --url ws://127.0.0.1:8080/rpc/ws --model my-model --adapter my-adapter
"""

import argparse
import base64
import collections
import hashlib
import itertools
import json
import os
import socket
import struct
import sys
import urllib.parse


class RpcError(Exception):
    """An error that the daemon answered."""

    def __init__(self, error):
        super().__init__(f"{error['code']} {error['message']}")
        self.code = error["code"]
        self.name = error["data"]["code"]
        self.data = error["data"]


class UnixTransport:
    """A message a line."""

    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.reader = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text.encode() + b"\n")

    def receive(self):
        line = self.reader.readline()
        if not line:
            raise EOFError("the daemon closed the connection")
        return line.decode()

    def close(self):
        self.reader.close()
        self.socket.close()


class WebSocketTransport:
    """A message a text frame (RFC 6455)."""

    TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

    def __init__(self, url, timeout, key=None):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "ws":
            raise ValueError(f"not a ws:// address: {url}")
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout)
        self.reader = self.socket.makefile("rb")
        nonce = base64.b64encode(os.urandom(16)).decode()
        head = [
            f"GET {parts.path or '/'} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {nonce}",
        ]
        if key:
            head.append(f"Authorization: Bearer {key}")
        self.socket.sendall("\r\n".join(head + ["", ""]).encode())
        status = self.reader.readline().decode()
        headers = {}
        while line := self.reader.readline().decode().strip():
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        if " 101 " not in status:
            raise ConnectionError(f"no WebSocket: {status.strip()}")
        magic = nonce + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        expected = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        check("handshake", headers.get("sec-websocket-accept") == expected)

    def send(self, text):
        self.frame(self.TEXT, text.encode())

    def frame(self, opcode, payload):
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        repeated = (mask * (length // 4 + 1))[:length]
        masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
        self.socket.sendall(head + mask + masked.to_bytes(length, "big"))

    def exactly(self, count):
        data = self.reader.read(count)
        if len(data) < count:
            raise EOFError("the daemon closed the connection")
        return data

    def receive(self):
        message = b""
        while True:
            first, second = self.exactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self.exactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self.exactly(8))
            payload = self.exactly(length)
            opcode = first & 0x0F
            if opcode == self.PING:
                self.frame(self.PONG, payload)
            elif opcode == self.CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else None
                raise EOFError(f"the daemon closed the WebSocket: {code} {payload[2:].decode()}")
            elif opcode != self.PONG:
                message += payload
                if first & 0x80:
                    return message.decode()

    def close(self):
        self.frame(self.CLOSE, struct.pack("!H", 1000))
        self.reader.close()
        self.socket.close()


class Client:
    """Calls, and the notifications that come between their answers."""

    def __init__(self, transport):
        self.transport = transport
        self.ids = itertools.count(1)
        self.notifications = collections.deque()
        self.answers = {}

    def send(self, method, **params):
        call = next(self.ids)
        message = {"jsonrpc": "2.0", "id": call, "method": method, "params": params}
        self.transport.send(json.dumps(message))
        return call

    def answer(self, call):
        while call not in self.answers:
            self.read()
        message = self.answers.pop(call)
        if "error" in message:
            raise RpcError(message["error"])
        return message["result"]

    def call(self, method, **params):
        return self.answer(self.send(method, **params))

    def notification(self):
        while not self.notifications:
            self.read()
        return self.notifications.popleft()

    def read(self):
        message = json.loads(self.transport.receive())
        if "method" in message:
            self.notifications.append((message["method"], message["params"]))
        else:
            self.answers[message["id"]] = message

    def events(self, run):
        """The notifications of a run that was started with rkllm.run_async, to its end."""
        while True:
            method, params = self.notification()
            if params["run"] != run:
                continue
            yield method, params
            if method == "rkllm.ended":
                return


def check(what, holds, detail=""):
    if not holds:
        raise SystemExit(f"FAILED: {what} {detail}")


def floats(tensor):
    """Rows of a tensor."""
    check("dtype", tensor["dtype"] == "float32")
    rows, columns = tensor["shape"]
    data = base64.b64decode(tensor["data"])
    check("tensor size", len(data) == 4 * rows * columns, f"{len(data)} for {tensor['shape']}")
    values = struct.unpack(f"<{rows * columns}f", data)
    return [values[row * columns : (row + 1) * columns] for row in range(rows)]


def check_perf(perf):
    check("perf", perf is not None)
    check("prefill time", perf["prefill_time_ms"] > 0, str(perf))
    check("prefill tokens", perf["prefill_tokens"] > 0, str(perf))
    check("generate time", perf["generate_time_ms"] > 0, str(perf))
    check("generate tokens", perf["generate_tokens"] > 0, str(perf))


def session(client, options):
    defaults = client.call("rkllm.createDefaultParam", model_path=options.model)
    check("default context", defaults["param"]["max_context_len"] > 0)
    print("library", defaults["library_version"])

    param = {"max_new_tokens": options.max_new_tokens}
    handle = client.call("rkllm.init", model_path=options.model, param=param)["handle"]
    check("handle", len(handle) == 32)
    prompt = {"role": "user", "prompt_input": options.prompt}

    # A streamed run.
    run = client.call("rkllm.run_async", handle=handle, rkllm_input=prompt)["run"]
    events = list(client.events(run))
    method, ended = events.pop()
    check("the run's end", method == "rkllm.ended" and ended.get("return_code") == 0, str(ended))
    streamed = "".join(event.get("text", "") for _, event in events)
    check("streamed text", streamed != "")
    check("FINISH", events[-1][1]["state"] == "RKLLM_RUN_FINISH", str(events[-1]))
    check_perf(events[-1][1].get("perf"))
    print("streamed", len(events), "results:", repr(streamed[:60]))

    # The same run, waited for.
    result = client.call("rkllm.run", handle=handle, rkllm_input=prompt)["results"][0]
    check("a whole answer", result["text"] != "" and result["token_ids"], str(result))
    check_perf(result.get("perf"))

    # Abort in the middle.
    long_prompt = {"role": "user", "prompt_input": options.long_prompt}
    run = client.call("rkllm.run_async", handle=handle, rkllm_input=long_prompt)["run"]
    texts = 0
    events = client.events(run)
    while texts < 3:
        method, event = next(events)
        check("a long run", method == "rkllm.result", str(event))
        texts += event["state"] in ("RKLLM_RUN_NORMAL", "RKLLM_RUN_WAITING")
    running = client.call("rkllm.is_running", handle=handle)
    check("is_running during a run", running["running"] is True, str(running))
    client.call("rkllm.abort", handle=handle)
    rest = list(events)
    check("the aborted run's end", rest[-1][0] == "rkllm.ended", str(rest[-1]))
    running = client.call("rkllm.is_running", handle=handle)
    check("is_running after it", running["running"] is False, str(running))
    print("aborted after", texts + len(rest) - 1, "results; answered by", running["answered_by"])

    # Hidden states, the last row and all rows.
    infer = {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"}
    client.call("rkllm.clear_kv_cache", handle=handle, keep_system_prompt=0)
    last = client.call("rkllm.run", handle=handle, rkllm_input=prompt, rkllm_infer_params=infer)
    last = floats(last["results"][0]["last_hidden_layer"])
    client.call("rkllm.clear_kv_cache", handle=handle, keep_system_prompt=0)
    rows = client.call(
        "rkllm.run", handle=handle, rkllm_input=prompt, rkllm_infer_params=infer, rows="all"
    )
    rows = floats(rows["results"][0]["last_hidden_layer"])
    check("one row", len(last) == 1 and len(rows) >= 1)
    check("the last row", last[0] == rows[-1])
    check("hidden states", any(value != 0 for value in last[0]))
    print("hidden states", len(rows), "x", len(rows[0]))

    # Logits.
    infer = {"mode": "RKLLM_INFER_GET_LOGITS"}
    client.call("rkllm.clear_kv_cache", handle=handle, keep_system_prompt=0)
    logits = client.call("rkllm.run", handle=handle, rkllm_input=prompt, rkllm_infer_params=infer)
    logits = floats(logits["results"][0]["logits"])
    check("logits", len(logits) == 1 and any(value != 0 for value in logits[0]))
    print("logits 1 x", len(logits[0]))

    # LoRA.
    if options.adapter:
        adapter = {"lora_adapter_path": options.adapter, "lora_adapter_name": "style", "scale": 1.0}
        client.call("rkllm.load_lora", handle=handle, lora_adapter=adapter)
        infer = {"lora_params": {"lora_adapter_name": "style"}}
        result = client.call("rkllm.run", handle=handle, rkllm_input=prompt, rkllm_infer_params=infer)
        print("with the adapter:", repr(result["results"][0]["text"][:60]))

    # A prompt cache: saved, loaded, released.
    if options.cache:
        infer = {"prompt_cache_params": {"save_prompt_cache": 1, "prompt_cache_path": options.cache}}
        client.call("rkllm.run", handle=handle, rkllm_input=prompt, rkllm_infer_params=infer)
        client.call("rkllm.clear_kv_cache", handle=handle, keep_system_prompt=0)
        client.call("rkllm.load_prompt_cache", handle=handle, prompt_cache_path=options.cache)
        client.call("rkllm.run", handle=handle, rkllm_input=prompt)
        client.call("rkllm.release_prompt_cache", handle=handle)
        print("prompt cache saved, loaded and released")

    sizes = client.call("rkllm.get_kv_cache_size", handle=handle)["cache_sizes"]
    check("KV cache sizes", len(sizes) == 1)

    client.call("rkllm.destroy", handle=handle)
    try:
        client.call("rkllm.is_running", handle=handle)
        check("a destroyed handle is unknown", False)
    except RpcError as error:
        check("a destroyed handle is unknown", error.name == "unknown_handle", str(error))
    print("OK")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--unix", metavar="PATH", help="the Unix socket")
    where.add_argument("--url", help="the WebSocket, ws://HOST:PORT/rpc/ws")
    parser.add_argument("--key", help="an API key, for the WebSocket")
    parser.add_argument("--model", required=True, help="id of an installed model")
    parser.add_argument("--adapter", help="name of a LoRA adapter in the daemon's state folder")
    parser.add_argument("--cache", help="name of a prompt cache to write into the state folder")
    parser.add_argument("--prompt", default="Why is the sky blue?")
    parser.add_argument("--long-prompt", default="Tell me a long story about a lighthouse.")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=120, help="seconds of silence")
    options = parser.parse_args()
    if options.unix:
        transport = UnixTransport(options.unix, options.timeout)
    else:
        transport = WebSocketTransport(options.url, options.timeout, options.key)
    client = Client(transport)
    session(client, options)
    transport.close()


if __name__ == "__main__":
    try:
        main()
    except RpcError as error:
        sys.exit(f"FAILED: {error} {error.data}")
