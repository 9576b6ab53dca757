"""YAML to plain values by YAML 1.2's core rules, and back from a value's path to its place in the text.

PyYAML scans and composes; what a scalar means is decided here, because PyYAML follows YAML 1.1, where ``no``
is a boolean and ``12:30`` a number. Here only ``true`` and ``false`` are booleans, only plain decimal numbers
are numbers, and keys are always text (https://yaml.org/spec/1.2.2/#103-core-schema, narrowed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from ipsecctl.topology.model import Path

__all__ = ["MAX_DEPTH", "Problem", "Reading", "Source", "read_yaml"]

MAX_DEPTH: Final = 40
"""How deep mappings and lists may be nested; the language itself needs eight levels."""

_FREE_VALUES: Final = 100_000
_TAG: Final = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _STR = _TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "str"
_MAP, _SEQ, _MERGE = _TAG + "map", _TAG + "seq", _TAG + "merge"
# Line breaks of YAML 1.1 that no editor counts as lines would make every line number below them wrong.
_FORBIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the YAML itself, at a line and column that count from 1."""

    code: str
    line: int
    column: int
    summary: str
    hint: str


class _TooMuch(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, mark: Any, summary: str) -> None:
        super().__init__(summary)
        self.mark = mark
        self.summary = summary


_PLAIN: Final = re.compile(r"(true|false)|(-?(?:0|[1-9][0-9]{0,17}))|(~|null|)|(<<)")
_PLAIN_TAGS: Final = (_STR, _BOOL, _INT, _NULL, _MERGE)


class _Resolver:
    """What scalars mean without a tag, and a limit to nesting (libyaml recurses on the C stack)."""

    depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode:
            return _SEQ if kind is yaml.SequenceNode else _MAP
        # 18 digits: Python refuses to convert numbers of thousands of digits, and nothing here is that large.
        plain = _PLAIN.fullmatch(value) if implicit[0] else None
        return _STR if plain is None else _PLAIN_TAGS[plain.lastindex or 0]

    def descend_resolver(self, parent: Any, index: Any) -> None:  # noqa: ARG002 - PyYAML's signature
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooMuch(parent.start_mark, f"nested more than {MAX_DEPTH} levels deep")

    def ascend_resolver(self) -> None:
        self.depth -= 1


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Resolver, _Base):  # type: ignore[misc]
    """PyYAML's composer with these rules."""


