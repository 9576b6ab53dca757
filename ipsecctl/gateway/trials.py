"""What was tried on a gateway's kernel, kept so that it need not be tried again while that kernel runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ipsecctl.gateway.capabilities import Answer, Capabilities, Charon, Firewall, Has, Kernel

__all__ = ["Trials"]

_PLAIN = ("release", "suites", "if_ids")
"""The fields of ``Kernel`` that are not answers."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What a kernel was found to be able to do in one of its starts (``Facts.kernel``)."""

    start: str
    kernel: Kernel
    nftables: str = ""
    sets: Answer = field(default_factory=Answer)
    xfrm: Answer = field(default_factory=Answer)

    @classmethod
    def of(cls, found: Capabilities, start: str) -> Trials:
        """Return what is worth keeping of a gateway's whole answer."""
        firewall = found.firewall
        return cls(start, found.kernel, firewall.nftables, firewall.sets, firewall.xfrm)

    def with_charon(self, gateway: str, charon: Charon) -> Capabilities:
        """Return what a gateway can do with the charon that runs now; of the rest nothing is told."""
        firewall = Firewall(nftables=self.nftables, sets=self.sets, xfrm=self.xfrm)
        return Capabilities(gateway, charon, kernel=self.kernel, firewall=firewall)

    def as_json(self) -> dict[str, Any]:
        answers = {f.name: _plain(getattr(self.kernel, f.name)) for f in fields(Kernel)}
        answers["suites"] = {name: _plain(answer) for name, answer in self.kernel.suites}
        answers["if_ids"] = list(self.kernel.if_ids)
        return {
            "start": self.start,
            "kernel": answers,
            "nftables": self.nftables,
            "sets": _plain(self.sets),
            "xfrm": _plain(self.xfrm),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Trials | None:
        """Return the trials in a record, ``None`` for those of an ipsecctl that tried less, or other things.

        Raises ``KeyError``, ``TypeError`` or ``ValueError`` for what is none.
        """
        kernel = document["kernel"]
        if kernel.keys() != {f.name for f in fields(Kernel)}:
            return None
        answers = {name: _answer(kernel[name]) for name in kernel if name not in _PLAIN}
        return cls(
            start=document["start"],
            kernel=Kernel(
                release=kernel["release"],
                suites=tuple((name, _answer(value)) for name, value in kernel["suites"].items()),
                if_ids=tuple(kernel["if_ids"]),
                **answers,
            ),
            nftables=document["nftables"],
            sets=_answer(document["sets"]),
            xfrm=_answer(document["xfrm"]),
        )


def _plain(value: object) -> Any:
    return [str(value.has), value.why] if isinstance(value, Answer) else value


def _answer(value: list[str]) -> Answer:
    has, why = value
    return Answer(Has(has), why)
