"""From a resolved `Run` and its rows to an engine that is ready to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunesmith.config.run import Run, SftConfig
from tunesmith.core.objective import Objective
from tunesmith.data.template import apply_choice, choose_template
from tunesmith.models.load import Loaded, load_model
from tunesmith.models.tune import grow_embeddings, prepare
from tunesmith.objectives.sft import Sft
from tunesmith.registry import Registry
from tunesmith.train.optim import Optimizer
from tunesmith.train.source import StaticSource, rows_taken
from tunesmith.train.state import Progress, TrainState
from tunesmith.types import TokenRow

OBJECTIVES: Registry[type[Sft]] = Registry("training method")
OBJECTIVES.register("sft")(Sft)


@dataclass
class Built:
    """Everything that trains: a model with its trainable parameters, objective, source, state."""

    loaded: Loaded
    objective: Objective
    source: StaticSource
    state: TrainState
    notes: list[str]


def seed_everything(run: Run) -> None:
    """One seed, one thread count, deterministic kernels: the same build and machine give the same bits."""
    assert run.train.threads is not None
    torch.set_num_threads(run.train.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(run.seed)


def with_template(loaded: Loaded, setting: str) -> list[int]:
    """Settle the template on the tokenizer, and grow the embeddings for tokens it adds; returns their ids."""
    choice = choose_template(loaded.tokenizer, setting)
    apply_choice(loaded.tokenizer, choice)
    ids = [int(i) for i in loaded.tokenizer.convert_tokens_to_ids(choice.new_tokens)]
    grow_embeddings(loaded, ids)
    return ids


def build(run: Run, rows: Sequence[TokenRow], data_hashes: dict[str, str]) -> Built:
    """`run` must be resolved: no null is left where `tunesmith.config.defaults` would choose.

    An adapter's first weights depend on the seed alone.
    """
    seed_everything(run)
    loaded = load_model(run.model, train=True)
    notes = loaded.notes + prepare(loaded, run.method, with_template(loaded, run.model.template))
    train = run.train
    assert train.batch_size is not None
    assert train.threads is not None
    source = StaticSource(
        rows=rows,
        batch_size=train.batch_size,
        num_rows=rows_taken(train, len(rows)),
        seed=run.seed,
        padded=loaded.model.path == "padded",
        shuffled=train.order == "shuffled",
    )
    progress = Progress(micro_batch_tokens=train.micro_batch_tokens or 0, threads=train.threads)
    state = TrainState(
        progress, Optimizer(loaded.model.module, train), config_hash(run, loaded.base_hash, data_hashes)
    )
    return Built(loaded, make_objective(run.method), source, state, notes)


def make_objective(method: SftConfig) -> Objective:
    return OBJECTIVES[method.type](method)


def config_hash(run: Run, base_hash: str, data_hashes: dict[str, str]) -> str:
    """Of everything that decides the numbers; not of names, folders, the evaluation or the time limit."""
    parts = run.model_dump(include={"seed", "data", "model", "method", "train"}, mode="json")
    for name in ("max_minutes", "keep_checkpoints", "micro_batch_tokens"):
        parts["train"].pop(name)
    for name in ("train", "validation", "test", "on_bad_row"):
        parts["data"].pop(name)
    parts["model"].pop("base")
    text = json.dumps([parts, base_hash, sorted(data_hashes.values())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
