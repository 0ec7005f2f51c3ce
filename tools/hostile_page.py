"""docs/hostile.md from the list of hostile inputs and the latest results of `make hostile`.

python tools/hostile_page.py > docs/hostile.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.hostile import campaign  # which registers them
from tests.hostile.inputs import ALL, Hostile

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"

HEAD = """# Hostile inputs

{holding} of {count} hold{not_holding}:
each is refused with file, line and reason, or mended with a count of it; memory stays below {memory} MiB, every
process lives and reads a good file after it. Measured {date} on {machine}
(`make hostile`{small}; `make test` has the same inputs smaller). Seconds are of processor time; the ten million rows
may take longer than 10, in bounded memory and with progress. Generators: [tests/hostile](../tests/hostile).

| # | input | bytes | what comes of it | | rows left | s | MiB |
|---:|---|---:|---|---|---:|---:|---:|
"""


def main() -> None:
    latest = sorted(RESULTS.glob("hostile-*.json"))[-1]
    facts = json.loads(latest.read_text(encoding="utf-8"))
    results = facts["inputs"]
    small = [one["number"] for one in results if not one["full"]]
    absent = sorted(ALL.keys() - {one["number"] for one in results})
    holding = sum(one["holds"] for one in results)
    page = HEAD.format(
        holding=holding,
        not_holding="".join(
            f" (not {one['number']}: {one['mib']} MiB, {one['seconds']:.0f} s)"
            for one in results
            if not one["holds"]
        ),
        count=len(results),
        memory=campaign.MEMORY,
        date=facts["date"],
        machine=facts["machine"],
        small=(", not at full size: " + ", ".join(map(str, small)) if small else "")
        + (", not in this run: " + ", ".join(map(str, absent)) if absent else ""),
    )
    print(page + "\n".join(_line(ALL[one["number"]], one) for one in results))


def _line(hostile: Hostile, found: dict[str, Any]) -> str:
    cells = [
        str(hostile.number),
        hostile.name,
        f"{found['bytes']:,}",
        ", ".join(_said(said, count) for said, count in found["comes_of_it"].items()) or "read",
        hostile.statement,
        f"{found['left']:,}",
        f"{found['seconds']:.2f}",
        str(found["mib"]),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _said(said: str, count: int) -> str:
    kind, _, words = said.partition(" ")
    if kind == "file":
        return "refused, file"
    return f"{kind} `{words}`" + (f" × {count}" if count > 1 else "") if words else kind


if __name__ == "__main__":
    main()
