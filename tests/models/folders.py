"""Model folders as a user has them: a tiny random base with a byte-level tokenizer, and one real step of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast

from tests import fakes
from tunesmith.config.methods import ClassifyConfig, HeadMethod, RegressConfig, SftConfig, TagConfig
from tunesmith.config.run import ModelConfig, TrainConfig
from tunesmith.config.tuning import FreezeConfig, LoraConfig
from tunesmith.core.batch import Batch
from tunesmith.models.files import Manifest
from tunesmith.models.heads import HeadSpec
from tunesmith.models.load import Loaded, load_model
from tunesmith.models.save import save_model
from tunesmith.models.tune import prepare
from tunesmith.objectives.sft import Sft
from tunesmith.train.build import make_objective, with_template
from tunesmith.train.optim import Optimizer

SPECIAL = ["<pad>", "<s>", "</s>"]
VOCAB = len(SPECIAL) + 256
IDS = torch.tensor([[5, 80, 11, 200, 33, 9, 64, 120], [7, 7, 258, 90, 41, 3, 18, 77]])


def tokenizer(eos: bool = True) -> Any:
    """Every byte is a token; <pad> is 0, </s> is 2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", **({"eos_token": "</s>"} if eos else {})
    )


def write_base(
    folder: Path,
    family: str = "llama",
    *,
    tied: bool = True,
    spare: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    eos: bool = True,
    **more: Any,
) -> Path:
    """A random model saved by stock transformers, its vocabulary `spare` rows larger than the tokenizer."""
    config = fakes.config(family, **more)
    config.vocab_size, config.tie_word_embeddings = VOCAB + spare, tied
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_config(config)
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    module.to(dtype).save_pretrained(folder)
    tokenizer(eos).save_pretrained(folder)
    return folder


def open_for(
    folder: Path,
    tuning: str,
    *,
    dtype: str = "float32",
    lora: LoraConfig | None = None,
    freeze: FreezeConfig | None = None,
) -> Loaded:
    """Load as a run does: model, template (and rows for what it adds), trainable parameters."""
    loaded = load_model(ModelConfig(base=str(folder), dtype=dtype), train=True)
    more: dict[str, Any] = {"lora": lora or LoraConfig(rank=4)} if tuning == "lora" else {}
    if freeze is not None:
        more["freeze"] = freeze
    prepare(loaded, SftConfig(tuning=tuning, **more), with_template(loaded, "auto"))
    return loaded


def one_step(loaded: Loaded, rate: float = 1e-2) -> None:
    """One optimizer step on rows that hold the end token and every new one."""
    last = len(loaded.tokenizer) - 1
    rows = [fakes.row([5, 6, 80, 90, last], 2, 0), fakes.row([9, 8, 7, 2, last, 30], 1, 1)]
    batch = Batch.from_rows(rows)
    objective = Sft(SftConfig())
    optimizer = Optimizer(loaded.model.module, TrainConfig())
    (objective.loss(loaded.model, batch).terms["sft"] / objective.weights(batch)["sft"]).backward()
    optimizer.step(rate, optimizer.grad_norm().item())


