"""Files of rows as a model would meet them: its tokens, and what training it on them would cost here."""

from __future__ import annotations

import json
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.config import defaults
from tunesmith.config.desk import Desk
from tunesmith.config.machine import trim_memory
from tunesmith.config.run import Run
from tunesmith.config.weights import known_parameters
from tunesmith.core import gate
from tunesmith.data.columns import JUDGED
from tunesmith.data.columns import Mapping as Meaning
from tunesmith.data.pairs import PairEncoder
from tunesmith.data.render import Renderer
from tunesmith.data.template import apply_choice, choose_template
from tunesmith.desk.facts import COUNTED, Cost, Inspecting, Inspection, Trained
from tunesmith.desk.inspect import inspect as look_at
from tunesmith.desk.lengths import Measure, Paired, Read, Rendered
from tunesmith.errors import TunesmithError
from tunesmith.models.load import Source, find, load_tokenizer, read_config
from tunesmith.train.probe import probe
from tunesmith.train.trial import Child, start
from tunesmith.types import EventSink, silent
from tunesmith.workflow.heads import context_of
from tunesmith.workflow.meaning import meanings_of
from tunesmith.workflow.names import names_of
from tunesmith.workflow.prepare import prepare

HEADS: dict[str, dict[str, Any]] = {
    "label": {"type": "classify"},
    "labels": {"type": "classify", "multi_label": True},
    "number": {"type": "regress"},
    "tags": {"type": "tag"},
    "pairs": {"type": "embed"},
    **{kind: {"type": "reward"} for kind in JUDGED},
}
"""Kind of rows -> the method by which an encoder learns from them."""
WRITERS: dict[str, dict[str, Any]] = {
    **{kind: {"type": "sft"} for kind in ("messages", "prompt", "label", "labels", "number", "tags", "text")},
    "pairs": {"type": "embed"},
    "preference": {"type": "preference"},
    "ranking": {"type": "ranking"},
    "rating": {"type": "reward"},
    "unpaired": {"type": "unpaired"},
}
"""Kind of rows -> the method by which a model that writes text learns from them."""


def inspect(
    desk: Desk, model: str, sink: EventSink, *, cost: bool = True, counted: int = COUNTED
) -> Inspection:
    """As `inspecting`, of what the recipe names, with each of its steps tried by itself.

    Raises ModelError and DataError for what cannot be read.
    """
    named = desk.scrub.names_model if desk.scrub is not None else None
    names = None if named is None else names_of(named)
    meaning = desk.dedup.meaning if desk.dedup is not None else None
    embed = None if meaning is None else meanings_of(meaning.encoder)
    asked = partial(inspecting, model, sink, cost=cost, counted=counted)
    return look_at(desk, asked, sink, names=names, embed=embed)


def inspecting(model: str, sink: EventSink, *, cost: bool = True, counted: int = COUNTED) -> Inspecting:
    """model: a folder, a hub id, a run, or the embedded base. cost: measure what a step of training takes here.
    counted: rows at most whose tokens are counted (0: all).

    Raises ModelError for what cannot be read.
    """
    sink("phase", name="model", text=model)
    source = find(model)
    tokenizer, config = load_tokenizer(source), read_config(source)

    def costing(trained: Trained) -> Cost:
        waiting = start()

        def cost() -> dict[str, Any]:
            sink("phase", name="cost", text="a step of training on the longest rows, in a process of its own")
            trim_memory()  # so that the step that is measured has what the rows had
            with waiting:
                found = cost_of(trained, model, source, config, waiting)
                waiting.kill()  # one that was not asked after all
            return found

        return cost

    return Inspecting(_measure(source, tokenizer, config), costing if cost else None, counted)


def _measure(source: Source, tokenizer: Any, config: Any) -> Measure:
    context = context_of(config, tokenizer, source.virtual_tokens)
    if config.is_encoder_decoder:
        return Paired(PairEncoder(tokenizer, context), source.base)
    if gate.is_encoder(config):
        return Read(tokenizer, source.base, context)
    choice = choose_template(tokenizer)
    apply_choice(tokenizer, choice)
    return Rendered(Renderer(tokenizer, choice), source.base, context)


def cost_of(trained: Trained, model: str, source: Source, config: Any, waiting: Child) -> dict[str, Any]:
    """Rows and tokens of an epoch, and what the recipe's defaults make of them on this machine; where a step of such
    training cannot be taken, why (`not_known`). waiting: as of `probe`."""
    meaning = trained.rows[0].shape.meaning
    rows = {"rows": trained.count, "tokens_per_epoch": trained.tokens}
    method = (HEADS if gate.is_encoder(config) else WRITERS).get(meaning.kind)
    if method is None:
        said = "their answers are sampled while it runs" if meaning.kind == "asked" else "it writes no text"
        return rows | {"not_known": f"{model} is not trained on {meaning.kind} rows alone: {said}"}
    with tempfile.TemporaryDirectory(prefix="tunesmith-cost-") as name:
        try:
            return rows | _measured(trained, meaning, method, model, source, Path(name), waiting)
        except TunesmithError as error:
            return rows | {"not_known": str(error)}


def _measured(
    trained: Trained,
    meaning: Meaning,
    method: dict[str, Any],
    model: str,
    source: Source,
    folder: Path,
    waiting: Child,
) -> dict[str, Any]:
    sample = folder / "sample.jsonl"
    lines = (json.dumps(row.values, ensure_ascii=False) + "\n" for row in trained.rows)
    sample.write_text("".join(lines), encoding="utf-8")
    is_text = meaning.kind == "text"
    batch, epochs = defaults.batch_size(trained.count, is_text), defaults.epochs(trained.count, is_text)
    document = {
        "model": {"base": model},
        "method": method,
        "data": _data(meaning, sample),
        "train": {"batch_size": batch, "epochs": epochs},
    }
    prepared = prepare(Run.model_validate(document), folder, silent)
    found = probe(prepared.run, prepared.rows["train"], waiting)
    steps = math.ceil(round(epochs * trained.count) / batch)
    tokens = epochs * trained.tokens
    return {
        "model": model,
        "parameters": known_parameters(source.base_folder),
        "method": prepared.run.method.type,
        "tuning": prepared.run.method.tuning,
        "epochs": epochs,
        "batch_size": batch,
        "steps": steps,
        "tokens": int(tokens),
        "train_seconds": round(tokens * found.seconds_per_token, 1),
        "tokens_per_second": round(1 / found.seconds_per_token, 1),
        "peak_memory_bytes": found.peak_bytes,
        "available_memory_bytes": found.available_bytes,
        "micro_batch_tokens": found.micro_batch_tokens,
        "rests_on": f"steps on the worst micro-batches of {len(trained.rows):,} of these rows, measured just now on "
        "this machine as busy as it is; defaults for all else; evaluation comes on top",
    }


def _data(meaning: Meaning, sample: Path) -> dict[str, Any]:
    """The columns as they were understood."""
    return {
        "train": [str(sample)],
        "format": meaning.kind,
        "columns": dict(meaning.columns),
        "message_keys": dict(meaning.turns.keys),
        "roles": dict(meaning.turns.roles),
        "targets": list(meaning.targets),
        "json_fields": list(meaning.json_fields),
        "validation_fraction": 0.0,
        "test_fraction": 0.0,
    }
