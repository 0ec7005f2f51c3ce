"""The report of an audit, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.desk.bias import Gap, Share

SHOWN = 12
NOTE = (
    "Word lists find people who are named by these words, and no others; a gap between groups is no proof of a cause, "
    "and none that is found is no proof that there is none."
)


@dataclass(frozen=True)
class AuditReport:
    """representation: dimension -> group -> share of the rows. rates: dimension -> group -> label -> share. gaps: of
    labels (empty where rows have none). model: what `--model` says, by dimension; None where none was given. toxicity:
    dimension -> group -> share of rows. folder: where it was written; None: nowhere."""

    meaning: str
    rows: int
    unusable: Mapping[str, int]
    representation: Mapping[str, Mapping[str, Share]]
    rates: Mapping[str, Mapping[str, Mapping[str, Share]]]
    gaps: Sequence[Gap]
    model: Mapping[str, Any] | None
    toxicity: Mapping[str, Mapping[str, Share]] | None
    folder: str | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "meaning": self.meaning,
            "rows": self.rows,
            "unusable": dict(self.unusable),
            "representation": {name: _as_dicts(found) for name, found in self.representation.items()},
            "rates": {
                name: {group: _as_dicts(found) for group, found in groups.items()}
                for name, groups in self.rates.items()
            },
            "gaps": [gap.as_dict() for gap in self.gaps],
            "gaps_found": sum(gap.found for gap in self.gaps),
            "model": self.model,
            "toxicity": None
            if self.toxicity is None
            else {name: _as_dicts(found) for name, found in self.toxicity.items()},
            "folder": self.folder,
            "note": NOTE,
        }

    def as_text(self) -> str:
        unusable = "".join(f"; {count:,} x {reason}" for reason, count in self.unusable.items())
        lines = [self.meaning, f"{self.rows:,} rows{unusable}", ""]
        for name, groups in self.representation.items():
            said = ", ".join(f"{group} {share.value:.1%}" for group, share in groups.items())
            lines.append(f"{name}: {said}")
        lines += ["", *self._gap_lines()]
        if self.toxicity is not None:
            lines += ["", "toxic rows by group:"]
            for name, groups in self.toxicity.items():
                lines += [
                    f"  {name}: {group} {_shown(share)}" for group, share in groups.items() if share.count
                ]
        if self.model is not None:
            lines += ["", *self._model_lines(self.model)]
        return "\n".join([*lines, "", NOTE, *([f"written: {self.folder}"] if self.folder else [])])

    def as_markdown(self) -> str:
        return f"# Audit\n\n```text\n{self.as_text()}\n```\n"

    def _gap_lines(self) -> list[str]:
        if not self.gaps:
            return ["no labels to compare, or no two groups with enough rows"]
        found = [gap for gap in self.gaps if gap.found]
        lines = [f"{len(found):,} of {len(self.gaps):,} gaps between groups are more than chance:"]
        for gap in found[:SHOWN]:
            lines.append(
                f"  {gap.dimension}: '{gap.label}' in {gap.inside.value:.1%} of {gap.group} "
                f"({gap.inside.n:,} rows), {gap.outside.value:.1%} of others: "
                f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
                + ("" if gap.weighted is None else f"; {gap.weighted:+.3f} by the weights of rows")
            )
        return lines + ([f"  and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else [])

    def _model_lines(self, model: Mapping[str, Any]) -> list[str]:
        lines = [f"answers of {model['model']}:"]
        for swap in model["swaps"]:
            if swap["changed"]["count"]:
                one = swap["changed"]
                lines.append(
                    f"  {swap['dimension']}: {swap['from']} -> {swap['to']} changes {one['value']:.1%} "
                    f"[{one['low']:.1%}, {one['high']:.1%}] of {one['n']:,} answers; most: {swap['most'] or 'none'}"
                )
        if not any(swap["changed"]["count"] for swap in model["swaps"]):
            lines.append(
                f"  no answer changes with the words of a group ({len(model['swaps'])} pairs of groups)"
            )
        for name, found in model["subgroups"].items():
            low, high = found["accuracy_difference_interval"]
            lines.append(
                f"  {name}: accuracy differs by up to {found['accuracy_difference']:.3f} [{low:.3f}, {high:.3f}]: "
                + ", ".join(f"{group} {one['accuracy']:.3f}" for group, one in found["groups"].items())
            )
        return lines


def _as_dicts(found: Mapping[str, Share]) -> dict[str, dict[str, float]]:
    return {name: share.as_dict() for name, share in found.items()}


def _shown(share: Share) -> str:
    return f"{share.value:.2%} [{share.low:.2%}, {share.high:.2%}] of {share.n:,}"
