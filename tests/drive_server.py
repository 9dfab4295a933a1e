"""Google Drive's hosts on this machine: a proxy that answers for them itself, over TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

from .weights_server import QUOTA_PAGE, Handler, Server

HOSTS = ("drive.google.com", "drive.usercontent.google.com")
SCAN_PAGE = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
<input type="hidden" name="id" value="1YT9Fryok-ozYPIvT1V3gEnEF-Ij3UxPp">
<input type="hidden" name="export" value="download"><input type="hidden" name="confirm" value="t">
</form></body></html>"""


def self_signed(folder: Path) -> tuple[Path, Path] | None:
    """Certificate and key for the hosts; None without the program openssl."""
    if shutil.which("openssl") is None:
        return None
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(key), "-out", str(certificate), "-days", "2"),
        *("-subj", "/CN=drive.google.com", "-addext", f"subjectAltName={names}"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class Drive(Server):
    """Serves `content` as Drive serves a large file: a page that asks to go on, then the file.

    Attributes:
        spent: whether the file's quota is, so that only a page comes, with status 200.
    """

    def __init__(self, content: bytes, certificate: Path, key: Path) -> None:
        super().__init__(content)
        self.RequestHandlerClass = DriveHandler
        self.spent = False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)


class DriveHandler(Handler):
    server: Drive

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = False  # Python asks in HTTP 1.0, which would end it here
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def finish(self):
        super().finish()
        self.connection.close()

    def answer(self, head=False):
        path = self.path.split("?")[0]
        with self.server.lock:
            self.server.requests[path] += 1
        if path == "/download":
            disposition = f'attachment; filename="{Path(path).name}.pt"'
            headers = {"Content-Disposition": disposition, "Content-Type": "application/octet-stream"}
            return self.body(self.server.content, headers, head)
        page = QUOTA_PAGE if self.server.spent else SCAN_PAGE
        return self.body(page, {"Content-Type": "text/html; charset=utf-8"}, head)

    def breaks_off(self, path):
        return path == "/download"
