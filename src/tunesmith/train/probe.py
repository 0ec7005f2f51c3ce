"""Before step 1: does the largest micro-batch fit, and how long will the run take?

On a CPU running out of memory is a kill, not an exception, so a child process runs the largest micro-batch and
reports; a child that dies or takes too much halves the micro-batch. On a GPU its memory is what counts. The child is
`python -m tunesmith.train.probe`, which loads its libraries and waits for the name of a folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from tunesmith import errors
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.run import Run
from tunesmith.core import device as devices
from tunesmith.core.batch import Batch
from tunesmith.data.flat import FlatRows, flat_rows, sizes
from tunesmith.errors import ResourceError, TunesmithError
from tunesmith.train.source import StaticSource, divided, rows_taken
from tunesmith.train.trial import Child, start
from tunesmith.types import TokenRow

if TYPE_CHECKING:
    from tunesmith.core.noise import EmbeddingNoise
    from tunesmith.train.build import Built

SHARE = 0.9
"""Share of the available memory that a run may take."""
EPOCHS = 1000
"""Whose steps are looked at for the largest: of more epochs of few rows the next would hardly be larger."""
FIRST_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Tokens of the first micro-batch tried: more than this makes products no faster, and takes more memory."""


@dataclass(frozen=True)
class Estimate:
    """micro_batch_tokens: the chosen size. seconds_per_token: of training. peak_bytes: of the child with it.
    activation_checkpointing: whether it took that."""

    micro_batch_tokens: int
    seconds_per_token: float
    peak_bytes: int
    available_bytes: int
    tried: tuple[int, ...]
    activation_checkpointing: bool = False


def probe(run: Run, rows: Sequence[TokenRow], waiting: Child | None = None) -> Estimate:
    """Measure in a child process, halving the micro-batch until it fits; where the longest row alone does not, once
    more with activation checkpointing, unless the recipe decides on that. waiting: the child that measures first.
    ResourceError where that does not fit."""
    longest, device = int(sizes(rows)[0].max()), devices.choose(run.model.device)
    size = max(run.train.micro_batch_tokens or FIRST_TOKENS[device.type], longest)
    saves = bool(run.train.activation_checkpointing)
    may_save = (
        run.train.activation_checkpointing is None and run.method.tuning != "prefix"
    )  # see `train.build`
    tried: list[int] = []
    while True:
        tried.append(size)
        available = devices.free_memory(device)
        measured = _run_child(_saving(run, saves), rows, size, waiting)
        waiting = None
        if isinstance(measured, dict) and measured["peak_bytes"] <= SHARE * available:
            return Estimate(
                size,
                measured["seconds_per_token"],
                int(measured["peak_bytes"]),
                available,
                tuple(tried),
                saves,
            )
        if size <= longest and not saves and may_save:
            saves = True
            continue
        if size <= longest:
            raise ResourceError(
                f"a micro-batch of {size} tokens does not fit: {_describe(measured)}; {available / 1e9:.1f} GB free",
                "a smaller model, shorter rows or more memory",
                "set data.max_length lower, use method.tuning=lora, choose a smaller model, or free memory"
                + ("" if saves else "; or leave out train.activation_checkpointing=false"),
            )
        size = max(longest, size // 2)


def _saving(run: Run, saves: bool) -> Run:
    """The run with activation checkpointing decided."""
    train = run.train.model_copy(update={"activation_checkpointing": saves})
    return run.model_copy(update={"train": train})


def _describe(measured: dict[str, float] | int) -> str:
    if isinstance(measured, dict):
        return f"it takes {measured['peak_bytes'] / 1e9:.1f} GB"
    return (
        f"the trial process died (signal {-measured})"
        if measured < 0
        else f"the trial process failed ({measured})"
    )


def _run_child(
    run: Run, rows: Sequence[TokenRow], size: int, waiting: Child | None
) -> dict[str, float] | int:
    """The child's figures, or its exit status where it was killed."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-probe-") as name:
        folder = Path(name)
        steps = heaviest(run, rows, size)
        asked = sorted({row for step in steps for row in step})
        places = [[asked.index(row) for row in step] for step in steps]
        spec = {"run": run.model_dump(mode="json"), "size": size, "steps": places}
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
        _write_rows(folder / "rows", [rows[i] for i in asked])
        with waiting or start() as child:
            said, faults = child.communicate(name)
        if child.returncode == 0:
            return _figures(json.loads(said.splitlines()[-1]))
        if child.returncode > 0 and "MemoryError" not in faults and "alloc" not in faults:
            raise ResourceError(
                f"the trial step failed:\n{faults[-2000:]}", "a step that runs", "see the error above"
            )
        return child.returncode


def _figures(said: dict[str, Any]) -> dict[str, float]:
    """The child's figures; what it found wrong with the recipe is raised here as it was there."""
    if "error" in said:
        kind, got, expected, fix = said["error"]
        raise vars(errors)[kind](got, expected, fix)
    return said


def heaviest(run: Run, rows: Sequence[TokenRow], size: int) -> list[list[int]]:
    """The steps that take most, as indices of rows: that of most tokens, and that which supervises most. Of the run's
    own where none has more than `size` tokens, so that each is a micro-batch; else the longest rows, and those with the
    largest share of supervised tokens."""
    count = run.train.batch_size
    assert count is not None
    tokens, supervised = sizes(rows)
    if not isinstance(run.method, PolicyConfig) and count * tokens.mean() <= size:
        order = StaticSource(
            rows=rows,
            batch_size=count,
            num_rows=min(rows_taken(run.train, len(rows)), EPOCHS * len(rows)),
            seed=run.seed,
            padded=False,
            shuffled=run.train.order == "shuffled",
        )
        of_steps = order.sums(tokens)
        if of_steps.max() <= size:
            return [order.indices(int(np.argmax(sums))) for sums in (of_steps, order.sums(supervised))]
    keys = (-tokens, -supervised / tokens)
    return [np.argsort(key, kind="stable")[:count].tolist() for key in keys]


def largest(
    steps: Sequence[Sequence[TokenRow]], size: int, *, padded: bool, share: bool
) -> list[list[TokenRow]]:
    """Of the step of most tokens and that which supervises most, in micro-batches of `size` tokens: the longest, and
    that which supervises most where it supervises more. padded, share: as of `divided`."""
    of_longest, of_most = (divided(rows, size, padded=padded, share=share) for rows in steps)
    longest, most = of_longest[0], max(of_most, key=_supervised)
    return [longest, most] if _supervised(most) > _supervised(longest) else [longest]


def _supervised(rows: Sequence[TokenRow]) -> int:
    return sum(row.num_supervised for row in rows)


def _write_rows(folder: Path, rows: list[TokenRow]) -> None:
    folder.mkdir()
    for name, array in flat_rows(rows, {file: 0 for file in {row.ref.file for row in rows}}).items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _read_rows(folder: Path) -> list[TokenRow]:
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}
    return list(FlatRows(arrays, ["probe"]))


