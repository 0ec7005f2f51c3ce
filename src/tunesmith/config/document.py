"""YAML text -> plain values, with the line of every key.

Recipes use the YAML 1.2 core schema: `no` and `on` are text, `1e-4` is a number, `010` is ten.
Refused, with the line: duplicate keys, anchors and aliases, tags, keys that are not text, nesting
deeper than `MAX_DEPTH`, and files over `MAX_BYTES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.errors import ConfigError, near_miss

MAX_BYTES = 1 << 20
MAX_DEPTH = 16

PathTuple = tuple[str, ...]


class CoreLoader(yaml.SafeLoader):
    """Resolves plain scalars by the YAML 1.2 core schema instead of YAML 1.1."""

    yaml_implicit_resolvers = {}


class CoreDumper(yaml.SafeDumper):
    """Quotes exactly what `CoreLoader` would otherwise read as something else than text."""

    yaml_implicit_resolvers = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


_CORE = {
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"[-+]?[0-9]+\Z"),
    "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}
for _kind, _pattern in _CORE.items():
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, None)
    CoreDumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, None)


@dataclass
class Document:
    """values: the top-level mapping. lines: where each key stands, 1-based, by its path."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[PathTuple, int] = field(default_factory=dict)


def read_document(path: Path) -> Document:
    """Raises ConfigError where the file is missing, no UTF-8, or no mapping."""
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder", "a recipe file (YAML)", f"name a file, e.g. {path}/config.yaml"
        )
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        hint = near_miss(path.name, siblings) if siblings else ""
        raise ConfigError(f"no recipe at {path}", "a YAML file", hint or "check the path")
    raw = path.read_bytes()
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path} has {len(raw):,} bytes", f"a recipe of at most {MAX_BYTES:,} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte {error.start} is not UTF-8", "UTF-8", "save it as UTF-8"
        ) from None
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """Parse YAML text whose top level is a mapping (or nothing)."""
    document = Document(name)
    try:
        _refuse_unbounded(text, name)
        node = yaml.compose(text, Loader=CoreLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, name) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(
            f"{name}:{line}: a control character (code {error.character})", "text", "remove it"
        ) from None
    if node is None:
        return document
    value = _value(node, (), document)
    if value is None:
        return document
    if not isinstance(value, dict):
        raise ConfigError(
            f"{name}:{node.start_mark.line + 1}: the top level is {describe(value)}",
            "sections such as `data:`, `model:` and `train:`",
            "write `key: value` lines",
        )
    document.values = value
    return document


def parse_scalar(text: str) -> Any:
    """The value of an override: a plain scalar, a quoted text, or a list in brackets.

    Anything else is text as it stands, so `data.instruction=Answer: yes or no` needs no second quotes.
    """
    if text[:1] in ("[", '"', "'"):
        document = parse_document("value: " + text, "override")
        return document.values["value"]
    return _scalar(yaml.SafeLoader.DEFAULT_SCALAR_TAG, text) if "\n" in text else _plain(text)


def describe(value: Any) -> str:
    """A value as an error shows it: its text, and what kind of thing it is where that is not plain."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return f"a section ({shown})"
        case list():
            return f"a list ({shown})"
    return shown


def _refuse_unbounded(text: str, name: str) -> None:
    """Walk the events, which need no recursion, before anything recursive sees the text."""
    depth = 0
    for event in yaml.parse(text, Loader=CoreLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.NodeEvent) and event.anchor):
            raise ConfigError(
                f"{name}:{line}: an anchor or alias ('{event.anchor}')",
                "values written out",
                "write the value itself",
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"{name}:{line}: nested deeper than {MAX_DEPTH} levels", "a flat recipe")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_error(error: yaml.MarkedYAMLError, name: str) -> ConfigError:
    mark: yaml.Mark | None = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    if "\\t" in (error.problem or ""):
        return ConfigError(f"{where}: a tab", "spaces", "indent with spaces: YAML allows no tabs there")
    context = f"{error.context}: " if error.context else ""
    return ConfigError(
        f"{where}: not YAML: {context}{error.problem}",
        "`key: value` lines, indented by spaces",
        "look at this line and the one above; put text with `: ` or `#` in quotes",
    )


def _value(node: yaml.Node, path: PathTuple, document: Document) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return _tagged(node, f"{document.name}:{line}")
    if node.tag not in (CoreLoader.DEFAULT_MAPPING_TAG, CoreLoader.DEFAULT_SEQUENCE_TAG):
        raise ConfigError(f"{document.name}:{line}: the tag {node.tag}", "plain values", "remove the tag")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, str(i)), document) for i, item in enumerate(node.value)]
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{document.name}:{line}: a key that is not a name", "`key: value`")
        if key in values:
            first = document.lines[(*path, key)]
            raise ConfigError(
                f"{document.name}:{line}: '{key}' again, after line {first}",
                "each key once",
                "remove one of them",
            )
        document.lines[(*path, key)] = line
        values[key] = _value(value_node, (*path, key), document)
    return values


def _tagged(node: yaml.ScalarNode, where: str) -> Any:
    known = {f"tag:yaml.org,2002:{kind}" for kind in (*_CORE, "str")}
    if node.tag not in known:
        raise ConfigError(f"{where}: the tag {node.tag}", "plain values", "remove the tag")
    try:
        return _scalar(node.tag, node.value)
    except ValueError:
        raise ConfigError(
            f"{where}: {describe(node.value)} can not be read as {node.tag.rpartition(':')[2]}",
            "a value of that kind",
        ) from None


def _plain(text: str) -> Any:
    kind = next((k for k, pattern in _CORE.items() if pattern.match(text)), "str")
    try:
        return _scalar(f"tag:yaml.org,2002:{kind}", text)
    except ValueError:
        raise ConfigError(f"{describe(text)} can not be read as {kind}", "a value of that kind") from None


def _scalar(tag: str, text: str) -> Any:
    match tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
    return text
