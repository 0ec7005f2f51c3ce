"""A chat template as fixed pieces around the messages' texts, where that is provably all it does.

Rendering a template takes longer than tokenising a short row. Most templates only write a message's text, as it is or
trimmed, and decide nothing by it but whether there is one: then what stands around the texts depends on the roles
alone, and is rendered once for each sequence of roles.

The proof is by syntax. Every expression has a kind: the list of messages, a message, its text, something made of texts
by joining, or what no text takes part in. Each construct that this file does not know to leave texts whole (a filter,
a comparison, a loop over a text, a call, a captured block ...) refuses the template, which is then rendered row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

FREE, MESSAGES, MESSAGE, TEXT, JOINED, LOOP = "free", "messages", "message", "text", "joined", "loop"
TRUE_OF_TEXT = {"string", "defined", "none", "undefined", "mapping", "iterable"}
"""Tests that answer every text alike."""
OF_LOOP = {"first", "last", "index", "index0", "revindex", "revindex0", "length"}
"""What a loop tells of itself without the messages beside it."""
SPACE = "\u2003"  # white space that a template's trim takes away and that no template writes
MARK = re.compile(f"({SPACE}?)\ufdd1(\\d+)\ufdd2({SPACE}?)")
UNSURE = (SPACE, "random", "lipsum")
"""What would make a mark ambiguous, or one rendering unlike the next."""
MAX_KEPT = 1024
"""Sequences of roles whose pieces are kept."""

Render = Callable[[list[dict[str, Any]]], str]
Piece = str | tuple[int, bool]


class _Refused(Exception):
    """The template does more with a text than this file can follow."""


class Skeletons:
    """Writes conversations under one template; `write` gives None where they must be rendered."""

    def __init__(self, template: str) -> None:
        self.proved = is_transparent(template)
        self._kept: dict[tuple[bool, tuple[str, ...]], list[Piece] | None] = {}

    def write(self, messages: Sequence[dict[str, Any]], prompt: bool, render: Render) -> str | None:
        """What `render(messages)` gives. Only messages of a role and a text that is not blank are written so."""
        if any(len(m) != 2 or not m["content"].strip() for m in messages):
            return None
        pieces = self.pieces(messages, prompt, render)
        return None if pieces is None else _joined(pieces, messages)

    def pieces(self, messages: Sequence[dict[str, Any]], prompt: bool, render: Render) -> list[Piece] | None:
        """What conversations of the same roles consist of: fixed texts, and between them each one message's text (its
        number, and whether it is trimmed). For messages as `write` takes them."""
        if not self.proved:
            return None
        key = (prompt, tuple([m["role"] for m in messages]))
        if key not in self._kept:
            if len(self._kept) == MAX_KEPT:
                self._kept.clear()
            self._kept[key] = self._pieces(messages, render)
        return self._kept[key]

    def _pieces(self, messages: Sequence[dict[str, Any]], render: Render) -> list[Piece] | None:
        """None where these messages do not come out as the proof says: nothing is trusted that can be checked."""
        marked = [
            {"role": m["role"], "content": f"{SPACE}\ufdd1{i}\ufdd2{SPACE}"} for i, m in enumerate(messages)
        ]
        parts = MARK.split(render(marked))
        pieces: list[Piece] = [parts[0]]
        for before, index, after, fixed in zip(
            parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True
        ):
            if before != after:
                return None
            pieces += [(int(index), not before), fixed]
        return pieces if _joined(pieces, messages) == render(list(messages)) else None


def _joined(pieces: Sequence[Piece], messages: Sequence[dict[str, Any]]) -> str:
    out = []
    for piece in pieces:
        if isinstance(piece, str):
            out.append(piece)
        else:
            text = messages[piece[0]]["content"]
            out.append(text.strip() if piece[1] else text)
    return "".join(out)


def is_transparent(template: str) -> bool:
    """Whether what the template writes is fixed by the roles, but for the texts, which stand in it whole or trimmed."""
    if any(word in template for word in UNSURE):
        return False
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
        names = {"messages": MESSAGES}
        while True:  # until nothing more is learnt of what the names hold
            known = dict(names)
            for node in tree.body:
                _statement(node, names)
            if names == known:
                return True
    except (TemplateSyntaxError, _Refused):
        return False


def _statement(node: nodes.Node, names: dict[str, str]) -> None:
    if isinstance(node, nodes.Output):
        for part in node.nodes:
            _only(_kind(part, names), FREE, TEXT, JOINED)
    elif isinstance(node, nodes.If):
        _condition(node.test, names)
        for child in (*node.body, *node.elif_, *node.else_):
            _statement(child, names)
    elif isinstance(node, nodes.For) and node.test is None and not node.recursive:
        over = _only(_kind(node.iter, names), FREE, MESSAGES)
        _bind(node.target, MESSAGE if over == MESSAGES else FREE, names)
        for child in (*node.body, *node.else_):
            _statement(child, names)
    elif isinstance(node, nodes.Assign):
        _bind(node.target, _kind(node.node, names), names)
    elif not isinstance(node, nodes.Break | nodes.Continue):
        raise _Refused


def _bind(target: nodes.Node, kind: str, names: dict[str, str]) -> None:
    if not isinstance(target, nodes.Name):  # several names, or a field of a namespace
        for name in target.find_all(nodes.Name):
            _only(names.get(name.name, FREE), FREE)
        _only(kind, FREE)
        return
    before = names.get(target.name, kind)
    if before != kind:
        _only(before, FREE, TEXT, JOINED)
        _only(kind, FREE, TEXT, JOINED)
        kind = JOINED
    names[target.name] = _only(kind, FREE, MESSAGES, MESSAGE, TEXT, JOINED)


def _condition(node: nodes.Node, names: dict[str, str]) -> None:
    """A text may be asked whether there is one: none is blank (see `Skeletons.write`)."""
    if isinstance(node, nodes.Not | nodes.And | nodes.Or):
        for child in node.iter_child_nodes():
            _condition(child, names)
    else:
        _only(_kind(node, names), FREE, TEXT, JOINED)


def _kind(node: nodes.Node, names: dict[str, str]) -> str:
    if isinstance(node, nodes.Name):
        return LOOP if node.name == "loop" else names.get(node.name, FREE)
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        return _part(node, names)
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr == "strip":
        kinds, bare, name = [_kind(node.node.node, names)], not node.args, "trim"
    else:
        kinds = [_kind(child, names) for child in node.iter_child_nodes()]
        name = node.name if isinstance(node, nodes.Filter | nodes.Test) else ""
        bare = isinstance(node, nodes.Filter) and not node.args and not node.kwargs
    if bare and (name, kinds) == ("trim", [TEXT]):
        return TEXT
    if bare and (name, kinds) == ("length", [MESSAGES]):
        return FREE
    if isinstance(node, nodes.Test) and name in TRUE_OF_TEXT and kinds[0] in (TEXT, JOINED):
        return FREE
    allowed = (FREE, TEXT, JOINED) if isinstance(node, nodes.Add | nodes.Concat) else (FREE,)
    return JOINED if {_only(kind, *allowed) for kind in kinds} - {FREE} else FREE


def _part(node: nodes.Getattr | nodes.Getitem, names: dict[str, str]) -> str:
    """`messages[i]`, `messages[i:]`, `message.role`, `message['content']`, `loop.last`; or a part of what is free."""
    of = _kind(node.node, names)
    index = node.arg if isinstance(node, nodes.Getitem) else nodes.Const(node.attr)
    _only(_kind(index, names), FREE)
    if of == MESSAGES and isinstance(node, nodes.Getitem):
        return MESSAGES if isinstance(index, nodes.Slice) else MESSAGE
    fixed = index.value if isinstance(index, nodes.Const) else None
    if (
        of == MESSAGE and isinstance(fixed, str) and fixed not in dir(dict)
    ):  # values(), get() ... give texts away
        return TEXT if fixed == "content" else FREE
    if of == LOOP and fixed in OF_LOOP:
        return FREE
    return _only(of, FREE)


def _only(kind: str, *allowed: str) -> str:
    if kind not in allowed:
        raise _Refused
    return kind