def main() -> None:
    """The child: a whole step on each of the worst micro-batches, in a process that the kernel kills first."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    from tunesmith.config.judged import Judged
    from tunesmith.train.build import build
    from tunesmith.train.engine import embedding_noise
    from tunesmith.train.reference import zero_reference

    name = sys.stdin.read()
    if not name:
        return  # nothing is to be measured after all
    folder = Path(name)
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    run = Run.model_validate(spec["run"])
    rows = _read_rows(folder / "rows")
    if isinstance(run.method, Judged) and run.method.reference == "start":
        rows = zero_reference(rows)
    built = build(run, rows, {})
    source = built.source
    steps = [[rows[i] for i in step] for step in spec["steps"]]
    batches = largest(steps, spec["size"], padded=source.padded, share=source.share)
    noise = embedding_noise(run.train, run.seed)
    _step(built, batches[0][-1:], noise)  # one row: what is done once is not timed
    started = time.perf_counter()
    for batch in batches:
        _step(built, batch, noise)
    devices.finish(built.loaded.model.device)
    seconds = time.perf_counter() - started
    tokens = sum(row.num_tokens for batch in batches for row in batch)
    peak = devices.peak_memory(built.loaded.model.device)
    print(json.dumps({"seconds_per_token": seconds / tokens, "peak_bytes": peak}))


def _step(built: Built, rows: list[TokenRow], noise: EmbeddingNoise | None) -> None:
    batch = Batch.from_rows(rows, share=built.source.share)
    weights = built.objective.weights(batch)
    with built.loaded.model.noisy(noise):
        out = built.objective.loss(built.loaded.model, batch)
        loss = sum(out.terms[t] / weights[t] for t in out.terms)
        loss.backward()  # type: ignore[union-attr]
    optimizer = built.state.optimizer
    optimizer.step(0.0, optimizer.grad_norm().item())


if __name__ == "__main__":
    try:
        main()
    except TunesmithError as problem:
        parts = [type(problem).__name__, problem.got, problem.expected, problem.fix]
        print(json.dumps({"error": parts}))