def logits(module: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """(B, T, V) without dropout, as the module is."""
    training = module.training
    module.eval()
    with torch.no_grad():
        out = module(input_ids=ids).logits
    module.train(training)
    return out  # type: ignore[no-any-return]


def stock(module: Any) -> Any:
    """The module under the attention that stock transformers gives its family."""
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    inner.set_attn_implementation("sdpa" if inner._supports_sdpa else "eager")
    return module


def manifest(loaded: Loaded, kind: str, template_hash: str = "t") -> Manifest:
    return Manifest(
        kind=kind,
        base=loaded.base,
        base_hash=loaded.base_hash,
        dtype=str(loaded.model.module.dtype).removeprefix("torch."),
        template_hash=template_hash,
        template="plain",
        end_ids=[2],
        run="test",
        parent=None,
        versions={},
    )


def load_plain(folder: Path) -> Any:
    """What stock transformers loads from a folder."""
    return AutoModelForCausalLM.from_pretrained(folder)


# -- models with heads -------------------------------------------------------------------------------------

TEXTS = ("good value", "no!", "so-so at best, and late")


def write_encoder(
    folder: Path,
    family: str = "bert",
    *,
    pooler: bool = True,
    mean: Literal["", "old", "new"] = "",
    **more: Any,
) -> Path:
    """A random encoder as it is published: with a pooler (a bare model), or without (with a masked-LM head).

    mean: the files of sentence-transformers that say so, as its old versions wrote them or as its new ones do.
    """
    config = fakes.encoder_config(family, **{"vocab_size": VOCAB, **more})
    torch.manual_seed(0)
    kind = AutoModel if pooler else AutoModelForMaskedLM
    fakes.randomise(kind.from_config(config)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if mean:
        write_mean(folder, old=mean == "old")
    return folder


def write_mean(folder: Path, *, old: bool) -> None:
    width = json.loads((folder / "config.json").read_text()).get("hidden_size", 32)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    said: dict[str, Any] = {"embedding_dimension": width, "pooling_mode": "mean"}
    if old:
        said = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
        said |= {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))


def method_of(spec: HeadSpec, tuning: str = "full") -> HeadMethod:
    """The recipe that a head comes from."""
    more: dict[str, Any] = {"tuning": tuning, "labels": list(spec.labels)}
    if tuning == "lora":
        more["lora"] = {"rank": 4}
    if spec.method == "tag":
        return TagConfig(**more)
    if spec.method == "regress":
        return RegressConfig(pooling=spec.pooling, scale=list(spec.scale), **more)
    return ClassifyConfig(pooling=spec.pooling, multi_label=spec.multi_label, **more)


def open_head(
    folder: Path,
    spec: HeadSpec,
    tuning: str = "full",
    *,
    dtype: str = "float32",
    path: str = "auto",
    seed: int = 1,
) -> Loaded:
    """Load with a head and prepare, as a run does."""
    torch.manual_seed(seed)
    loaded = load_model(ModelConfig(base=str(folder), dtype=dtype, path=path), head=spec, train=True)
    loaded.notes += prepare(loaded, method_of(spec, tuning), [])
    return loaded


def head_rows(spec: HeadSpec) -> list[Any]:
    """Ragged rows with targets for the head; tags on some tokens only."""
    rows, encode = [], tokenizer()
    for index, text in enumerate(TEXTS):
        ids, count = encode(text)["input_ids"], len(spec.labels)
        target: list[Any] = [index % count]
        if spec.method == "tag":
            target = [-100 if place % 3 == 0 else place % count for place in range(len(ids))]
        elif spec.method == "regress":
            target = [0.5 * index - place for place in range(count)]
        elif spec.multi_label:
            target = [float((index + place) % 2) for place in range(count)]
        rows.append(fakes.text_row(ids, target, index))
    return rows


def head_step(loaded: Loaded, rate: float = 1e-2) -> None:
    """One optimizer step on `head_rows`."""
    assert loaded.head is not None
    batch, objective = Batch.from_rows(head_rows(loaded.head)), make_objective(method_of(loaded.head))
    optimizer = Optimizer(loaded.model.module, TrainConfig())
    ((term, loss),) = objective.loss(loaded.model, batch).terms.items()
    (loss / objective.weights(batch)[term]).backward()
    optimizer.step(rate, optimizer.grad_norm().item())


def head_outputs(loaded: Loaded, rows: list[Any] | None = None) -> torch.Tensor:
    """(R, C) or (M, C), without dropout."""
    assert loaded.head is not None
    loaded.model.module.eval()
    with torch.no_grad():
        return loaded.model.outputs(Batch.from_rows(rows or head_rows(loaded.head)))


def save_head(loaded: Loaded, folder: Path, kind: str) -> Path:
    """Save as a run does."""
    assert loaded.head is not None
    said = replace(manifest(loaded, kind), head=loaded.head.as_dict())
    save_model(loaded.model.module, loaded.tokenizer, said, folder, loaded.model.head)
    return folder


def reopen(folder: Path) -> Loaded:
    """A saved model, opened for answering, with the head that it was saved with."""
    return load_model(ModelConfig(base=str(folder), dtype="float32"))
