"""The gate accepts families for which the layout is right, and refuses those for which it is not."""

from __future__ import annotations

import json

import pytest
from transformers import (
    BloomConfig,
    DebertaV2Config,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2MoeConfig,
    Qwen3NextConfig,
)

from tests import fakes
from tunesmith.core import gate as gate_module
from tunesmith.core.gate import examine, gate


@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_accepts(family):
    verdict = examine(fakes.config(family))
    assert verdict.accepted, verdict.reason


def test_accepts_mixtures_of_experts_to_rounding():
    assert examine(MixtralConfig()).accepted
    assert examine(GptOssConfig()).accepted


REFUSED = {
    "BLOOM": BloomConfig(),
    "DeBERTa-v2": DebertaV2Config(),
    "LFM2": Lfm2Config(layer_types=["conv", "full_attention"] * 8, num_hidden_layers=16),
    "Qwen3-Next": Qwen3NextConfig(),
    "longrope": Phi3Config(
        rope_parameters={
            "rope_type": "longrope",
            "short_factor": [1.0] * 48,
            "long_factor": [4.0] * 48,
            "original_max_position_embeddings": 4096,
            "partial_rotary_factor": 1.0,
            "factor": 4.0,
            "rope_theta": 1e4,
        }
    ),
    "dynamic rope": LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}),
    "window in the mask only": Qwen2MoeConfig(
        use_sliding_window=True, sliding_window=4096, layer_types=["sliding_attention"] * 24
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name):
    verdict = examine(REFUSED[name])
    assert not verdict.accepted
    assert len(verdict.reason) > 20


def test_a_layer_that_mixes_tokens_outside_attention_is_named():
    assert examine(REFUSED["LFM2"]).reason == "1 of 2 layers called attention with the layout"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("mask is all ones", "a document sees another document"),
        ("siblings see each other", "a completion sees another completion"),
        ("not causal", "a token sees the future"),
        ("positions start anew", "flat rows differ from separate rows"),
    ],
)
def test_each_check_can_fail(broken, reason, monkeypatch):
    """Break the layout on purpose; the gate must notice, with the right reason."""
    real = gate_module.Layout.of

    def break_it(lengths, parents):
        layout = real(lengths, parents)
        total = layout.num_tokens
        if broken == "positions start anew":
            layout.positions = layout.positions - layout.positions.min() + 0
            layout.positions[layout.offsets[1] :] = 0
            return layout
        if broken == "mask is all ones":
            merged = real([total], [-1])
        elif broken == "siblings see each other":
            merged = real([sum(lengths[:3]), *lengths[3:]], [-1] * (len(lengths) - 2))
        else:
            for group in layout.groups:
                group.mask = lambda causal, window, g=group: g._make_mask(False, window)
            return layout
        layout.groups, layout.gather = merged.groups, merged.gather
        return layout

    monkeypatch.setattr(gate_module.Layout, "of", break_it)
    verdict = examine(LlamaConfig())
    assert not verdict.accepted
    assert reason in verdict.reason


def test_the_verdict_is_cached_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gate_module, "_cache", {})
    assert gate(fakes.config("llama", rms_norm_eps=3e-6)).accepted
    (stored,) = tmp_path.rglob("*.json")
    stored.write_text(json.dumps({"accepted": False, "reason": "from the file"}))
    monkeypatch.setattr(gate_module, "_cache", {})
    assert gate(fakes.config("llama", rms_norm_eps=3e-6)).reason == "from the file"
