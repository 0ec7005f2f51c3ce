"""Which language a text is in."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.errors import ConfigError, near_miss

LEAST = 5
"""Words below which nothing is said."""


def language_of(text: str) -> str | None:
    """ISO 639-1, or None for a text that is too short to tell."""
    if len(text.split()) < LEAST:
        return None
    import py3langid

    return str(py3langid.classify(text)[0])


def check(languages: Sequence[str]) -> None:
    """Raises ConfigError for one that is never told: every row would be in another."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    known = list(map(str, LanguageIdentifier.from_model_file(MODEL_FILE).labels))
    for language in languages:
        if language not in known:
            raise ConfigError(
                f"clean.languages names '{language}'",
                near_miss(language, known),
                "write codes as of ISO 639-1, such as en",
            )
