"""Conversations written as one text: "\\n\\nHuman: …\\n\\nAssistant: …", as preference data of the helpful-and-harmless
kind have them (arXiv:2204.05862)."""

from __future__ import annotations

import re

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A\n*|\n\n)(Human|Assistant):")


def is_transcript(text: str) -> bool:
    """Whether the text begins with what a human says and has an assistant's turn."""
    found = [match[1] for match in _TURN.finditer(text)]
    return bool(found) and _TURN.match(text) is not None and found[0] == "Human" and "Assistant" in found


def turns_of_transcript(text: str) -> list[dict[str, str]]:
    """Its turns as messages; of a text only the space after the speaker's colon is taken away."""
    _, *parts = _TURN.split(text)
    return [
        {"role": SPEAKERS[speaker], "content": content.removeprefix(" ")}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
