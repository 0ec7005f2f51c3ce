"""Models with heads that the tests save and open: of every family, kind of head and pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests import fakes
from tests.models import folders
from tunesmith.models.heads import HeadSpec
from tunesmith.models.load import Loaded

CLASSIFY = HeadSpec("classify", fakes.LABELS)
MEAN = replace(CLASSIFY, pooling="mean")
TAG = HeadSpec("tag", ("O", "B-name", "I-name"))
RATING = HeadSpec("regress", ("stars",), scale=((3.0, 1.5),))
TOPICS = HeadSpec("classify", fakes.LABELS, multi_label=True)


@dataclass(frozen=True)
class Case:
    """One saved model. pooler: of the base."""

    family: str
    spec: HeadSpec = CLASSIFY
    tuning: str = "full"
    pooler: bool = True
    merged: bool = False

    @property
    def kind(self) -> str:
        """What stock software opens it as."""
        if self.spec.method == "tag":
            return "token"
        return "sequence" if self.spec.pooling == "auto" else "pooled"


MADE = {
    **{family: Case(family) for family in (*fakes.ENCODERS, "llama", "gpt2")},
    **{f"{family}-tag": Case(family, TAG) for family in ("bert", "roberta", "modernbert", "llama", "gpt2")},
    **{f"{family}-mean": Case(family, MEAN) for family in ("bert", "roberta", "modernbert", "llama")},
    "modernbert-own-mean": Case("modernbert-mean"),
    "bert-last": Case("bert", replace(CLASSIFY, pooling="last")),
    "bert-no-pooler": Case("bert", pooler=False),
    "bert-regress": Case("bert", RATING),
    "distilbert-topics": Case("distilbert", TOPICS),
}


def write(case: Case, folder: Path) -> Path:
    if case.family in fakes.FAMILIES:
        return folders.write_base(folder, case.family)
    return folders.write_encoder(folder, case.family, pooler=case.pooler)


def asked(spec: HeadSpec) -> list[Any]:
    """Every text, and in tagging every token of it."""
    rows = folders.head_rows(spec)
    if spec.method != "tag":
        return rows
    return [fakes.text_row(r.segments[0].ids, [0] * r.num_tokens) for r in rows]


def weights_of(loaded: Loaded) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in loaded.model.module.named_parameters()}
