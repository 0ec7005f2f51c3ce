"""A run as YAML text: `dump` for files, `explain` with the reason of every value beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml

from tunesmith.config.document import CoreDumper
from tunesmith.config.run import Run

_LINE_BREAKS = re.compile(r"[\n\r\x85\u2028\u2029]")
REASON_COLUMN = 44


class _Dumper(CoreDumper):
    """One line for each value: text with line breaks goes in double quotes, where they are escaped."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _LINE_BREAKS.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def scalar(value: Any) -> str:
    """A value as it stands after `key: ` in YAML, on one line."""
    return _kept(value) if isinstance(value, str | int | None) else _dumped(value)


@lru_cache(maxsize=4096, typed=True)
def _kept(value: str | int | None) -> str:
    """A run is written more than once, with the same names and mostly the same values."""
    return _dumped(value)


def _dumped(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def dump(run: Run) -> str:
    """YAML of every field; `load_run` reads the same run back from it."""
    return explain(run, {})


def explain(run: Run, reasons: Mapping[str, str]) -> str:
    """YAML of every field, with `# reason` where `reasons` (dotted key -> one line) has one."""
    return "\n".join(_lines(run.model_dump(mode="json"), "", 0, reasons)) + "\n"


def _lines(tree: Mapping[str, Any], prefix: str, depth: int, reasons: Mapping[str, str]) -> Iterator[str]:
    for name, value in tree.items():
        path, line = prefix + name, "  " * depth + scalar(name) + ":"
        if isinstance(value, dict) and value:
            yield line
            yield from _lines(value, path + ".", depth + 1, reasons)
            if path in reasons:
                continue
        else:
            line = f"{line} {scalar(value)}"
            reason = " ".join(reasons.get(path, "").split())
            yield f"{line.ljust(REASON_COLUMN)}  # {reason}" if reason else line
