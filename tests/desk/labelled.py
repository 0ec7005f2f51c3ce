"""The labelled sentences: what they hold, and how well findings fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.desk.finding import Found

FILE = Path(__file__).with_name("personal.txt")
_LABEL = re.compile(r"\[\[([A-Z_]+)\|(.*?)\]\]")


@dataclass(frozen=True)
class Sentence:
    """labels: (kind, start, end)."""

    text: str
    labels: tuple[tuple[str, int, int], ...]


def sentences() -> list[Sentence]:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return [_sentence(line.replace("¦", "")) for line in lines if not line.startswith("# ")]


def _sentence(line: str) -> Sentence:
    labels, parts, at = [], [], 0
    for match in _LABEL.finditer(line):
        parts += [line[at : match.start()], match[2]]
        end = sum(map(len, parts))
        labels.append((match[1], end - len(match[2]), end))
        at = match.end()
    return Sentence("".join((*parts, line[at:])), tuple(labels))


@dataclass
class Score:
    """Of one kind: labelled values that one finding covers wholly; findings, and those of them that overlap a label."""

    labelled: int = 0
    covered: int = 0
    found: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.covered / self.labelled

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0


def scores(
    rows: Iterable[Sentence], found: Callable[[str], Sequence[Found]], kinds: Iterable[str]
) -> tuple[dict[str, Score], list[str]]:
    """kind -> score, and a line for each fault."""
    out = {kind: Score() for kind in kinds}
    faults = []
    for row in rows:
        findings = found(row.text)
        for kind, start, end in row.labels:
            out[kind].labelled += 1
            covered = any(f.kind == kind and f.start <= start and f.end >= end for f in findings)
            out[kind].covered += covered
            if not covered:
                faults.append(f"missed {kind} '{row.text[start:end]}' in: {row.text}")
        for one in findings:
            right = any(one.kind == k and one.start < e and one.end > s for k, s, e in row.labels)
            out[one.kind].found += 1
            out[one.kind].right += right
            if not right:
                faults.append(f"taken for {one.kind}: '{row.text[one.start : one.end]}' in: {row.text}")
    return out, faults


def table(found: dict[str, Score]) -> str:
    lines = ["| kind | labelled | recall | found | precision |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {kind} | {s.labelled} | {s.recall:.3f} | {s.found} | {s.precision:.3f} |"
        for kind, s in found.items()
    ]
    return "\n".join(lines)
