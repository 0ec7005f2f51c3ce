"""The crash campaign: random kills, every crash point of the checkpoint writes, random corruptions.

python tools/crash.py [--method preference|ppo|grpo] --kills 25 --corruptions 500 [--record benchmarks/results]
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
    parser.add_argument("--method", choices=harness.METHODS, default="sft")
    parser.add_argument("--kills", type=int, default=25, help="runs that are killed at random")
    parser.add_argument(
        "--points", type=int, help="die at this many storage operations of a run; all by default"
    )
    parser.add_argument("--corruptions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="folder for a dated JSON of the results")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tunesmith-crash-") as name:
        folder = Path(name)
        expected, seconds = harness.whole(folder / "whole", given.method)
        print(f"uninterrupted: {seconds:.1f} s")
        kills = harness.random_kills(folder, given.method, expected, seconds, given.kills, given.seed)
        results = {"random kills": kills}
        print(results, flush=True)
        results["crash points"] = harness.crash_points(folder, given.method, expected, given.points)
        results["corruptions"] = harness.corruptions(folder / "whole", given.corruptions, given.seed)
    facts = {"date": date.today().isoformat(), "machine": describe_machine(), "method": given.method}
    facts |= {"seed": given.seed}
    facts |= {"seconds": round(time.monotonic() - started, 1), **results}
    print(json.dumps(facts, indent=1))
    if given.record:
        given.record.mkdir(parents=True, exist_ok=True)
        (given.record / f"crash-{given.method}-{facts['date']}.json").write_text(
            json.dumps(facts, indent=1) + "\n"
        )
    assert results["corruptions"]["detected"] == given.corruptions


if __name__ == "__main__":
    main()
