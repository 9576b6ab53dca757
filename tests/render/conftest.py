"""A reader of strongSwan's settings files, written from its lexer's rules and from nothing of ipsecctl's."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

_LISTS = {"local_addrs", "remote_addrs", "proposals", "esp_proposals", "local_ts", "remote_ts"}
_FILE_LISTS = {"certs": "x509", "cacerts": "x509ca"}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\n": ""}
_NAME = re.compile(r'[^#{}:.,="\r\n\t ]+')
_VALUE = re.compile(r'[^#}"\r\n\t ]+')


@dataclass
class _Reader:
    """Sections as dicts, values as text, as settings_lexer.l and settings_parser.y read them."""

    text: str
    at: int = 0
    open_sections: int = field(default=0)

    def section(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while True:
            self.skip(r"(?:[\s]+|#[^\n]*)*")
            if self.at == len(self.text):
                assert not self.open_sections, "section not closed"
                return found
            if self.text[self.at] == "}":
                assert self.open_sections, "unexpected }"
                self.at, self.open_sections = self.at + 1, self.open_sections - 1
                return found
            assert not re.compile(r"include[\t ]+[^=]").match(self.text, self.at), "include directive"
            name = self.take(_NAME)
            self.skip(r"[ \t\r\n]*")
            separator, self.at = self.text[self.at], self.at + 1
            assert name not in found, f"{name} twice"
            if separator == "{":
                self.open_sections += 1
                found[name] = self.section()
            else:
                assert separator == "=", f"{separator!r} after {name}"
                found[name] = " ".join(self.values())

    def values(self) -> Iterator[str]:
        while True:
            self.skip(r"[ \t\r]*")
            if self.at == len(self.text) or self.text[self.at] in "#}\n":
                return
            yield self.string() if self.text[self.at] == '"' else self.take(_VALUE)

    def string(self) -> str:
        parts = []
        self.at += 1
        while (char := self.text[self.at]) != '"':
            if char == "\\":
                self.at += 1
                char = _ESCAPES.get(self.text[self.at], self.text[self.at])
            elif char == "\r":
                char = ""
            parts.append(char)
            self.at += 1
        self.at += 1
        return "".join(parts)

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match, f"unexpected {self.text[self.at : self.at + 20]!r}"
        self.at = match.end()
        return match[0]

    def skip(self, pattern: str) -> None:
        match = re.compile(pattern).match(self.text, self.at)
        assert match
        self.at = match.end()


def _parse(text: str) -> dict[str, Any]:
    return _Reader(text).section()


def _connection(section: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            message[key] = _connection(value, files)
        elif key in _LISTS:
            message[key] = [item.strip() for item in value.split(",")]
        elif key in _FILE_LISTS:
            names = [item.strip() for item in value.split(",")]
            message[key] = [files[f"/etc/swanctl/{_FILE_LISTS[key]}/{name}"] for name in names]
        else:
            message[key] = value
    return message


def _secret(text: str) -> bytes:
    if text[:2].lower() == "0s":
        return base64.b64decode(text[2:], validate=True)
    return bytes.fromhex(text[2:]) if text[:2].lower() == "0x" else text.encode()


def _swanctl(files: Mapping[str, bytes]) -> dict[str, Any]:
    conf = _parse(files["/etc/swanctl/conf.d/ipsecctl.conf"].decode())
    secrets = _parse(files["/etc/swanctl/conf.d/ipsecctl-secrets.conf"].decode())
    certificates = {"x509": "NONE", "x509ca": "CA"}
    return {
        "connections": {
            name: {name: _connection(section, files)} for name, section in conf["connections"].items()
        },
        "shared": {
            name: {
                "id": name,
                "type": name.partition("-")[0],
                "data": _secret(section["secret"]),
                "owners": [value for key, value in section.items() if key.startswith("id")],
            }
            for name, section in secrets["secrets"].items()
        },
        "certificates": [
            {"type": "X509", "flag": flag, "data": files[path]}
            for directory, flag in certificates.items()
            for path in sorted(files)
            if path.startswith(f"/etc/swanctl/{directory}/")
        ],
        "keys": [
            {"type": "any", "data": files[path]}
            for path in sorted(files)
            if path.startswith("/etc/swanctl/private/")
        ],
    }


@pytest.fixture(scope="session")
def parse_settings() -> Callable[[str], dict[str, Any]]:
    """The reader: text of a settings file to nested dicts."""
    return _parse


@pytest.fixture(scope="session")
def swanctl_load_all() -> Callable[[Mapping[str, bytes]], dict[str, Any]]:
    """What ``swanctl --load-all`` sends for files by path (load_conns.c, load_creds.c), by kind."""
    return _swanctl
