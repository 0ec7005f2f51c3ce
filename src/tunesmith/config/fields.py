"""Every key a recipe may have, read from the configuration classes: one source for errors and docs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from tunesmith.config.run import Run
from tunesmith.config.section import Section


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    path: dotted, as written in an override. sections: its classes when the key holds further keys, more than one
    where `type` chooses. types: which of these choices have the key; empty: it does not depend on a choice.
    nullable: null means something other than "an empty section". node: its JSON-schema node. of: choice -> its own key,
    where the choices mean different things by it.
    """

    path: str
    description: str
    default: Any
    sections: tuple[type[Section], ...]
    nullable: bool
    free_form: bool
    node: dict[str, Any]
    types: tuple[str, ...] = ()
    of: Mapping[str, Key] = field(default_factory=dict)

    def under(self, kind: object) -> Key:
        """The key as this `type` means it."""
        return self.of.get(str(kind), self)

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, looking through Annotated."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(m for a in get_args(annotation) for m in _members(a))
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return (annotation,)


def _walk(sections: tuple[type[Section], ...], prefix: str) -> Iterator[Key]:
    """The keys of a section; of several between which `type` chooses, each key once."""
    own = {section: {key.name: key for key in _own(section, prefix)} for section in sections}
    first = ("type",) if len(sections) > 1 else ()
    for name in dict.fromkeys((*first, *(name for found in own.values() for name in found))):
        having = {section: found[name] for section, found in own.items() if name in found}
        key = next(iter(having.values()))
        if len(sections) > 1 and name == "type":
            key = replace(key, node={"enum": [_tag(section) for section in sections], "type": "string"})
        elif len(having) < len(sections):
            key = replace(key, types=tuple(_tag(section) for section in having))
        if name != "type" and len({repr(own) for own in having.values()}) > 1:
            key = replace(key, of={_tag(section): own for section, own in having.items()})
        yield key
        for inner in _walk(key.sections, f"{prefix}{name}.") if key.sections else ():
            yield replace(inner, types=inner.types or key.types)


def _own(section: type[Section], prefix: str) -> Iterator[Key]:
    nodes = section.model_json_schema()["properties"]
    for name, info in section.model_fields.items():
        members = _members(info.annotation)
        yield Key(
            path=prefix + name,
            description=" ".join((info.description or "").split()),
            default=info.get_default(call_default_factory=True),
            sections=tuple(m for m in members if isinstance(m, type) and issubclass(m, Section)),
            nullable=NoneType in members,
            free_form=all(get_origin(m) is dict for m in members if m is not NoneType),
            node=nodes[name],
        )


def _tag(section: type[Section]) -> str:
    """The value of `type` that chooses this section."""
    return str(section.model_fields["type"].default)


@cache
def keys(root: type[Section] = Run) -> dict[str, Key]:
    """Dotted path -> key, for the whole recipe, sections included. root: what the recipe is of."""
    return {key.path: key for key in _walk((root,), "")}


def inside(section: str, kind: str | None = None, root: type[Section] = Run) -> dict[str, Key]:
    """The keys directly inside a section ('' is the top level), by their own name; kind: only those of this `type`."""
    prefix = f"{section}." if section else ""
    return {
        key.name: key
        for path, key in keys(root).items()
        if path.startswith(prefix)
        and "." not in path[len(prefix) :]
        and (kind is None or not key.types or kind in key.types)
    }


def allowed(node: dict[str, Any]) -> str:
    """What a value may be, in words, from its JSON-schema node."""
    if "anyOf" in node:
        return " or ".join(allowed(option) for option in node["anyOf"])
    if "const" in node:
        return f"'{node['const']}'"
    if node.get("$ref") == "#/$defs/Query":
        return "{sql, url}"
    if "enum" in node:
        return "one of " + ", ".join(f"'{value}'" for value in node["enum"])
    match node.get("type"):
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _bounds(node)
        case "string":
            return "text" + (f" matching `{node['pattern']}`" if "pattern" in node else "")
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "array":
            items = node.get("prefixItems")
            if items:
                return f"a list of {len(items)}, each {allowed(items[0])}"
            return f"a list, each item {allowed(node.get('items', {}))}"
        case "object":
            return "names, each with " + allowed(node.get("additionalProperties", {}))
    return "a section"


def _bounds(node: dict[str, Any]) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
    }
    bounds = [f"{word} {node[key]}" for key, word in words.items() if key in node]
    return " " + " and ".join(bounds) if bounds else ""
