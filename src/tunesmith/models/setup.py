"""What is decided of a model before its weights are loaded: the path of its rows, and its dropout."""

from __future__ import annotations

from typing import Literal

from transformers import PretrainedConfig

from tunesmith.core import gate
from tunesmith.errors import ModelError

DROPOUTS = (
    "attention_dropout attn_pdrop resid_pdrop embd_pdrop hidden_dropout dropout embed_dropout activation_dropout "
    "attention_probs_dropout_prob hidden_dropout_prob embedding_dropout mlp_dropout classifier_dropout "
    "seq_classif_dropout"
).split()


def choose_path(
    config: PretrainedConfig, setting: str, prompted: bool = False
) -> tuple[Literal["layout", "padded"], str]:
    """The way rows reach the model, and why in words. prompted: learned tokens stand before each row."""
    if setting == "padded":
        return "padded", "padded rows: set by you"
    if prompted:
        if setting == "layout":
            raise ModelError(
                "model.path=layout with prompt or prefix tuning, whose learned tokens stand before a row of their own",
                "padded rows",
                "set model.path=auto or padded",
            )
        return "padded", "padded rows: prompt and prefix tuning put learned tokens before each row"
    if config.is_encoder_decoder:
        if setting == "layout":
            raise ModelError(
                f"{config.model_type} is an encoder-decoder model", "model.path=auto or padded for these"
            )
        return "padded", "padded rows: the prompt goes to the encoder, the answer to the decoder"
    verdict = gate.gate(config)
    if verdict.accepted:
        return "layout", f"flat layout: {config.model_type} {verdict.reason}"
    if setting == "layout":
        raise ModelError(
            f"the layout does not hold for {config.model_type}: {verdict.reason}",
            "an architecture that passes the gate",
            "set model.path=auto or padded",
        )
    return (
        "padded",
        f"padded rows, which cost their padding: the gate refused {config.model_type} ({verdict.reason})",
    )


def set_dropout(config: PretrainedConfig, value: float) -> list[str]:
    """Set every dropout that the architecture has; refuse where it has none."""
    names = [name for name in DROPOUTS if isinstance(config.to_dict().get(name), (int, float))]
    if not names:
        raise ModelError(
            f"model.dropout={value}, but {config.model_type} has no dropout",
            "an architecture with dropout",
            "leave model.dropout out; for LoRA there is method.lora.dropout",
        )
    for name in names:
        setattr(config, name, value)
    return names


def dropout_as_asked(rate: float | None, config: PretrainedConfig, still: bool) -> list[str]:
    """Set it, and say where; where nothing is asked and the model is to be still, there is none."""
    if rate is not None:
        return [f"dropout {rate} on " + ", ".join(set_dropout(config, rate))]
    if not still or not any(config.to_dict().get(name) for name in DROPOUTS):
        return []
    return ["no dropout, which would move log-probabilities: " + ", ".join(set_dropout(config, 0.0))]
