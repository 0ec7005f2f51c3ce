"""JSON as RFC 8259 has it: what Python's `json` lets through in silence is an error here.

Python's module takes the last of two equal keys, reads NaN and Infinity, turns 1e400 into infinity and
leaves lone surrogates to fail much later. `parse_object` refuses each with a stable reason.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from tunesmith.errors import RowError

MAX_DEPTH = 64  # containers inside containers
MAX_VALUES = 1_000_000  # values in one row: bounds the memory that a short text can ask for
MAX_DIGITS = 308  # of an integer; a float64 reaches about 1e308


def parse_object(text: str, *, cut_off: bool = False) -> dict[str, Any]:
    """The JSON object in `text`.

    cut_off: the text is a last line without a line end, so a syntax error means a cut-off write.
    Raises RowError with a reason of: not_an_object, bad_json, cut_off, concatenated_json, duplicate_key,
    not_finite, huge_integer, too_deep, too_many_values, lone_surrogate.
    """
    if len(text) > MAX_VALUES and text.count(",") > MAX_VALUES:
        raise RowError("too_many_values", f"more than {MAX_VALUES:,} values in one row")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _syntax_error(text, error, cut_off) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        kind = {"list": "array", "NoneType": "null"}.get(type(value).__name__, type(value).__name__)
        raise RowError("not_an_object", f'the line holds a JSON {kind}; a row is an object: {{"text": "…"}}')
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if "\\u" in text and ("\\ud" in text or "\\uD" in text):
        _check_surrogates(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RowError(
            "duplicate_key", f"the key '{twice}' stands twice in one object", fix="keep the one that is meant"
        )
    return value


def _constant(name: str) -> NoReturn:
    raise RowError("not_finite", f"{name} is not JSON", fix="write null, or leave the field out")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise RowError("not_finite", f"{digits[:40]} is too large for a float64")
    return value


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise RowError("huge_integer", f"an integer of {len(digits):,} digits", fix="write it as a string")
    return int(digits)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)


def _syntax_error(text: str, error: json.JSONDecodeError, cut_off: bool) -> RowError:
    what = "Unexpected UTF-8 BOM (decode using utf-8-sig)" if text.startswith("\ufeff") else error.msg
    at = f"{what} at character {error.pos + 1}"
    if error.msg == "Extra data":
        return RowError(
            "concatenated_json",
            f"more than one JSON value on the line (the second at character {error.pos + 1})",
            fix="write one object on each line",
        )
    if cut_off:
        return RowError(
            "cut_off",
            f"the last line ends in the middle of its JSON ({at})",
            fix="the file was cut off while it was written or copied: make it again",
        )
    if text.lstrip().startswith(("//", "#", "/*")):
        return RowError("bad_json", "a comment; JSON has none", fix="remove the line")
    return RowError("bad_json", at, fix="each line must be one complete JSON object")


def _too_deep() -> RowError:
    return RowError("too_deep", f"containers nested more than {MAX_DEPTH} deep")


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)  # type: ignore[attr-defined]
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise RowError(
            "lone_surrogate",
            f"the escape \\u{ord(half):04x} is half of a character",
            fix="write the character itself in UTF-8, or both halves of the pair",
        ) from None
