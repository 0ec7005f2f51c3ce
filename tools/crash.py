"""The crash campaign: random kills, every crash point of the checkpoint writes, random corruptions.

python tools/crash.py --kills 25 --corruptions 500 [--record benchmarks/results]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.crash import harness

from tunesmith.config.machine import describe_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="runs that are killed at random")
    parser.add_argument("--corruptions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="folder for a dated JSON of the results")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tunesmith-crash-") as name:
        folder = Path(name)
        expected, seconds = harness.reference(folder / "reference")
        print(f"reference: {seconds:.1f} s")
        results = {"random kills": harness.random_kills(folder, expected, seconds, given.kills, given.seed)}
        print(results)
        results["crash points"] = harness.crash_points(folder, expected)
        results["corruptions"] = harness.corruptions(folder / "reference", given.corruptions, given.seed)
    facts = {"date": date.today().isoformat(), "machine": describe_machine(), "seed": given.seed}
    facts |= {"seconds": round(time.monotonic() - started, 1), **results}
    print(json.dumps(facts, indent=1))
    if given.record:
        given.record.mkdir(parents=True, exist_ok=True)
        (given.record / f"crash-{facts['date']}.json").write_text(json.dumps(facts, indent=1) + "\n")
    assert results["corruptions"]["detected"] == given.corruptions


if __name__ == "__main__":
    main()
