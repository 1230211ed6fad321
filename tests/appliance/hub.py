#!/usr/bin/env python3
"""A hub with one repository of one model, as far as pulls ask it: hub.py ADDRESS:PORT OWNER/NAME FILE"""

import hashlib
import http.server
import json
import os
import sys

COMMIT = "0123456789abcdef0123456789abcdef01234567"
address, repository, path = sys.argv[1:]
name = os.path.basename(path)
size = os.path.getsize(path)
with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
        hashlib.sha256(file.read()).hexdigest()
LISTING = json.dumps({
    "id": repository, "sha": COMMIT, "private": False, "gated": False, "cardData": {"license": "apache-2.0"},
    "siblings": [{"rfilename": name, "size": size, "blobId": COMMIT,
                  "lfs": {"sha256": digest, "size": size, "pointerSize": 134}}],
}).encode()


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.path.split("?")[0]
        if asked == f"/api/models/{repository}/revision/main":
            self.answer(200, {"content-type": "application/json", "content-length": str(len(LISTING))})
            self.wfile.write(LISTING)
        elif asked == f"/{repository}/resolve/{COMMIT}/{name}":
            start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {"content-length": str(size - start), "accept-ranges": "bytes", "x-repo-commit": COMMIT,
                       "x-linked-etag": f'"{digest}"', "x-linked-size": str(size)}
            if start:
                headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
            self.answer(206 if start else 200, headers)
            with open(path, "rb") as file:
                file.seek(start)
                while piece := file.read(1 << 20):
                    self.wfile.write(piece)
        else:
            self.answer(404, {"x-error-code": "EntryNotFound", "content-length": "0"})

    def answer(self, status, headers):
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()


host, port = address.split(":")
http.server.ThreadingHTTPServer((host, int(port)), Hub).serve_forever()
