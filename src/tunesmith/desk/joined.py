"""Many expressions asked of a text in ASCII at once: RE2 joins them to one automaton, which walks over the text once.

For all of Unicode it would be large.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re2

MEMORY = 32 * 2**20
"""Bytes for states of an automaton, which are made as texts ask for them; when it is full they are made anew."""
_BLANK = r"[\t-\r\x1c-\x20]"
"""What is white space among ASCII, of which RE2's own class leaves some out."""
_AROUND = re.compile(r"\(\?<?[=!][^()]*\)")
_AGAIN = re.compile(r"\(\\\d\)")
_MOST = re.compile(r"\{(\d+),(\d{4,})\}")
"""RE2 counts to a thousand."""


class Joined:
    """Expressions by their places."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = patterns

    @cached_property
    def _automaton(self) -> re2.Set:
        import re2

        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = MEMORY
        options.log_errors = False
        tests = re2.Set.SearchSet(options)
        for place, pattern in enumerate(self.patterns):
            pattern = re.sub(r"[^\x00-\x7f]", r"\\xff", pattern)  # which no text in ASCII holds
            pattern = pattern.replace(r"[\s", "[" + _BLANK[1:-1]).replace(r"\s", _BLANK)
            assert tests.Add(pattern) == place, f"RE2 does not read {pattern}"
        tests.Compile()
        return tests

    def found_in(self, text: str) -> Sequence[int]:
        """Places of the expressions that are found in a text in ASCII."""
        return self._automaton.Match(text.encode("ascii")) or ()


def laxer(expression: re.Pattern[str], again: str) -> str:
    """An expression that RE2 reads, which is found wherever the given one is in a text in ASCII: it does not ask what
    stands before and after, and takes anything of the class `again` for what stood there before."""
    pattern = _AGAIN.sub(again, _AROUND.sub("", expression.pattern))
    pattern = _MOST.sub(r"{\1,}", pattern)
    flags = "".join(
        letter for letter, flag in (("i", re.IGNORECASE), ("s", re.DOTALL)) if expression.flags & flag
    )
    return f"(?{flags}:{pattern})" if flags else pattern
