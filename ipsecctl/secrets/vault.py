"""Secrets from HashiCorp Vault: the KV secrets engine, version 2, over its HTTP interface.

``GET /v1/MOUNT/data/PATH`` with ``X-Vault-Token`` and, with Vault Enterprise, ``X-Vault-Namespace``; the
answer holds the fields of the newest version in ``data.data`` (Vault's API documentation, "KV secrets
engine - version 2 (API)", "Read secret version"). Errors are ``{"errors": [...]}`` with 400, 403, 404 and 503
("HTTP status codes"). Redirections and proxies are not followed: the token would go where nobody said.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from ipsecctl.secrets.problem import SecretProblem

if TYPE_CHECKING:
    from ipsecctl.secrets.secret import Secret
    from ipsecctl.topology import SecretRef

__all__ = ["TOKEN_FILE", "Vault", "reached"]

TOKEN_FILE: Final = "~/.vault-token"  # noqa: S105 - where it lies, not what it is
"""Where ``vault login`` leaves the token."""

_CODE: Final = "IP305"
_MAX_BYTES: Final = 4 << 20
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADER: Final = frozenset(map(chr, range(0x21, 0x7F)))
_ERRORS_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Any
    location: str = ""


@dataclass(slots=True)
class Vault:
    """One Vault for the references of one topology: each secret is asked for once, and so is a dead server.

    ``address`` without a path, ``ca`` a file or "", ``timeout_s`` the seconds that one secret may take.
    Safe to use from several threads.
    """

    address: str
    mount: str
    namespace: str
    ca: str
    token: Secret = field(repr=False)
    timeout_s: float
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False)
    _found: dict[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    _failed: dict[str, SecretProblem] = field(default_factory=dict, repr=False)
    _gone: SecretProblem | None = None

    def field_of(self, ref: SecretRef) -> bytes:
        """Return the field that a reference names. Raises ``SecretProblem``."""
        path, _, name = ref.value.partition("#")
        fields = self._fields(path, str(ref))
        if name not in fields:
            hint = f"see 'vault kv get -mount={self.mount} {path}'; it has {_listed(fields)}"
            raise SecretProblem(_CODE, "no such field in Vault's secret", str(ref), hint)
        value = fields[name]
        if not isinstance(value, str):
            hint = "store it as a text: numbers and lists have no bytes of their own"
            raise SecretProblem(_CODE, "a field of Vault's secret that is no text", str(ref), hint)
        return value.encode()

    def _fields(self, path: str, name: str) -> Mapping[str, Any]:
        with self._lock:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if self._gone is not None:
                raise self._gone
            if path in self._failed:
                raise self._failed[path]
            if path not in self._found:
                try:
                    self._found[path] = self._asked(path, name)
                except SecretProblem as problem:
                    self._failed[path] = problem
                    raise
            return self._found[path]

    def _asked(self, path: str, name: str) -> Mapping[str, Any]:
        answer = self._get(f"/v1/{quote(self.mount)}/data/{quote(path)}")
        if answer.status != 200:
            raise self._refused(answer, path, name)
        outer = answer.body.get("data") if isinstance(answer.body, dict) else None
        if not isinstance(outer, dict) or not isinstance(outer.get("data"), dict):
            hint = f"is {self.mount!r} a KV engine of version 2? see 'vault secrets list -detailed'"
            raise SecretProblem(_CODE, "Vault's answer is not that of KV version 2", name, hint)
        fields: Mapping[str, Any] = outer["data"]
        return fields

    def _get(self, path: str) -> _Answer:
        """Ask, and return the answer; a server that does not answer is not asked again."""
        headers = {"X-Vault-Request": "true", "X-Vault-Token": bytes(self.token).decode("ascii")}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        late = threading.Event()
        try:
            with self._connected(late) as connection:
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                content = response.read(_MAX_BYTES + 1)
                location = response.getheader("Location") or ""
        except (OSError, http.client.HTTPException) as error:
            # The cause is left out: what http.client keeps could hold the request.
            raise self._unreachable(_reason(error, late.is_set(), self.timeout_s)) from None
        if late.is_set():
            raise self._unreachable(f"no answer within {self.timeout_s:g} s")
        if len(content) > _MAX_BYTES:
            raise self._unreachable("an answer of more than 4 MiB")
        try:
            body = json.loads(content) if content else None
        except ValueError:
            body = None
        return _Answer(response.status, body, location)

    @contextmanager
    def _connected(self, late: threading.Event) -> Iterator[http.client.HTTPConnection]:
        """Give a connection that is cut off when the time is up; ``late`` is set then.

        The time limit of a socket starts anew with every byte, so it is no limit of the whole.
        """
        parts = urlsplit(self.address)
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        context = self._tls() if is_tls else None
        connection = http.client.HTTPConnection(host, port)
        sock = socket.create_connection((host, port), timeout=self.timeout_s)
        handle = sock.dup()  # TLS takes the other one for itself
        timer = threading.Timer(self.timeout_s, _cut_off, (handle, late))
        timer.daemon = True
        timer.start()
        try:
            connection.sock = sock if context is None else context.wrap_socket(sock, server_hostname=host)
            yield connection
        finally:
            timer.cancel()
            connection.close()
            sock.close()
            handle.close()

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca or None)
        except OSError:
            hint = "name the PEM file of the CA that signed Vault's certificate"
            raise SecretProblem(_CODE, "Vault's CA cannot be read", self.ca, hint) from None

    def _unreachable(self, reason: str) -> SecretProblem:
        hint = "is the address right, and the way to it open? see 'vault status'"
        if "certificate" in reason:
            hint = "name the CA that signed its certificate with 'ca' below 'vault:', or in VAULT_CACERT"
        self._gone = SecretProblem(_CODE, "Vault cannot be reached", f"{self.address} ({reason})", hint)
        return self._gone

    def _refused(self, answer: _Answer, path: str, name: str) -> SecretProblem:
        said = _said(answer.body, bytes(self.token).decode("ascii"))
        where = f"{name}, {self.address}{said}"
        if 300 <= answer.status < 400:
            host = urlsplit(answer.location).netloc.rpartition("@")[2][:100] or "nowhere"
            hint = "set 'address' to the active server: the token is sent to no other than you name"
            self._gone = SecretProblem(
                _CODE, "Vault leads elsewhere", f"{self.address} ({answer.status}, to {host})", hint
            )
            return self._gone
        if answer.status == 503:
            hint = "unseal it ('vault operator unseal'), or wait until it is back; see 'vault status'"
            self._gone = SecretProblem(
                _CODE, "Vault is sealed, or down for maintenance", f"{self.address}{said}", hint
            )
            return self._gone
        if answer.status in (401, 403):
            hint = (
                f"is the token valid ('vault token lookup'), and may it read {self.mount}/data/{path} "
                f"('vault token capabilities {self.mount}/data/{path}')?"
            )
            return SecretProblem(_CODE, "Vault denies it", where, hint)
        if answer.status == 404:
            if _is_deleted(answer.body):
                hint = f"'vault kv undelete -mount={self.mount} -versions=N {path}', or put a new one"
                return SecretProblem(_CODE, "deleted in Vault", where, hint)
            hint = f"see 'vault kv list -mount={self.mount}'; the mount is named below 'vault:'"
            return SecretProblem(_CODE, "not in Vault", where, hint)
        hint = "see Vault's own log; 'vault kv get' asks the same"
        return SecretProblem(_CODE, f"Vault answers with status {answer.status}", where, hint)


def reached(ref: SecretRef, base: Path, read_token: Callable[[SecretRef, Path], Secret]) -> Vault:
    """Return the Vault that a reference means, with the environment for what the topology leaves out.

    ``base`` is the directory of the topology file; ``read_token`` resolves a reference. Raises
    ``SecretProblem`` when there is no address or no token.
    """
    from ipsecctl.topology import SecretKind, SecretRef, VaultServer

    server = ref.server or VaultServer()
    address = server.address or os.environ.get("VAULT_ADDR", "")
    if not address:
        hint = "write 'vault: {address: https://...}' into the topology, or export VAULT_ADDR"
        raise SecretProblem(_CODE, "no address of a Vault", str(ref), hint)
    address = _checked(address.rstrip("/"))
    token = server.token
    if token is None and os.environ.get("VAULT_TOKEN"):
        token = SecretRef(SecretKind.ENV, "VAULT_TOKEN")
    token_file = Path(TOKEN_FILE).expanduser()
    if token is None:
        token = SecretRef(SecretKind.FILE, str(token_file.absolute()))
        if not token_file.exists():
            hint = f"export VAULT_TOKEN, or run 'vault login', which writes {TOKEN_FILE}"
            raise SecretProblem(_CODE, "no token for Vault", str(ref), hint)
    found = read_token(token, base)
    if not set(bytes(found).decode("utf-8", "replace")) <= _HEADER:
        # It is a header of the request: a line end would make two of it.
        hint = "a token has letters, digits and dots only"
        raise SecretProblem(_CODE, "not a token for Vault", str(token), hint)
    return Vault(
        address,
        server.mount,
        server.namespace or os.environ.get("VAULT_NAMESPACE", "").strip("/"),
        str(base / server.ca) if server.ca else os.environ.get("VAULT_CACERT", ""),
        found,
        float(server.timeout_s),
    )


def _checked(address: str) -> str:
    """Return an address that the token may be sent to: it may come from the environment."""
    hint = "write it as https://vault.example.org:8200"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or port == 0:
        raise SecretProblem(_CODE, "not the address of a Vault", "VAULT_ADDR", hint)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        hint = "take https://: anybody on the way would read token and secrets"
        raise SecretProblem(_CODE, "Vault without TLS", address, hint)
    return address


def _cut_off(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):  # it may have ended at this moment
        sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception, late: bool, timeout_s: float) -> str:
    if late or isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or 'not understood'}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"no HTTP: {type(error).__name__}"


def _said(body: Any, token: str) -> str:
    """Return Vault's own words, short and on one line, without the token should they quote it."""
    errors = body.get("errors") if isinstance(body, dict) else None
    texts = [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []
    text = " ".join("; ".join(texts).replace(token, "***").split())
    text = "".join(character for character in text if character.isprintable())
    return f": {text[:_ERRORS_SHOWN]}" if text else ""


def _is_deleted(body: Any) -> bool:
    data = body.get("data") if isinstance(body, dict) else None
    return isinstance(data, dict) and isinstance(data.get("metadata"), dict)


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(sorted(fields)[:5]) or "none"
