"""A recipe and its overrides -> a checked `Run`, or one `ConfigError` that lists every problem.

Where a key is said more than once, the later wins: the recipe, then `values` (the command line's
options), then `overrides` (`a.b=c`). Relative paths in a recipe are relative to the current directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunesmith.config.desk import Desk
from tunesmith.config.document import (
    Document,
    PathTuple,
    describe,
    parse_document,
    parse_scalar,
    read_document,
)
from tunesmith.config.fields import Key, allowed, inside, keys
from tunesmith.config.peers import NOTES, PEERS, method_called
from tunesmith.config.run import Run
from tunesmith.config.section import Section
from tunesmith.errors import ConfigError

S = TypeVar("S", bound=Section)
MAX_SHOWN = 8
"""Problems printed at once: one screen."""

MAIN_KEY = {"data": "train", "model": "base", "method": "type", "train": "epochs"}
"""What a single value most likely means where a section belongs."""

METHOD_KEYS = ("method.type", "method.loss", "method.algorithm")
"""Which of several methods is meant: papers and other tools have one name for it."""

_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


@dataclass(frozen=True)
class Problem:
    where: str
    got: str
    expected: str = ""
    fix: str = ""

    def lines(self) -> str:
        parts = [f"{self.where}: {self.got}"]
        parts += [f"     expected: {self.expected}"] if self.expected else []
        parts += [f"     to fix:   {self.fix}"] if self.fix else []
        return "\n".join(parts)


@dataclass
class Draft:
    """What was said, merged, and where each key was said."""

    document: Document
    root: type[Section]
    origin: dict[PathTuple, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: PathTuple) -> str:
        """'recipe.yaml:4: train.epochs', from the nearest enclosing key that has an origin."""
        dotted = ".".join(path)
        for end in range(len(path), 0, -1):
            if path[:end] in self.origin:
                return f"{self.origin[path[:end]]}: {dotted}"
            if path[:end] in self.document.lines:
                return f"{self.document.name}:{self.document.lines[path[:end]]}: {dotted}"
        return dotted or self.document.name

    def say(self, path: PathTuple, value: Any, origin: str) -> None:
        """Put a value said on the command line over what the recipe says."""
        here = self.document.values
        for part in path[:-1]:
            if here.get(part) is None:
                here[part] = {}
            here = here[part]
            if not isinstance(here, dict):
                return  # the value in the section's place is reported by the check of the whole tree
        here[path[-1]] = value
        self.origin[path] = origin


def is_override(argument: str) -> bool:
    """Whether a command-line argument looks like `a.b=c`."""
    return bool(_OVERRIDE.match(argument))


def load_run(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, tuple[Any, str]] | None = None,
) -> Run:
    """Read a recipe (or start from the defaults), apply what the command line says, and check everything.

    path: a YAML file. overrides: `a.b=c`, the value a YAML scalar or a list. values: dotted key ->
    (value, who says so), such as `{"model.base": ("m", "--model")}`.
    Raises ConfigError listing all problems, each with its place, what was got, what is allowed, what to do.
    """
    document = read_document(path) if path else Document("recipe")
    return _checked(Run, document, overrides, values or {})


def parse_run(text: str, name: str = "recipe") -> Run:
    """The same, from YAML text."""
    return _checked(Run, parse_document(text, name), (), {})


def load_recipe(
    root: type[S],
    path: Path | None,
    overrides: Sequence[str],
    values: Mapping[str, tuple[Any, str]],
) -> S:
    """A recipe of another kind, in the same way."""
    return _checked(root, read_document(path) if path else Document("recipe"), overrides, values)


def load_desk(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, tuple[Any, str]] | None = None,
) -> Desk:
    """A recipe of the data desk, in the same way."""
    return load_recipe(Desk, path, overrides, values or {})


def load_section(root: type[S], overrides: Sequence[str], values: Mapping[str, tuple[Any, str]]) -> S:
    """The settings of a command that takes no recipe, in the same way."""
    return _checked(root, Document("the settings"), overrides, values)


def _checked(
    root: type[S], document: Document, overrides: Sequence[str], values: Mapping[str, tuple[Any, str]]
) -> S:
    draft = Draft(document, root)
    for dotted, (value, origin) in values.items():
        draft.say(tuple(dotted.split(".")), value, origin)
    for override in overrides:
        _apply(override, draft)
    tree = _checked_tree(document.values, "", draft)
    try:
        run = root.model_validate(tree)
    except ValidationError as error:
        draft.problems += [p for e in error.errors() if (p := _problem(e, draft))]
        raise _config_error(draft.problems, document.name) from None
    if draft.problems:
        raise _config_error(draft.problems, document.name)
    return run


def _apply(override: str, draft: Draft) -> None:
    name, equals, text = override.partition("=")
    origin = f"override '{override}'"
    if not equals or not name or not all(name.split(".")):
        draft.problems.append(Problem(origin, "not an override", "key=value, such as train.epochs=3"))
        return
    key = keys(draft.root).get(name)
    if key and (key.sections or key.free_form) and text != "null":
        example = (
            f"{name}.<name>=<value>"
            if key.free_form
            else f"{next(iter(inside(name, root=draft.root).values())).path}=..."
        )
        draft.problems.append(Problem(origin, f"{name} is a section", "one of its keys", f"write {example}"))
        return
    try:
        value = parse_scalar(text)
    except ConfigError as error:
        draft.problems.append(Problem(origin, error.got, error.expected, "put text in quotes"))
        return
    draft.say(tuple(name.split(".")), value, origin)


# -- the tree: unknown keys, sections, values of a kind that pydantic would bend --------------------------


def _checked_tree(tree: dict[str, Any], section: str, draft: Draft) -> dict[str, Any]:
    """The tree without what is already reported, so that each problem is reported once."""
    known, kept = inside(section, root=draft.root), {}
    path = tuple(section.split(".")) if section else ()
    type_key = known.get("type")
    if (
        type_key
        and "type" in tree
        and tree["type"] not in type_key.node.get("enum", [type_key.node.get("const")])
    ):
        return {"type": tree["type"]}  # the keys of an unknown method can not be judged
    kind = tree.get("type", type_key.default) if type_key else None
    for name, value in tree.items():
        key = known.get(name)
        if key is None:
            draft.problems.append(_unknown(name, (*path, name), known, draft))
        elif type_key and key.types and kind not in key.types:
            draft.problems.append(_other_type(key, kind, (*path, name), draft))
        elif not key.sections:
            if isinstance(value, bool) and "boolean" not in _kinds(key.under(kind).node):
                draft.problems.append(_wrong(key.under(kind), value, (*path, name), draft))
            else:
                kept[name] = value
        elif isinstance(value, dict):
            kept[name] = _checked_tree(value, key.path, draft)
        elif value is None:
            kept[name] = None if key.nullable else {}
        else:
            draft.problems.append(_not_a_section(key, value, (*path, name), draft))
    return kept


def _kinds(node: dict[str, Any]) -> set[str]:
    return {option.get("type", "") for option in node.get("anyOf", [node])}


def _not_a_section(key: Key, value: Any, path: PathTuple, draft: Draft) -> Problem:
    names = ", ".join(inside(key.path, root=draft.root))
    main = MAIN_KEY.get(key.path)
    fix = f"write it one level deeper, as {key.path}.{main}" if main else ""
    return Problem(draft.where(path), f"got {describe(value)}", f"a section with keys among: {names}", fix)


def _unknown(name: str, path: PathTuple, known: Mapping[str, Key], draft: Draft) -> Problem:
    return Problem(draft.where(path), "no such key", "", suggest(name, path, known, draft.root))


def _other_type(key: Key, kind: Any, path: PathTuple, draft: Draft) -> Problem:
    section = ".".join(path[:-1])
    fix = f"leave it out, or write {section}.type={key.types[0]}"
    return Problem(
        draft.where(path), f"{section}.type {kind} has no {key.name}", f"type {' or '.join(key.types)}", fix
    )


def suggest(name: str, path: PathTuple, known: Mapping[str, Key], root: type[Section] = Run) -> str:
    """What was meant: another tool's name, the same name elsewhere, a near name here or elsewhere."""
    dotted = ".".join(path)
    by_leaf = {key.name: key.path for key in reversed(list(keys(root).values()))}
    peers = PEERS if root is Run else {}
    if name in keys(root) and "." in name:
        return f"write it nested: {name.replace('.', ': ')}"
    if name in peers:
        note = f" ({NOTES[name]})" if name in NOTES else ""
        return f"here it is called {PEERS[name]}{note}"
    if name in by_leaf:
        return f"did you mean {by_leaf[name]}?"
    section = dotted.rpartition(".")[0]
    near: list[tuple[Sequence[str], Callable[[str], str]]] = [
        (list(known), lambda match: f"{section}.{match}" if section else match),
        (list(peers), lambda match: peers[match]),
        (list(by_leaf), lambda match: by_leaf[match]),
    ]
    for names, target in near:
        if match := difflib.get_close_matches(name, names, n=1, cutoff=0.7):
            return f"did you mean {target(match[0])}?"
    return f"known keys {'of ' + section if section else 'here'}: {', '.join(known)}"


