"""Models with a head: loading them, and which of their parts are new.

A pooling that the family's own ...ForSequenceClassification has gives a stock model. Any other gives a `PooledHead`,
which is saved as a sentence-transformers folder: the backbone, `1_Pooling`, and the linear layer as `2_Dense`, or
`2_Normalize` where texts are embedded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from tunesmith.config.judged import OfSteps, ScoresAnswers
from tunesmith.config.methods import ClassifyConfig, EmbedConfig, Method, RegressConfig
from tunesmith.config.tuning import Writes
from tunesmith.core import gate
from tunesmith.core.heads import Head, PooledHead, Pooling
from tunesmith.errors import ConfigError, ModelError

DENSE = "2_Dense"
NORMALIZE = "2_Normalize"
POOLER = ".pooler."


@dataclass(frozen=True)
class HeadSpec:
    """What a head says. method: of the run that made it. labels: names of its outputs, in order.

    scale: for numbers, mean and standard deviation of each (outputs are in these units); of rewards, where they were
    learned from ratings. abstain_below: see `ClassifyConfig`. steps: where it scores the steps of an answer, how they
    make a score of the answer. instruction lies in the manifest.
    """

    method: Literal["classify", "regress", "tag", "embed", "reward"]
    labels: tuple[str, ...]
    pooling: Pooling | Literal["auto"] = "auto"
    multi_label: bool = False
    scale: tuple[tuple[float, float], ...] = field(default=())
    abstain_below: float = 0.0
    steps: OfSteps | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> HeadSpec:
        scale = tuple((float(a), float(b)) for a, b in raw["scale"])
        return cls(**{**raw, "labels": tuple(raw["labels"]), "scale": scale})


def spec_of(method: Method) -> HeadSpec | None:
    """What a resolved recipe's head says; None for a language model."""
    if isinstance(method, Writes):
        return None
    if isinstance(method, EmbedConfig):
        return HeadSpec(method="embed", labels=(), pooling=method.pooling)
    if isinstance(method, ScoresAnswers):
        unit = method.unit()
        return HeadSpec(
            method="reward",
            labels=("reward",),
            pooling=method.pooling,
            scale=() if unit is None else (unit,),
            steps=method.of_steps(),
        )
    assert method.labels is not None, "defaults are resolved before a run"
    classify = method if isinstance(method, ClassifyConfig) else ClassifyConfig()
    return HeadSpec(
        method=method.type,
        labels=tuple(method.labels),
        pooling=method.pooling,
        multi_label=classify.multi_label,
        scale=tuple(method.scale or ()) if isinstance(method, RegressConfig) else (),
        abstain_below=classify.abstain_below,
    )


def choose_pooling(spec: HeadSpec, config: PretrainedConfig, folder: Path) -> Pooling:
    """The pooling asked for, else last for causal models, and mean for encoders that say so."""
    encoder = gate.is_encoder(config)
    if spec.pooling == "auto":
        if not encoder:
            return "last"
        pooled = folder / "1_Pooling" / "config.json"
        said = json.loads(pooled.read_text()) if pooled.exists() else {}
        # The second is how newer versions of sentence-transformers write it.
        means = said.get("pooling_mode_mean_tokens") or said.get("pooling_mode") == "mean"
        return "mean" if means or _own_pooling(config) == "mean" else "cls"
    if spec.method == "reward" and not encoder and spec.pooling != "last":
        raise ConfigError(
            f"method.pooling={spec.pooling} for rewards of a causal model, whose answers share their prompt's states",
            "last",
            "leave method.pooling out",
        )
    if spec.pooling == "cls" and not encoder:
        raise ConfigError(
            f"method.pooling=cls, but {config.model_type} is a causal model, whose first token sees nothing else",
            "last or mean",
            "set method.pooling=last",
        )
    return spec.pooling


def is_stock(pooling: Pooling, config: PretrainedConfig) -> bool:
    """Does the family's own classification head read this state? Not where the base's configuration would have to be
    another: stock software reads an adapter's from the base."""
    known: Container[str] = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return pooling == _own_pooling(config) and config.model_type in known


def _own_pooling(config: PretrainedConfig) -> str:
    """Of the family's own classification head; ModernBERT's says which in its configuration."""
    known = config.to_dict().get("classifier_pooling")
    return str(known) if known is not None else "cls" if gate.is_encoder(config) else "last"


