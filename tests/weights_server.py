"""A real HTTP server on this machine that serves files well, badly, slowly or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "89abcdef0123456789abcdef0123456789abcdef"
QUOTA_PAGE = b"""<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>
</body></html>"""


class Server(ThreadingHTTPServer):
    """Serves `content` under /good, /truncated, /flipped, /quota, /missing, /dropped and /slow.

    It is also a hub with one repository, whose files are those of the folder `repository`.

    Attributes:
        requests: how often each path was asked for.
        sent: bytes of bodies sent for each path.
        drops: how many more answers of /dropped and of the hub's files break off half-way.
        pace: seconds between the pieces of /slow.
        held_at: of /slow so many bytes come, until this is raised.
    """

    daemon_threads = True

    def __init__(self, content: bytes, repository: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.repository = content, repository
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.drops = 0
        self.pace = 0.0
        self.held_at = float("inf")
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer()

    def answer(self, head=False):
        path = self.path.split("?")[0]
        with self.server.lock:
            self.server.requests[f"HEAD {path}" if head else path] += 1
        if path.startswith("/api/models/"):
            answer = self.repository_tree() if "/tree/" in path else self.repository_info()
            return self.body(json.dumps(answer).encode(), {"Content-Type": "application/json"}, head)
        found = re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)", path)
        if found:
            return self.hub_file(found[1], head)
        content = self.server.content
        half = len(content) // 2
        if path == "/truncated":
            content = content[:half]
        elif path == "/flipped":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        elif path == "/quota":
            content = QUOTA_PAGE
        elif path == "/missing":
            return self.send_error(404)
        return self.body(content, {}, head)

    def body(self, content, headers, head):
        start = 0
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if span:
            start = int(span[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not head:
            self.pieces(content[start:])

    def pieces(self, content):
        path = self.path.split("?")[0]
        with self.server.lock:
            drop = self.breaks_off(path) and self.server.drops > 0
            self.server.drops -= drop
        if drop:
            content = content[: len(content) // 2]
            self.close_connection = True
        size = 16384 if path == "/slow" else len(content) or 1
        for start in range(0, len(content), size):
            piece = content[start : start + size]
            while path == "/slow" and start >= self.server.held_at:
                time.sleep(0.01)
            with self.server.lock:  # before: who has read all of it may look at once
                self.server.sent[path] += len(piece)
            self.wfile.write(piece)
            if path == "/slow":
                time.sleep(self.server.pace)

    def breaks_off(self, path):
        return path == "/dropped" or path.endswith(".bin")

    def repository_info(self):
        siblings = [{"rfilename": entry["path"]} for entry in self.repository_tree()]
        return {"id": "x/y", "modelId": "x/y", "sha": REVISION, "siblings": siblings}

    def repository_tree(self):
        entries = []
        for file in sorted(self.server.repository.iterdir()):
            digest, size = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
            lfs = {"oid": digest, "size": size, "pointerSize": 134}
            entries.append({"type": "file", "path": file.name, "size": size, "oid": digest[:40], "lfs": lfs})
        return entries

    def hub_file(self, name, head):
        file = self.server.repository / name
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": REVISION}
        return self.body(content, headers, head)

    def log_message(self, *_):
        pass
