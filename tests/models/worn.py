"""Models under adapters of every kind: made, trained a step, asked, saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from tests import fakes
from tests.models import folders
from tunesmith.config.methods import ClassifyConfig, SftConfig
from tunesmith.config.run import ModelConfig, TrainConfig
from tunesmith.config.tuning import PROMPTED
from tunesmith.core.batch import Batch
from tunesmith.generate.batched import evaluating
from tunesmith.models.heads import spec_of
from tunesmith.models.load import Loaded, load_model
from tunesmith.models.save import save_model
from tunesmith.models.tune import lr_factors, prepare
from tunesmith.train.build import make_objective
from tunesmith.train.optim import Optimizer

LABELS = ["a", "b", "c"]
TEXT = "virtual"
"""What learned tokens start from, a token a byte."""


@dataclass(frozen=True)
class Case:
    """One kind of adapter. exact: a new one leaves every bit of the model's answers. merges: it can be merged."""

    tuning: str
    settings: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    merges: bool = True

    @property
    def prompted(self) -> bool:
        return self.tuning in PROMPTED


SMALL = {"rank": 4}
KINDS = {
    "lora": Case("lora", SMALL),
    "gaussian": Case("lora", {**SMALL, "init": "gaussian"}),
    "rslora": Case("lora", {**SMALL, "rslora": True}),
    "ranks": Case("lora", {**SMALL, "ranks": {"[13]\\..*(dense|mlp|down_proj)": 2}, "alphas": {"0": 3}}),
    "dora": Case("lora", {**SMALL, "dora": True}),
    "pissa": Case("lora", {**SMALL, "init": "pissa"}, exact=False),
    "pissa-rslora": Case("lora", {**SMALL, "init": "pissa", "rslora": True}, exact=False),
    "pissa-dora": Case("lora", {**SMALL, "init": "pissa", "dora": True}, exact=False),
    "olora": Case("lora", {**SMALL, "init": "olora"}, exact=False),
    "olora-ranks": Case(
        "lora", {**SMALL, "init": "olora", "ranks": {"0": 2}, "alphas": {"1": 3}}, exact=False
    ),
    "embeddings": Case("lora", {**SMALL, "train_embeddings": True}),
    "ia3": Case("ia3"),
    "loha": Case("loha", {"rank": 2}),
    "vera": Case("vera", {"rank": 16}),
    "prompt": Case("prompt", {"tokens": 7, "text": TEXT}, merges=False),
    "prefix": Case("prefix", {"tokens": 7, "text": TEXT}, merges=False),
}
FAMILIES = ("llama", "gpt2", "bert")
REFUSED = {
    ("gpt2", "olora"): "OLoRA takes them for plain ones",
    ("gpt2", "loha"): "LoHa does not know them",
    ("gpt2", "embeddings"): "tied only where they are called embed_tokens",
    ("bert", "prefix"): "prefix tuning of an encoder",
}
VARIANTS = ("gaussian", "rslora", "pissa-rslora", "olora-ranks")
"""Of a kind that is there without them: one family is enough."""
CASES = {
    f"{f}-{k}": (f, k)
    for f in FAMILIES
    for k in KINDS
    if (f, k) not in REFUSED and (f == "llama" or k not in VARIANTS)
}


def write_base(folder: Path, family: str) -> Path:
    if family != "bert":
        return folders.write_base(folder, family)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=folders.VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    module = AutoModelForSequenceClassification.from_config(config)
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    module.save_pretrained(folder)
    folders.tokenizer().save_pretrained(folder)
    return folder


def method_of(family: str, case: Case, **other: Any) -> SftConfig | ClassifyConfig:
    said = {"tuning": case.tuning, case.tuning: {**case.settings, **other}}
    return ClassifyConfig(labels=LABELS, **said) if family == "bert" else SftConfig(**said)


def open_for(folder: Path, family: str, case: Case, *, path: str = "auto", **other: Any) -> Loaded:
    """Load and prepare as a run does, from one seed."""
    torch.manual_seed(0)
    method = method_of(family, case, **other)
    config = ModelConfig(base=str(folder), dtype="float32", path=path)
    loaded = load_model(config, head=spec_of(method), train=True, prompted=case.prompted)
    loaded.notes += prepare(loaded, method, [])
    return loaded


def reopen(folder: Path) -> Loaded:
    """A saved model, opened for answering."""
    return load_model(ModelConfig(base=str(folder), dtype="float32"))


ROWS = [[5, 80, 11, 200, 33, 9], [7, 7, 90, 41], [64, 120, 3, 8, 8, 18, 77, 50]]


def batch_of(family: str, rows: Sequence[Sequence[int]] = ROWS) -> Batch:
    """Ragged rows; every token but the first is supervised, or each row has a class."""
    made = [fakes.row(ids, 1, index) for index, ids in enumerate(rows)]
    if family == "bert":
        made = [replace(row, target=np.array([i % 3], np.int64), alone=True) for i, row in enumerate(made)]
    return Batch.from_rows(made)


def answers(loaded: Loaded, family: str, rows: Sequence[Sequence[int]] = ROWS) -> torch.Tensor:
    """Logits at every supervised position, or of every row, in the order of the rows."""
    model, batch = loaded.model, batch_of(family, rows)
    with evaluating(model.module):
        return model.outputs(batch) if family == "bert" else model.logits(batch)


def optimizer_of(loaded: Loaded) -> Optimizer:
    return Optimizer(loaded.model.module, TrainConfig(), lr_factors(loaded.model, 1.0, 1.0))


def one_step(loaded: Loaded, family: str, case: Case, optimizer: Optimizer, rate: float = 1e-2) -> None:
    batch, objective = batch_of(family), make_objective(method_of(family, case))
    out = objective.loss(loaded.model, batch)
    (name,) = out.terms
    (out.terms[name] / objective.weights(batch)[name]).backward()
    optimizer.step(rate, optimizer.grad_norm().item())


def trained(folder: Path, family: str, case: Case, steps: int = 2) -> Loaded:
    loaded = open_for(folder, family, case)
    optimizer = optimizer_of(loaded)
    for _ in range(steps):
        one_step(loaded, family, case, optimizer)
    return loaded


def save(loaded: Loaded, folder: Path, kind: str = "adapter") -> Path:
    manifest = replace(
        folders.manifest(loaded, kind), head=loaded.head.as_dict() if loaded.head is not None else None
    )
    save_model(loaded.model.module, loaded.tokenizer, manifest, folder, loaded.model.head)
    return folder
