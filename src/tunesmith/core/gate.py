"""The gate: is the shared-prefix layout right for this architecture?

Families accept unknown keywords and fail silently, so the layout is never trusted blindly. Once per
configuration class a tiny clone of the model (sliding window, chunk and RoPE limits set to 4, random weights)
must pass four checks; where one fails the padded path runs, with the reason.

1. every layer makes exactly one attention call that carries the layout;
2. changing one document, or one completion, leaves the others bit-equal;
3. changing a last token leaves the earlier ones bit-equal;
4. flat equals separate rows under stock attention with the model's own default positions.

An encoder's documents are whole rows that see themselves in both directions: there are no completions, and in place of
3 a last token's change reaches the tokens before it. Families that count positions from their padding id are found
by check 4 too.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Container
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from tunesmith.core import attention, native
from tunesmith.core.layout import Layout

LIMIT = 4
TOLERANCE = 1e-4
# Mixture-of-experts layers regroup tokens by expert, so another document's tokens change the order of
# rounding: there "equal" means to this relative difference. A leak is larger by four orders of magnitude.
EXPERTS_TOLERANCE = 1e-5
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
# Sizes of the clone, under the names that families give them.
TINY: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "moe_intermediate_size"), 48),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("head_dim", "rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("vocab_size",), 64),
    **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size"), LIMIT),
    "local_attention": 2 * LIMIT,
}
SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "unk_token_id")


@dataclass(frozen=True)
class Verdict:
    """from_padding: positions start at the padding id + 1."""

    accepted: bool
    reason: str
    from_padding: bool = False


_cache: dict[str, Verdict] = {}


def is_encoder(config: PretrainedConfig) -> bool:
    """Sees a text in both directions."""
    known: Container[str] = MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return (
        config.model_type in known
        and not config.to_dict().get("is_decoder")
        and not config.is_encoder_decoder
    )


def gate(config: PretrainedConfig) -> Verdict:
    """Accept or refuse the layout for a configuration; cached in the process and in the user's cache folder."""
    of = fingerprint(config)
    if of not in _cache:
        stored = _cache_folder() / f"{of}.json"
        if stored.exists():
            _cache[of] = Verdict(**json.loads(stored.read_text()))
        else:
            _cache[of] = examine(config)
            stored.parent.mkdir(parents=True, exist_ok=True)
            temporary = stored.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(asdict(_cache[of])))
            temporary.replace(stored)
    return _cache[of]


def examine(config: PretrainedConfig) -> Verdict:
    """Run the checks on a tiny clone. A family that cannot be cloned or run is refused with the error's text."""
    if config.get_text_config() is not config:  # such a clone would be of full size
        return Verdict(False, "it has parts beside its text model, of which no tiny clone can be made")
    attention.register()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            tiny = shrink(config)
            kind = AutoModel if is_encoder(config) else AutoModelForCausalLM
            model = kind.from_config(tiny, attn_implementation=attention.NAME, dtype=torch.float32)
            model.eval()
            for parameter in model.parameters():
                if parameter.ndim >= 2:  # large enough that a leak shows
                    torch.nn.init.normal_(parameter, std=0.25)
            return _examine_encoder(model, tiny) if is_encoder(config) else _examine(model, tiny)
        except Exception as error:
            # Any failure of a foreign architecture is an answer here: the layout does not hold for it.
            said = (str(error).splitlines() or ["it did not say why"])[0][:200]
            return Verdict(False, f"the tiny clone did not run: {type(error).__name__}: {said}")


def _examine(model: Any, tiny: PretrainedConfig) -> Verdict:
    # Document A: a prompt of 6 with completions of 5 and 7; document B: 9 tokens, longer than LIMIT;
    # document C: 3 tokens, shorter, so that settings which follow the longest row of a batch show.
    layout = Layout.of([6, 5, 7, 9, 3], [-1, 0, 0, -1, -1])
    ids = torch.randint(10, 60, (layout.num_tokens,))
    spans = [slice(layout.offsets[s], layout.offsets[s + 1]) for s in range(5)]
    flat = _flat(model, ids, layout)
    layers = tiny.get_text_config().num_hidden_layers
    if layout.calls != layers:
        return Verdict(False, f"{layout.calls} of {layers} layers called attention with the layout")
    experts = any(isinstance(tiny.to_dict().get(name), int) for name in EXPERTS)

    def unchanged(other: Tensor, where: slice) -> bool:
        gap = (_flat(model, other, layout)[where] - flat[where]).abs().max() / flat.abs().max()
        return gap.item() <= (EXPERTS_TOLERANCE if experts else 0.0)

    other = ids.clone()
    other[spans[0]], other[spans[1]] = ids[spans[0]].flip(0) + 1, ids[spans[1]].flip(0) + 1
    if not unchanged(other, spans[3]):
        return Verdict(False, "a document sees another document")
    other = ids.clone()
    other[spans[1]] = ids[spans[1]].flip(0) + 1
    if not unchanged(other, spans[2]):
        return Verdict(False, "a completion sees another completion")
    other = ids.clone()
    other[-1] = ids[-1] + 1
    if not unchanged(other, slice(0, -1)):
        return Verdict(False, "a token sees the future")
    return _separate(model, ids, layout, flat)


