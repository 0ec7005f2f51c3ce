"""The gate accepts families for which the layout is right, and refuses those for which it is not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from transformers import (
    AlbertConfig,
    BertConfig,
    BloomConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    FlaubertConfig,
    FNetConfig,
    Gemma3Config,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MixtralConfig,
    MobileBertConfig,
    ModernBertConfig,
    MPNetConfig,
    Phi3Config,
    Qwen2MoeConfig,
    Qwen3NextConfig,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from tests import fakes
from tunesmith.core import attention, native
from tunesmith.core import gate as gate_module
from tunesmith.core.gate import examine, gate, is_encoder


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


@pytest.fixture(params=["kernels", "plain"])
def way(request, monkeypatch):
    """Both implementations of the layout's attention."""
    if request.param == "plain":
        monkeypatch.setattr(native, "_load", lambda: (None, "turned off"))
    elif native.library() is None:
        pytest.skip(native.why_not())


def see(monkeypatch, layout, plain, **shape):
    """Another mask: `plain` makes it of a group's mask function, `shape` is what the kernels are told instead."""
    for group in layout.groups:
        group.mask = lambda causal, window, g=group: plain(g._make_mask)
    real = attention.Shape
    monkeypatch.setattr(attention, "Shape", lambda *a: replace(real(*a), **shape))


def join(layout, merged):
    """The attention of another layout over the same tokens."""
    layout.groups, layout.gather, layout.blocks = merged.groups, merged.gather, merged.blocks
    layout.starts = merged.starts


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("mask is all ones", "a document sees another document"),
        ("siblings see each other", "a completion sees another completion"),
        ("not causal", "a token sees the future"),
        ("positions start anew", "flat rows differ from separate rows"),
    ],
)
def test_each_check_can_fail(broken, reason, way, monkeypatch):
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
            see(monkeypatch, layout, lambda mask: mask(False, None), causal=False)
            return layout
        join(layout, merged)
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


# -- encoders ----------------------------------------------------------------------------------------------

ENCODERS = {
    "ALBERT": AlbertConfig(),
    "BERT": BertConfig(),
    "DistilBERT": DistilBertConfig(),
    "ELECTRA": ElectraConfig(),
    "ModernBERT": ModernBertConfig(),
}
FROM_PADDING = {
    "RoBERTa": RobertaConfig(),
    "XLM-R": XLMRobertaConfig(),
    "CamemBERT": CamembertConfig(),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_accepts_encoders(name):
    assert is_encoder(ENCODERS[name])
    verdict = examine(ENCODERS[name])
    assert verdict.accepted, verdict.reason
    assert not verdict.from_padding


@pytest.mark.parametrize("name", FROM_PADDING)
def test_finds_that_positions_begin_after_the_padding_id(name):
    assert is_encoder(FROM_PADDING[name])
    verdict = examine(FROM_PADDING[name])
    assert verdict.accepted, verdict.reason
    assert verdict.from_padding


@pytest.mark.parametrize("family", fakes.ENCODERS)
def test_the_encoders_of_the_tests_are_like_those_of_the_families(family):
    verdict = examine(fakes.encoder_config(family))
    assert (verdict.accepted, verdict.from_padding) == (True, family == "roberta")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (DebertaV2Config(), "the tiny clone did not run"),  # attention of its own, with relative positions
        (MPNetConfig(), "the tiny clone did not run"),
        (FlaubertConfig(), "the tiny clone did not run: AssertionError"),
        (FNetConfig(), "0 of 2 layers called attention"),  # Fourier transforms, no attention
        (MobileBertConfig(), "a document sees another document"),  # its embeddings mix neighbouring tokens
    ],
    ids=["DeBERTa-v2", "MPNet", "FlauBERT", "FNet", "MobileBERT"],
)
def test_refuses_encoders_with_a_reason(config, reason):
    assert is_encoder(config)
    verdict = examine(config)
    assert not verdict.accepted
    assert verdict.reason.startswith(reason)


def test_decoders_are_no_encoders():
    others = (LlamaConfig(), fakes.config("gpt2"), T5Config(), BertConfig(is_decoder=True))
    assert [is_encoder(config) for config in others] == [False] * 4


def test_a_model_of_several_parts_is_refused_before_a_clone_of_full_size_is_made():
    verdict = examine(Gemma3Config())
    assert not verdict.accepted
    assert "parts beside its text model" in verdict.reason


@pytest.mark.parametrize(
    ("name", "broken", "reason"),
    [
        *((name, "causal", "a token does not see the tokens after it") for name in ("BERT", "ModernBERT")),
        *((name, "one document", "a document sees another document") for name in ("BERT", "ModernBERT")),
        *((name, "positions", "flat rows differ from separate rows") for name in ("BERT", "ModernBERT")),
        ("ModernBERT", "no window", "flat rows differ from separate rows"),
    ],
)
def test_each_check_of_encoders_can_fail(name, broken, reason, way, monkeypatch):
    real = gate_module.Layout.of

    def break_it(lengths, parents):
        layout = real(lengths, parents)
        if broken == "one document":
            join(layout, real([layout.num_tokens], [-1]))
        elif broken == "positions":
            layout.positions = layout.positions // 2
        elif broken == "causal":
            see(monkeypatch, layout, lambda mask: mask(False, None).tril(), causal=True)
        else:
            see(monkeypatch, layout, lambda mask: mask(False, None), window=0)
        return layout

    monkeypatch.setattr(gate_module.Layout, "of", break_it)
    verdict = examine(ENCODERS[name])
    assert not verdict.accepted
    assert verdict.reason.startswith(reason)


def test_an_encoder_that_is_given_an_unknown_keyword_is_refused(monkeypatch):
    """A family that hands attention something new is not trusted."""
    real = attention.layout_attention

    def handed(*args, **more):
        return real(*args, relative_bias=1.0, **more)

    with monkeypatch.context() as patch:
        patch.setattr(attention, "layout_attention", handed)
        verdict = examine(BertConfig())
    attention.register()
    assert not verdict.accepted
    assert "relative_bias" in verdict.reason