# -- pydantic's errors in our words -----------------------------------------------------------------------


def _problem(error: ErrorDetails, draft: Draft) -> Problem | None:
    path = _without_choice(tuple(str(part) for part in error["loc"]), draft)
    if error["type"] == "value_error":  # our own validators write the whole sentence
        said, _, fix = str(error["ctx"]["error"]).partition("; ")
        return Problem(draft.where(path), said, "", fix)
    value = error["input"]
    if error["type"] == "union_tag_invalid":
        path, value = (*path, "type"), value["type"]
    for end in range(len(path), 0, -1):
        key = keys(draft.root).get(".".join(path[:end]))
        if key:
            kind = error["loc"][1] if len(error["loc"]) > 1 else ""
            return _wrong(key.under(kind), value, path, draft)
    return Problem(draft.where(path), error["msg"])


def _without_choice(path: PathTuple, draft: Draft) -> PathTuple:
    """pydantic puts the value of `type` into the place of an error: method.sft.supervise."""
    section = keys(draft.root).get(path[0]) if path else None
    return (path[0], *path[2:]) if section and len(section.sections) > 1 and len(path) > 1 else path


def _wrong(key: Key, value: Any, path: PathTuple, draft: Draft) -> Problem:
    choices = [str(c) for c in key.node.get("enum", [key.node.get("const")]) if c is not None]
    fix = ""
    if choices and isinstance(value, str):
        match = difflib.get_close_matches(value, choices, n=1)
        fix = f"did you mean '{match[0]}'?" if match else ""
        if key.path in METHOD_KEYS and (known := method_called(value)):
            fix = f"write {known}"
    elif "string" in _kinds(key.node) and isinstance(value, bool | int | float):
        fix = f'put it in quotes: {key.name}: "{describe(value)}"'
    elif value is None:
        fix = "give a value, or leave the key out"
    where = draft.where(path)
    return Problem(where, f"got {describe(value)}", allowed(key.node), fix)


def _config_error(problems: Sequence[Problem], name: str) -> ConfigError:
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        only = unique[0]
        return ConfigError(f"{only.where}: {only.got}", only.expected, only.fix)
    return ConfigError(
        "\n".join(_listed(unique, name)), "", "see docs/configuration.md, or `tunesmith config docs`"
    )


def _listed(problems: Sequence[Problem], name: str) -> Iterator[str]:
    yield f"{len(problems)} problems in {name}:"
    for number, problem in enumerate(problems[:MAX_SHOWN], start=1):
        yield f"  {number}. {problem.lines()}"
    if len(problems) > MAX_SHOWN:
        yield f"  and {len(problems) - MAX_SHOWN} more, once these are mended"