def build(
    folder: Path,
    config: PretrainedConfig,
    spec: HeadSpec,
    load: Any,
    dense: Path | None,
    *,
    renew: bool,
    bare: bool = False,
) -> tuple[Any, Head, list[str]]:
    """The module with its head, and notes. load(AutoClass) -> (module, names of the tensors that no file had).

    dense: the folder of a saved `PooledHead` with these outputs, if there is one. renew: the stock head that lies in
    `folder` is for other outputs. bare: never the stock head (under prompt tuning that would read the virtual tokens'
    states). A new head is drawn from torch's generator.
    """
    causal = not gate.is_encoder(config)
    pooling = choose_pooling(spec, config, folder)
    if spec.method == "tag":
        tagger = _stock(AutoModelForTokenClassification, "token", pooling, causal, config, spec, load, renew)
        if not tagger[1].reads_one_state():
            raise ModelError(
                f"the token classifier of {config.model_type} reads more than its last states",
                "one that reads them alone",
                "choose another model",
            )
        return tagger
    embeds = spec.method == "embed"
    kind: Literal["sequence", "completion"] = "completion" if spec.method == "reward" else "sequence"
    if is_stock(pooling, config) and not bare and not embeds:
        stock = _stock(AutoModelForSequenceClassification, kind, pooling, causal, config, spec, load, renew)
        if stock[1].reads_one_state():
            return stock
    backbone, missing = load(AutoModel)
    refuse_missing(folder, [name for name in missing if not name.startswith("pooler.")])
    if embeds:
        carrier = PooledHead(backbone, None, 0.0)
        return carrier, Head("embedding", pooling, carrier, backbone, causal), []
    rate = config.to_dict().get("hidden_dropout_prob", 0.0)
    carrier = PooledHead(backbone, len(spec.labels), float(rate))
    notes = [f"a new linear layer on the {pooling} of the states: {len(spec.labels)} outputs"]
    if dense is not None and (dense / DENSE).is_dir():
        saved = load_file(dense / DENSE / "model.safetensors")
        assert carrier.classifier is not None
        carrier.classifier.load_state_dict({name.removeprefix("linear."): w for name, w in saved.items()})
        notes = []
    return carrier, Head(kind, pooling, carrier, backbone, causal), notes


def _stock(
    kind: Any,
    reads: Literal["sequence", "token", "completion"],
    pooling: Pooling,
    causal: bool,
    config: PretrainedConfig,
    spec: HeadSpec,
    load: Any,
    renew: bool,
) -> tuple[Any, Head, list[str]]:
    own = [str(config.id2label[i]) for i in sorted(config.id2label)]
    unnamed = all(name == f"LABEL_{i}" for i, name in enumerate(own))
    renew = renew or (len(own) == len(spec.labels) and own != list(spec.labels) and not unnamed)
    config.num_labels = len(spec.labels)
    config.id2label = dict(enumerate(spec.labels))
    config.label2id = {label: i for i, label in enumerate(spec.labels)}
    config.problem_type = _problem_type(spec)
    module, missing = load(kind)
    prefix = f"{module.base_model_prefix}."
    refuse_missing(
        Path(config.name_or_path), [n for n in missing if n.startswith(prefix) and POOLER not in n]
    )
    head = Head(reads, pooling, module, module.base_model, causal)
    if renew:
        fresh = kind.from_config(config, dtype=module.dtype)
        for name in head_modules(head):
            if name != "pooler":
                setattr(module, name, fresh.get_submodule(name))
        missing = {
            f"{name} (the base's own is for other outputs)" for name in head_modules(head) if name != "pooler"
        }
    if missing:
        return module, head, [f"new: {', '.join(sorted(missing))}"]
    return module, head, ["the base's own head is kept; it has no names for its outputs"] if unnamed else []


def _problem_type(spec: HeadSpec) -> str | None:
    if spec.method == "tag":
        return None
    if spec.method in ("regress", "reward"):
        return "regression"
    return "multi_label_classification" if spec.multi_label else "single_label_classification"


def refuse_missing(folder: Path, missing: Collection[str]) -> None:
    if missing:
        raise ModelError(
            f"the weights in {folder} lack {len(missing)} of the model's tensors, such as {sorted(missing)[0]}",
            "every weight that config.json speaks of",
            "copy the folder again, whole",
        )


def head_modules(head: Head) -> list[str]:
    """Names, inside the stock carrier, of the parts beside the backbone that have weights; and a pooler, which a
    classification head reads through."""
    names = [
        name
        for name, part in head.carrier.named_children()
        if part is not head.backbone and any(True for _ in part.parameters())
    ]
    return [*names, "pooler"] if head.kind in ("sequence", "completion") and _has_pooler(head) else names


def _has_pooler(head: Head) -> bool:
    return isinstance(head.backbone._modules.get("pooler"), nn.Module)


def save_pooled(carrier: PooledHead, pooling: Pooling, folder: Path, max_length: int) -> None:
    """A sentence-transformers folder whose sentence embedding is the head's output, or the unit pooled state."""
    # PEFT would look on the hub whether the vocabulary grew; it does not under a head.
    more = {"save_embedding_layers": False} if isinstance(carrier.backbone, PeftModel) else {}
    carrier.backbone.save_pretrained(folder, safe_serialization=True, **more)
    embeds = carrier.classifier is None
    names = ("Transformer", "Pooling", "Normalize" if embeds else "Dense")
    paths = ("", "1_Pooling", NORMALIZE if embeds else DENSE)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    pooled = {"word_embedding_dimension": carrier.config.get_text_config().hidden_size} | {
        f"pooling_mode_{name}": mode == pooling for mode, name in modes.items()
    }
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(folder / "1_Pooling" / "config.json", pooled)
    if carrier.classifier is None:
        (folder / NORMALIZE).mkdir()
    else:
        _save_dense(carrier.classifier, folder)


def _save_dense(layer: nn.Linear, folder: Path) -> None:
    dense = {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(folder / DENSE / "config.json", dense)
    weights = {f"linear.{name}": w.detach().contiguous() for name, w in layer.state_dict().items()}
    save_file(weights, folder / DENSE / "model.safetensors")


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
