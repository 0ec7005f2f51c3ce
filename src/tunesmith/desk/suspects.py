"""Rows that a person should look at, and why. A reason is no verdict: such a row may be as it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import regex

from tunesmith.data.split import normalised
from tunesmith.desk.rows import Row, Text
from tunesmith.desk.steps import excerpt
from tunesmith.desk.worthless import HALF, is_placeholder, is_refusal, repeated_share

REASONS: dict[str, str] = {
    "unusable": "training refuses it",
    "conflict": "the same prompt stands elsewhere with another answer or label",
    "answer_is_prompt": "the answer says what the prompt says",
    "placeholder": "nobody filled it in",
    "refusal": "the answer refuses",
    "repetition": "more than half of it repeats",
    "odd_characters": "more than a tenth are neither letters, digits, punctuation nor blanks",
    "too_long": "more tokens than the model takes",
    "label_once": "its label stands nowhere else",
    "answer_in_prompt": "the answer stands in the prompt",
    "label_in_prompt": "the label's name stands in the prompt",
}
"""Reason -> what it means; the worst first."""
BITS = {reason: 1 << (len(REASONS) - 1 - place) for place, reason in enumerate(REASONS)}
"""So a number with more of them, or with a worse one, is greater."""
ODD, LEAST_ODD = 0.1, 3
WORDS_OF_ANSWER = 4
"""Fewer words of an answer stand in a prompt by chance."""

_ODD = regex.compile(r"[^\p{L}\p{M}\p{N}\p{P}\p{Zs}\s\p{Sc}\p{Sm}\p{Sk}]")
_CONTROLS = bytes(code for code in range(128) if _ODD.match(chr(code)))
"""Of ASCII, those that are odd."""


def reasons_of(row: Row, labels: Sequence[str]) -> dict[str, str]:
    """Reason -> what was found, of what a row tells by itself but for its length and whether training takes it.
    labels: the classes that it names."""
    prompts = [text.text for text in row.texts if text.part == "prompt"]
    answers = [text.text for text in row.texts if text.part == "answer"]
    found = _worthless(row.doubtful) if row.doubtful else {}
    for text in (*prompts, *answers):
        if (odd := odd_share(text, ODD)) > ODD:
            found["odd_characters"] = f"{odd:.0%} of its characters"
    return found | _repeated(row, prompts, answers, labels)


def _worthless(texts: Sequence[Text]) -> dict[str, str]:
    found: dict[str, str] = {}
    # Prompts first: of one reason, the first placeholder and refusal and the last repetition are told.
    for part in ("prompt", "answer"):
        for text in (text.text for text in texts if text.part == part):
            if "placeholder" not in found and is_placeholder(text):
                found["placeholder"] = excerpt([text], 60)
            if (share := repeated_share(text, HALF)) > HALF:
                found["repetition"] = f"{share:.0%} of it repeats"
            if "refusal" not in found and part == "answer" and is_refusal(text):
                found["refusal"] = excerpt([text], 60)
    return found


def odd_share(text: str, matters: float = 0.0) -> float:
    """Share of characters that are neither letters, digits, punctuation, blanks nor signs of money and mathematics;
    0 where there are fewer than three, and where it can be at most `matters`: few characters are not ASCII's own."""
    other = len(text) - len(text.encode("ascii", "ignore").translate(None, _CONTROLS))
    if other < LEAST_ODD or other / len(text) <= matters:
        return 0.0
    odd = sum(1 for _ in _ODD.finditer(text))
    return odd / len(text) if odd >= LEAST_ODD else 0.0


def _repeated(
    row: Row, prompts: Sequence[str], answers: Sequence[str], labels: Sequence[str]
) -> dict[str, str]:
    """What of the answer or the label the prompt already says."""
    found: dict[str, str] = {}
    asked = [row.normalised(prompt) for prompt in prompts]
    for answer in map(row.normalised, answers):
        if not answer or not any([answer in prompt for prompt in asked]):
            continue
        if answer in asked:
            found["answer_is_prompt"] = excerpt([answer], 60)
        elif len(answer.split()) >= WORDS_OF_ANSWER:
            found["answer_in_prompt"] = excerpt([answer], 60)
    for label in labels:
        name = normalised(label.replace("_", " "))
        if name and any(f" {name} " in f" {_words(prompt)} " for prompt in asked):
            found["label_in_prompt"] = excerpt([label], 60)
    return found


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() or c == "-" else " " for c in text).split())


def mask_of(reasons: Mapping[str, str]) -> int:
    return sum(BITS[reason] for reason in reasons)


def reasons_in(mask: int) -> list[str]:
    """The worst first."""
    return [reason for reason, bit in BITS.items() if mask & bit]