class Source:
    """The composed text of a file: knows where each value stands."""

    def __init__(self, file: str, root: Any = None) -> None:
        self.file = file
        self._root = root
        self._indexes: dict[int, dict[str, tuple[Any, Any]]] = {}
        self._renumbered: dict[Path, list[int]] = {}

    def holds(self, path: Path) -> bool:
        """Return whether the file itself says something at ``path``."""
        node = self._root
        for depth in range(len(path)):
            found = self._child(node, self._in_file(path, depth))
            if found is None:
                return False
            node = found[1]
        return True

    def locate(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of the value at ``path``; (1, 1) for the whole file.

        A mapping or a list below a key is found at its key, and so is any value with ``key``. What is not
        there is found at the nearest thing around it that is: a path may thus name the long form where the
        file has the short.
        """
        node = self._root
        mark = node.start_mark if node is not None else None
        for depth, step in enumerate(path):
            found = self._child(node, self._in_file(path, depth))
            if found is None:
                break
            key_node, node = found
            place = node if isinstance(node, yaml.ScalarNode) else key_node
            mark = (
                key_node if key and depth == len(path) - 1 and isinstance(step, str) else place
            ).start_mark
        return (mark.line + 1, mark.column + 1) if mark is not None and path else (1, 1)

    def read_as(self, path: Path, written: str, meant: str) -> None:
        """Remember that a key of the mapping at ``path`` was read as another: that one then stands there."""
        node = self._root
        for depth in range(len(path)):
            found = self._child(node, self._in_file(path, depth))
            if found is None:
                return
            node = found[1]
        if isinstance(node, yaml.MappingNode) and written in self._index(node):
            index = self._index(node)
            index.setdefault(meant, index[written])

    def renumber(self, path: Path, kept: list[int]) -> None:
        """Remember that of the list at ``path`` only these items, by their original positions, were kept."""
        before = self._renumbered.get(path)
        self._renumbered[path] = [before[i] for i in kept] if before is not None else kept

    def _in_file(self, path: Path, depth: int) -> str | int:
        step = path[depth]
        kept = self._renumbered.get(path[:depth]) if self._renumbered else None
        return kept[step] if kept is not None and isinstance(step, int) and step < len(kept) else step

    def _child(self, node: Any, step: str | int) -> tuple[Any, Any] | None:
        if isinstance(node, yaml.SequenceNode):
            inside = isinstance(step, int) and step < len(node.value)
            return (node.value[step], node.value[step]) if inside else None
        if isinstance(node, yaml.MappingNode):
            return self._index(node).get(str(step))
        return None

    def _index(self, node: Any) -> dict[str, tuple[Any, Any]]:
        index = self._indexes.get(id(node))
        if index is None:
            index = self._indexes[id(node)] = {}
            for key_node, value_node in node.value:
                if isinstance(key_node, yaml.ScalarNode) and key_node.tag != _MERGE:
                    index.setdefault(key_node.value, (key_node, value_node))
            for merged in _merged(node):
                for name, pair in self._index(merged).items():
                    index.setdefault(name, pair)
        return index


def _merged(node: Any) -> Iterator[Any]:
    """Yield the mappings that ``<<`` brings into a mapping, first the ones that count more."""
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE:
            items = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            yield from (item for item in items if isinstance(item, yaml.MappingNode))


@dataclass(slots=True)
class Reading:
    """What a text says: ``data`` in dicts, lists, text, numbers, booleans and ``None``; and what is wrong
    with it.

    ``readable`` is false when nothing can be said about the content. ``has_null`` says whether a value is
    missing somewhere.
    """

    source: Source
    data: Any = None
    readable: bool = False
    has_null: bool = False
    problems: list[Problem] = field(default_factory=list)


def read_yaml(text: str, file: str) -> Reading:
    """Read YAML text; never raises, whatever the text is."""
    reading = Reading(Source(file))
    text = text.removeprefix("\ufeff")
    bad = _FORBIDDEN.search(text)
    if bad is not None:
        reading.problems.append(_forbidden(text, bad))
        return reading
    try:
        root = yaml.compose(text, Loader=_Loader)
    except _TooMuch as deep:
        hint = "look for brackets that are never closed"
        line, column = _place(deep.mark)
        reading.problems.append(Problem("IP008", line, column, deep.summary, hint))
        return reading
    except yaml.MarkedYAMLError as error:
        reading.problems.append(_syntax(text, error))
        return reading
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reading.problems.append(
            Problem("IP002", 1, 1, f"not YAML: {error}", "see https://yaml.org/spec/1.2.2/")
        )
        return reading
    if root is None or root.tag == _NULL:
        hint = "'ipsecctl init FILE' writes a commented starter"
        reading.problems.append(Problem("IP004", 1, 1, "the file is empty", hint))
        return reading
    reading.source = Source(file, root)
    _Values(reading, limit=_FREE_VALUES + len(text)).run(root)
    return reading


class _Values:
    """Makes values of nodes, each once however many aliases name it, and counts them as if copied."""

    def __init__(self, reading: Reading, limit: int) -> None:
        self._reading = reading
        self._limit = limit
        self._count = 0
        self._done: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def run(self, root: Any) -> None:
        try:
            self._reading.data = self._value(root)
            self._reading.readable = True
        except _TooMuch as large:
            hint = "write out what is meant, or use 'defaults:' and patterns instead of aliases"
            self._problem("IP008", large.mark, large.summary, hint)

    def _problem(self, code: str, mark: Any, summary: str, hint: str) -> None:
        line, column = _place(mark)
        self._reading.problems.append(Problem(code, line, column, summary, hint))

    def _value(self, node: Any) -> Any:
        self._count += 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        identity = id(node)
        if identity in self._done:
            value, size = self._done[identity]
            self._count += size
            if self._count > self._limit:
                raise _TooMuch(node.start_mark, "aliases multiply this value to more than a topology can be")
            return value
        if identity in self._open:
            raise _TooMuch(node.start_mark, "a value that contains itself through an alias")
        self._open.add(identity)
        before = self._count
        value = self._list(node) if isinstance(node, yaml.SequenceNode) else self._dict(node)
        self._open.discard(identity)
        self._done[identity] = (value, self._count - before)
        return value

    def _scalar(self, node: Any) -> Any:
        tag, text = node.tag, node.value
        if tag == _STR:
            return text
        if tag == _BOOL and text in ("true", "false"):
            return text == "true"
        if tag == _INT and re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        if tag == _NULL:
            self._reading.has_null = True
            return None
        if tag != _MERGE:
            self._tag(node)
        return text

    def _list(self, node: Any) -> list[Any]:
        values = (self._value(item) for item in node.value if self._expected(item))
        return list(values)

    def _dict(self, node: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        places: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                hint = "quote it if it is meant as text"
                self._problem("IP009", key_node.start_mark, "a key that is a list or a mapping", hint)
                continue
            key = key_node.value
            if key in places:
                first = places[key].line + 1
                summary = f"the key {key!r} stands twice in one mapping: first on line {first}"
                hint = "rename or remove one of them, or put what belongs together under one"
                self._problem("IP006", key_node.start_mark, summary, hint)
                continue
            places[key] = key_node.start_mark
            if self._expected(value_node):
                out[key] = self._value(value_node)
        self._merge(node, out)
        return out

    def _merge(self, node: Any, out: dict[str, Any]) -> None:
        """Bring in what ``<<`` names; keys that the mapping has itself count more."""
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            values = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for item in values:
                if not isinstance(item, yaml.MappingNode):
                    hint = "write '<<: *NAME', where &NAME marks a mapping"
                    self._problem("IP010", item.start_mark, "'<<' merges mappings only", hint)
                    continue
                for key, value in (self._value(item) or {}).items():
                    out.setdefault(key, value)

    def _expected(self, node: Any) -> bool:
        """Report a list or mapping with a tag, and leave it out: who knows what it was to become."""
        expected = isinstance(node, yaml.ScalarNode) or node.tag in (_SEQ, _MAP)
        if not expected:
            self._tag(node)
        return expected

    def _tag(self, node: Any) -> None:
        shown = node.tag.replace(_TAG, "!!")
        summary = f"the YAML tag {shown!r} has no meaning here"
        self._problem("IP007", node.start_mark, summary, "remove the tag")


def _forbidden(text: str, bad: re.Match[str]) -> Problem:
    line = text.count("\n", 0, bad.start()) + 1
    column = bad.start() - text.rfind("\n", 0, bad.start())
    if text.count("\0") > len(text) // 4:
        return Problem(
            "IP001", 1, 1, "this is not UTF-8 text: it looks like UTF-16", "save the file as UTF-8"
        )
    summary = f"the character U+{ord(bad[0]):04X} cannot stand in a topology"
    return Problem("IP001", line, column, summary, "remove it, and save the file as UTF-8 text")


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


# What libyaml says; our code, summary and hint.
_WORDS: Final = (
    (
        "but found another document",
        ("IP005", "a second document begins here", "keep one topology in a file"),
    ),
    (
        "mapping values are not allowed",
        ("IP002", "a ': ' where no key can stand", "quote text that holds ': ', and check the indentation"),
    ),
    (
        "found undefined alias",
        ("IP002", "an alias ('*') without its anchor ('&')", "define it above with '&', or quote the text"),
    ),
    (
        "did not find expected ',' or '}'",
        ("IP002", "a '{' that is not closed", "close it with '}', and put ',' between its entries"),
    ),
    (
        "did not find expected ',' or ']'",
        ("IP002", "a '[' that is not closed", "close it with ']', and put ',' between its entries"),
    ),
    (
        "did not find expected key",
        (
            "IP002",
            "this does not line up with the keys around it",
            "give all keys of one mapping the same indentation",
        ),
    ),
    (
        "did not find expected '-' indicator",
        (
            "IP002",
            "this does not line up with the list around it",
            "give all '-' of one list the same indentation",
        ),
    ),
    (
        "found unexpected end of stream",
        ("IP002", "a quotation mark that is not closed", "close it"),
    ),
    (
        "could not find expected ':'",
        ("IP002", "a key without ':'", "write 'key: value'"),
    ),
    (
        "did not find expected node content",
        ("IP002", "a value is missing, or a bracket is not closed", "complete the list or mapping"),
    ),
)


def _syntax(text: str, error: yaml.MarkedYAMLError) -> Problem:
    """Say in plain words what PyYAML and libyaml say in theirs."""
    problem = error.problem or "not YAML"
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    rows = text.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    if re.match(r" *\t", row):
        column = row.index("\t") + 1
        return Problem(
            "IP003", line, column, "a tab in the indentation", "indent with spaces: YAML allows no tabs"
        )
    begun = ""
    opened = error.context_mark
    if opened is not None and opened.line + 1 != line and "not closed" in _plain(problem)[1]:
        begun = f"; it begins on line {opened.line + 1}"
    if "cannot start any token" in problem and column <= len(row):
        summary = f"text cannot begin with {row[column - 1]!r}"
        return Problem("IP002", line, column, summary, "put the text between quotation marks")
    code, summary, hint = _plain(problem)
    return Problem(code, line, column, summary + begun, hint)


def _plain(problem: str) -> tuple[str, str, str]:
    for theirs, ours in _WORDS:
        if theirs in problem:
            return ours
    return "IP002", f"not YAML: {problem}", "check indentation, brackets and quotation marks around here"
