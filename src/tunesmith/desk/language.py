"""Which language a text is in."""

from __future__ import annotations

LEAST = 5
"""Words below which nothing is said."""


def language_of(text: str) -> str | None:
    """ISO 639-1, or None for a text that is too short to tell."""
    if len(text.split()) < LEAST:
        return None
    import py3langid

    return str(py3langid.classify(text)[0])
