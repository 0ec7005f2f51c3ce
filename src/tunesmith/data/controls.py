"""Texts that must not become control tokens: a special token in a message is what was typed, not the token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.data.template import PROBE
from tunesmith.errors import RowError
from tunesmith.types import Message

BREAK = "\ufdd0"  # a Unicode noncharacter: cuts control-token text in two, and is cut out before tokenising


class Controls:
    """Of one tokenizer and template.

    ends: the tokens that end a turn. has_tools: whether the template writes tools. render: messages as it writes them.
    """

    def __init__(
        self,
        tokenizer: Any,
        ends: Sequence[str],
        has_tools: bool,
        render: Callable[[list[dict[str, Any]]], str],
    ) -> None:
        self._has_tools = has_tools
        self._patterns = _patterns(tokenizer, ends, render)
        self.typed = self._patterns["user"]

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages for the template, with control-token text broken. Raises RowError."""
        for m in messages:
            if m.role == "tool" or (m.extra and "tool_calls" in m.extra):
                self._require_tools()
        return [
            _broken(m.for_template(), self._of(m.role))
            if m.extra
            else {"role": m.role, "content": _broken(m.content, self._of(m.role))}
            for m in messages
        ]

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """As `messages`."""
        if tools:
            self._require_tools()
        return [_broken(dict(tool), self.typed) for tool in tools]

    def text(self, text: str) -> str:
        """A text by itself."""
        broken: str = _broken(text, self.typed)
        return broken

    def absent(self, message: Message) -> bool:
        """Whether a turn other than a tool's is nothing but a text that holds none."""
        content = message.content
        return not (
            message.extra
            or message.role == "tool"
            or BREAK in content
            or self._of(message.role).search(content)
        )

    def _of(self, role: str) -> re.Pattern[str]:
        return self._patterns.get(role, self.typed)

    def _require_tools(self) -> None:
        if not self._has_tools:
            fix = "remove tools and tool turns, or set model.template to a Jinja file that writes them"
            raise RowError("template_without_tools", "the template does not write tools", fix=fix)


def _patterns(
    tokenizer: Any, ends: Sequence[str], render: Callable[[list[dict[str, Any]]], str]
) -> dict[str, re.Pattern[str]]:
    """Which texts may not stand in a message as tokens: for the assistant's turns, and for all others.

    Special tokens and ends nowhere; the added tokens that the template writes around a user's turn
    nowhere either; those it writes in the assistant's (<think>) only there.
    """
    added = tokenizer.added_tokens_decoder
    special = {token.content for token in added.values() if token.special} | set(ends)
    messages = [{"role": role, "content": content} for role, content in PROBE]

    def written(count: int) -> set[str]:
        ids = tokenizer(render(messages[:count]), add_special_tokens=False)["input_ids"]
        return {added[token].content for token in ids if token in added}

    return {"assistant": _pattern(special | written(1)), "user": _pattern(special | written(2))}


def _pattern(tokens: set[str]) -> re.Pattern[str]:
    longest_first = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _broken(value: Any, controls: re.Pattern[str]) -> Any:
    """The value with BREAK inside every control-token text of its strings, at any depth."""
    if not isinstance(value, str):
        if isinstance(value, Mapping):
            return {_broken(key, controls): _broken(item, controls) for key, item in value.items()}
        return [_broken(item, controls) for item in value] if isinstance(value, list | tuple) else value
    if BREAK in value:
        raise RowError("special_token_text", "the noncharacter U+FDD0", fix="remove it")
    pieces, at = [], 0
    while found := controls.search(value, at):
        if len(found.group()) == 1:
            raise RowError("special_token_text", f"the special token {found.group()!r} in a text")
        # After the first character, and searched again from there: tokens may overlap.
        pieces.append(value[at : found.start() + 1])
        at = found.start() + 1
    return BREAK.join([*pieces, value[at:]])
