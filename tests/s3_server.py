"""An S3 server of its own process on this machine (moto), which can be stopped, and fails as told.

Its objects outlive it: told to end, it writes them to its folder, and begins with them the next time. As a
process: `python -m tests.s3_server FOLDER PORT`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

KEY, SECRET = "AKIATESTTESTTEST", "sEcReTsEcReTsEcReT"
BUCKET = "images"
MADE = re.compile(rf"/{BUCKET}/made/.*\.parquet")
SECONDS_TO_START = 300


class S3Server:
    """The server, as the tests see it.

    Args:
        folder: for its objects and faults, while it does not run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Held as long as there is this object, or others could take the port while the server does not run.
        self.held = socket.socket()
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(("127.0.0.1", 0))
        self.port = self.held.getsockname()[1]
        if sys.platform != "linux":  # where the server could not have it then
            self.held.close()
        self.told = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """By which the drivers find it, and their credentials."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self, **faults: int) -> S3Server:
        self.fail(**faults)
        command = [sys.executable, "-m", "tests.s3_server", str(self.folder), str(self.port)]
        with open(self.folder / "log", "ab") as log:
            place = Path(__file__).resolve().parent.parent
            self.process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
        until = time.monotonic() + SECONDS_TO_START
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it; its objects are kept."""
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=SECONDS_TO_START)
            self.process = None

    def fail(self, **faults: int) -> None:
        """How many of the next requests for objects are answered with `unavailable` (503), and then with
        a `reset` of the connection; with `denied` above 0, all writes are refused. When there are `made`
        parquets below made/, further ones wait for it to be told more."""
        self.told += 1
        part = self.folder / "faults-part"
        part.write_text(json.dumps([self.told, faults]))
        part.replace(self.folder / "faults.json")

    def requests(self) -> int:
        """How many it was sent since it began."""
        return (self.folder / "log").read_text().count(" HTTP/1.1")

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A server that runs, and by which the drivers of this process and of those that it starts find it."""
    from s3fs import S3FileSystem

    server = S3Server(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # or the one of another test's server is taken
        yield server.start()
        server.stop()
        S3FileSystem.clear_instance_cache()


class _Faulty:
    """The application behind it, with the faults of the folder's file."""

    def __init__(self, application, folder: Path, made: set[str]) -> None:
        self.application = application
        self.file = folder / "faults.json"
        self.told, self.faults = -1, {}
        self.made = made
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        while not self._may_be_made(environ):
            time.sleep(0.01)
        fault = self._next_fault(environ)
        if fault == "reset":
            connection = environ["werkzeug.socket"]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(connection.detach())
            raise ConnectionResetError("as told")
        if fault:
            status, code = {
                "unavailable": ("503 Service Unavailable", "ServiceUnavailable"),
                "denied": ("403 Forbidden", "AccessDenied"),
            }[fault]
            start_response(status, [("Content-Type", "text/xml")])
            return [f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()]
        return self.application(environ, start_response)

    def _listen(self) -> None:
        told, faults = json.loads(self.file.read_text())
        if told != self.told:
            self.told, self.faults = told, faults

    def _may_be_made(self, environ) -> bool:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "PUT" or not MADE.fullmatch(path):
            return True
        with self.lock:
            self._listen()
            may = path in self.made or len(self.made) < self.faults.get("made", sys.maxsize)
            if may:
                self.made.add(path)
            return may

    def _next_fault(self, environ) -> str:
        if environ["PATH_INFO"].count("/") < 2:
            return ""
        with self.lock:
            self._listen()
            if self.faults.get("denied") and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                return "denied"
            for name in ("unavailable", "reset"):
                if self.faults.get(name, 0) > 0:
                    self.faults[name] -= 1
                    return name
        return ""


def serve(folder: Path, port: int) -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    kept = folder / "objects"
    kept.mkdir(exist_ok=True)
    names = []
    for file in kept.iterdir():
        names.append(unquote(file.name))
        backend.put_object(BUCKET, names[-1], file.read_bytes())
        file.unlink()
    made = {path for name in names if MADE.fullmatch(path := f"/{BUCKET}/{name}")}
    application = _Faulty(DomainDispatcherApplication(create_backend_app), folder, made)
    server = make_server("127.0.0.1", port, application, threaded=True)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    for name, found in backend.buckets[BUCKET].keys.items():
        (kept / quote(name, safe="")).write_bytes(found.value)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
