"""A server that answers as HashiCorp's documentation of Vault's HTTP interface says that a Vault does.

No Vault was at hand: what it answers is taken from "KV secrets engine - version 2 (API)" and "HTTP status
codes" of Vault's API documentation.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["FakeVault", "serving"]

TOKEN = "hvs.CAESIJ-seed-of-the-vault-token-0123456789"


@dataclass
class FakeVault:
    """What it holds (by mount and path), what state it is in, and what it was asked."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    token: str = TOKEN
    namespace: str = ""
    answer: tuple[int, dict[str, str], bytes] | None = None
    drip: bytes = b""
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def reply(self, path: str, headers: Any) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        if self.answer is not None:
            return self.answer
        if (
            headers.get("X-Vault-Token") != self.token
            or headers.get("X-Vault-Namespace", "") != self.namespace
        ):
            return _errors(403, "permission denied")
        name = path.removeprefix("/v1/")
        if name in self.deleted:
            metadata = {
                "created_time": "2018-03-22T02:24:06.945319214Z",
                "deletion_time": "2018-03-22T02:36:43Z",
            }
            return _json(
                404, {"data": {"data": None, "metadata": {**metadata, "destroyed": False, "version": 2}}}
            )
        if name not in self.secrets:
            return _errors(404)
        metadata = {"created_time": "2018-03-22T02:24:06.945319214Z", "deletion_time": "", "version": 2}
        inner = {
            "data": self.secrets[name],
            "metadata": {**metadata, "custom_metadata": None, "destroyed": False},
        }
        document = {"request_id": "ce8b1f2e", "lease_id": "", "renewable": False, "lease_duration": 0}
        return _json(200, {**document, "data": inner, "wrap_info": None, "warnings": None, "auth": None})


def _errors(status: int, *errors: str) -> tuple[int, dict[str, str], bytes]:
    return _json(status, {"errors": list(errors)})


def _json(status: int, document: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode() + b"\n"


@contextmanager
def serving(
    vault: FakeVault, certificate: Path | None = None, key: Path | None = None
) -> Iterator[FakeVault]:
    """Serve at a free port of 127.0.0.1, over TLS where there is a certificate."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if vault.drip:
                vault.asked.append(self.path)
                while not stop.wait(0.02):
                    try:
                        self.wfile.write(vault.drip)
                    except OSError:
                        return
                return
            status, headers, body = vault.reply(self.path, self.headers)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Say nothing of connections that were cut off."""

    server = Quiet(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None and key is not None:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    vault.address = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