def _examine_encoder(model: Any, tiny: PretrainedConfig) -> Verdict:
    layout = Layout.of([9, 6, 3], [-1, -1, -1])
    ids = torch.randint(10, 60, (layout.num_tokens,))
    other = ids.clone()
    other[8] = ids[8] + 1  # the last token of the first document
    verdict = Verdict(False, "")
    for from_padding in (False, True):
        offset = int(tiny.pad_token_id or 0) + 1 if from_padding else 0
        calls = layout.calls
        flat = _flat(model, ids, layout, offset)
        if layout.calls - calls != tiny.num_hidden_layers:
            return Verdict(
                False,
                f"{layout.calls - calls} of {tiny.num_hidden_layers} layers called attention with the layout",
            )
        changed = _flat(model, other, layout, offset)
        if not torch.equal(changed[9:], flat[9:]):
            return Verdict(False, "a document sees another document")
        if torch.equal(changed[:2], flat[:2]):
            return Verdict(False, "a token does not see the tokens after it")
        verdict = replace(_separate(model, ids, layout, flat), from_padding=from_padding)
        if verdict.accepted:
            break
        model.set_attn_implementation(attention.NAME)
    return verdict


def _separate(model: Any, ids: Tensor, layout: Layout, flat: Tensor) -> Verdict:
    """Check 4, against stock attention (eager: the only one that every family has)."""
    model.set_attn_implementation("eager")
    for leaf in layout.leaves():
        path = layout.path_tokens(leaf)
        alone = model(input_ids=ids[path][None])[0][0]
        gap = (alone - flat[path]).abs().max().item() / alone.abs().max().item()
        if not gap <= TOLERANCE:
            return Verdict(False, f"flat rows differ from separate rows by {gap:.1e} (relative)")
    return Verdict(True, "passes the four checks")


def _flat(model: Any, ids: Tensor, layout: Layout, offset: int = 0) -> Tensor:
    """(T, V) logits of every position; of an encoder its (T, H) states."""
    output = model(
        input_ids=ids[None],
        position_ids=layout.positions[None] + offset,
        attention_mask=torch.empty(1, 1, 0, 0),
        layout=layout,
    )
    return output[0][0]  # type: ignore[no-any-return]


def shrink(config: PretrainedConfig) -> PretrainedConfig:
    """A tiny configuration of the same class, with every kind of layer and every limit small."""
    raw = copy.deepcopy(config.to_dict())
    _shrink_sizes(raw)
    _shrink_layers(raw)
    _shrink_rope(raw)
    for name in SPECIAL_IDS:
        if raw.get(name) is not None:
            raw[name] = 1
    raw.pop("quantization_config", None)
    raw.pop("dtype", None)
    return type(config).from_dict(raw)


def _shrink_sizes(raw: dict[str, Any]) -> None:
    every_head_has_keys = raw.get("num_key_value_heads") == raw.get("num_attention_heads")
    for name, value in TINY.items():
        if isinstance(raw.get(name), int) and not isinstance(raw[name], bool):
            raw[name] = min(raw[name], value)
    for name, few in (
        ("num_key_value_heads", 2),
        ("num_experts_per_tok", 2),
        ("n_group", 1),
        ("topk_group", 1),
    ):
        if isinstance(raw.get(name), int):
            raw[name] = min(raw[name], few)
    if every_head_has_keys and "num_key_value_heads" in raw:
        raw["num_key_value_heads"] = raw["num_attention_heads"]


def _shrink_layers(raw: dict[str, Any]) -> None:
    kinds = raw.get("layer_types")
    if isinstance(kinds, list):
        kept = list(dict.fromkeys(kinds))
        raw["layer_types"] = kept if len(kept) > 1 else kept * 2
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        if isinstance(raw.get(name), int):
            raw[name] = len(raw["layer_types"]) if isinstance(kinds, list) else min(raw[name], 2)


def _shrink_rope(raw: dict[str, Any]) -> None:
    for rope in _rope_settings(raw):
        if rope.get("rope_type") == "dynamic":
            raw["max_position_embeddings"] = LIMIT
        if "original_max_position_embeddings" in rope:
            rope["original_max_position_embeddings"] = LIMIT
        for name in ("short_factor", "long_factor"):
            if isinstance(rope.get(name), list):
                rope[name] = rope[name][: TINY["head_dim"] // 2]
    if "original_max_position_embeddings" in raw:
        raw["original_max_position_embeddings"] = LIMIT


def _rope_settings(raw: dict[str, Any]) -> list[dict[str, Any]]:
    found = [raw[name] for name in ("rope_parameters", "rope_scaling") if isinstance(raw.get(name), dict)]
    return found + [inner for rope in found for inner in rope.values() if isinstance(inner, dict)]


def fingerprint(config: PretrainedConfig) -> str:
    """Hash of what the gate depends on: the class, its settings, this module's versions."""
    raw = {k: v for k, v in config.to_dict().items() if not k.startswith("_")}
    for name in ("vocab_size", "torch_dtype", "dtype", *SPECIAL_IDS):
        raw.pop(name, None)
    text = json.dumps(raw, sort_keys=True, default=str)
    versions = f"{transformers.__version__} {torch.__version__} {_source_hash()}"
    return hashlib.sha256(f"{type(config).__name__} {versions} {text}".encode()).hexdigest()[:32]


def _source_hash() -> str:
    here = Path(__file__).parent
    sources = [
        here / "gate.py",
        here / "attention.py",
        here / "layout.py",
        here / "plain.py",
        here / "varlen.py",
        *sorted(p for p in (here / "native").iterdir() if p.suffix in (".py", ".cpp", ".h")),
    ]
    text = b"".join(p.read_bytes() for p in sources) + native.why_not().encode()
    return hashlib.sha256(text).hexdigest()[:16]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tunesmith" / "gate"
