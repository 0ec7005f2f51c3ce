"""What null becomes: the table of `tunesmith.config.defaults`, row by row, with its arithmetic done by hand."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.config.defaults import Facts, batch_size, epochs, learning_rate, resolve
from tunesmith.config.explain import dump
from tunesmith.config.fields import keys
from tunesmith.config.load import load_run, parse_run
from tunesmith.config.machine import cpu_has_bf16, physical_cores
from tunesmith.config.run import Run
from tunesmith.config.weights import known_parameters
from tunesmith.embedded import base_model_path
from tunesmith.errors import ModelError

FACTS = Facts(
    num_parameters=8_392_960,
    hidden_size=256,
    vocab_size=8192,
    context_length=1024,
    num_train_rows=1500,
    num_validation_rows=150,
    mean_tokens=80.0,
    max_tokens=210,
    mean_supervised_tokens=12.0,
    longest_answer_tokens=30,
    is_pretraining=False,
    available_memory_bytes=8 << 30,
    physical_cores=4,
    has_bf16=False,
)

STAYS_OPEN = {  # what null or auto means there is no choice of ours, or one that needs the model or the rows
    "data.format", "data.instruction", "data.limit", "evaluate.limit", "model.dropout", "model.path",
    "model.revision", "model.template", "train.max_minutes", "train.max_steps", "train.micro_batch_tokens",
    "train.activation_checkpointing", "train.keep_frozen", "train.neftune_alpha", "train.unfreeze_every",
}  # fmt: skip


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        is_section = isinstance(value, dict) and keys()[prefix + name].sections
        leaves |= flat(value, f"{prefix}{name}.") if is_section else {prefix + name: value}
    return leaves


def test_every_open_field_gets_a_value_and_every_field_a_reason() -> None:
    run, reasons = resolve(Run(), FACTS)
    leaves = flat(run.model_dump())
    assert set(reasons) == set(leaves)
    assert all(reason and "\n" not in reason for reason in reasons.values())
    still_open = {path for path, value in leaves.items() if value in (None, "auto")}
    assert still_open == STAYS_OPEN | {"method.lora.alpha", "method.loha.alpha"}


def test_a_reason_says_what_the_chosen_method_means_by_the_key() -> None:
    run = parse_run("method: {type: policy, rewards: [{kind: length}]}")
    assert resolve(run, FACTS)[1]["method.temperature"].startswith("default: Of sampling")


def test_the_embedded_model_on_1500_rows() -> None:
    run, reasons = resolve(Run(), FACTS)
    chosen = {
        path: value
        for path, value in flat(run.model_dump()).items()
        if flat(Run().model_dump())[path] != value
    }
    assert chosen == {
        "data.max_length": 216,  # 210 up to a multiple of 8
        "model.device": "cpu",
        "model.dtype": "float32",
        "method.tuning": "full",  # 16 x 8.4 M = 128 MiB
        "train.learning_rate": 1e-3,
        "train.warmup_fraction": 0.1,  # 282 steps
        "train.epochs": 3.0,
        "train.batch_size": 16,  # 2^round(log2 15)
        "train.eval_every": 28,
        "train.save_every": 28,
        "train.threads": 4,
        "train.optimizer_state": "float32",
        "evaluate.max_new_tokens": 45,
    }
    assert "128 MiB <= half of 8,192 MiB" in reasons["method.tuning"]
    assert "282 steps" in reasons["train.warmup_fraction"]


def test_what_is_set_stays_and_says_so() -> None:
    said = load_run(None, ["train.epochs=1", "data.max_length=512", "model.dtype=bfloat16", "seed=0"])
    run, reasons = resolve(said, FACTS)
    assert (run.train.epochs, run.data.max_length, run.model.dtype) == (1.0, 512, "bfloat16")
    for path in ("train.epochs", "data.max_length", "model.dtype", "seed"):
        assert reasons[path] == "set by you"
    assert reasons["train.weight_decay"].startswith("default: ")
    assert said.train.learning_rate is None, "the given run is left as it is"


@pytest.mark.parametrize(
    ("parameters", "memory", "tuning"),
    [
        (200_000_000, 6_400_000_000, "full"),  # 16 x 200 M = 3.2 GB = half
        (200_000_000, 6_399_999_998, "lora"),
        (200_000_001, 1 << 40, "lora"),
    ],
)
def test_tuning(parameters: int, memory: int, tuning: str) -> None:
    run, reasons = resolve(Run(), replace(FACTS, num_parameters=parameters, available_memory_bytes=memory))
    assert run.method.tuning == tuning
    assert f"{parameters:,}" in reasons["method.tuning"]
    assert run.method.lora.alpha == (32.0 if tuning == "lora" else None)


@pytest.mark.parametrize(
    ("tuning", "bf16", "device", "state"),
    [
        ("full", True, "cpu", "bfloat16"),
        ("full", False, "cpu", "float32"),
        ("lora", True, "cpu", "float32"),
        ("full", True, "cuda", "float32"),
    ],
)
def test_what_the_optimizer_keeps(tuning: str, bf16: bool, device: str, state: str) -> None:
    facts = replace(FACTS, has_bf16=bf16, device=device)
    run, reasons = resolve(load_run(None, [f"method.tuning={tuning}"]), facts)
    assert run.train.optimizer_state == state
    assert reasons["train.optimizer_state"] == f"{tuning} tuning in {run.model.dtype} on {device}"
    said = load_run(None, [f"method.tuning={tuning}", "train.optimizer_state=float32"])
    assert resolve(said, facts)[0].train.optimizer_state == "float32"


def test_settings_of_a_kind_of_tuning_ask_for_it() -> None:
    assert resolve(load_run(None, ["method.lora.rank=4"]), FACTS)[0].method.tuning == "lora"
    large = replace(FACTS, num_parameters=300_000_000)
    assert resolve(load_run(None, ["method.freeze.layers=2"]), large)[0].method.tuning == "full"


@pytest.mark.parametrize(
    ("parameters", "full", "lora"),
    [
        (1_000_000, 1e-3, 2e-3),
        (10_000_000, 1e-3, 2e-3),
        (264_575_131, 1.4e-4, 1.4e-3),  # the middle in logarithms: sqrt(1e-3 x 2e-5)
        (7_000_000_000, 2e-5, 2e-4),
        (70_000_000_000, 2e-5, 2e-4),
    ],
)
def test_learning_rate(parameters: int, full: float, lora: float) -> None:
    assert learning_rate(parameters, "full") == full
    assert learning_rate(parameters, "lora") == lora


@pytest.mark.parametrize(
    ("said", "rate", "words"),
    [
        (["method.tuning=ia3"], 3e-2, "ia3 tuning of 8.4 M parameters (3e-2 at 10 M to 3e-3 at 7 B)"),
        (["method.tuning=vera"], 4e-2, "vera tuning"),
        (["method.prompt.tokens=5"], 1e-1, "prompt tuning"),
        (["method.tuning=prefix"], 5e-2, "prefix tuning"),
        (["method.tuning=loha"], 2e-3, "10 x full"),
        (["method.lora.dora=true"], 2e-3, "10 x full"),
        (["method.lora.init=olora"], 2e-3, "10 x full"),
        (["method.lora.init=pissa"], 1e-3, "pissa tuning of 8.4 M parameters (1e-3 at 10 M"),
    ],
)
def test_each_kind_of_adapter_has_its_rate(said: list[str], rate: float, words: str) -> None:
    run, reasons = resolve(load_run(None, said), FACTS)
    assert run.train.learning_rate == rate
    assert learning_rate(7_000_000_000, run.method.tuning, run.method.lora.init) < rate
    assert words in reasons["train.learning_rate"]


@pytest.mark.parametrize(
    ("said", "path", "alpha"),
    [
        (["method.lora.rank=4"], "lora", 8.0),
        (["method.lora.rank=64", "method.lora.rslora=true"], "lora", 8.0),  # 8 / sqrt(16) = 2 = 2 x 16 / 16
        (["method.loha.rank=6"], "loha", 6.0),
        (["method.loha.alpha=3"], "loha", 3.0),
    ],
)
def test_alphas(said: list[str], path: str, alpha: float) -> None:
    run, reasons = resolve(load_run(None, said), FACTS)
    assert flat(run.model_dump())[f"method.{path}.alpha"] == alpha
    assert reasons["method.vera.rank"] == f"not used: tuning is {path}"


def test_batch_size_and_epochs() -> None:
    assert [batch_size(n, False) for n in (0, 100, 1_000, 1_500, 3_000, 5_000, 10**6)] == [
        8,
        8,
        8,
        16,
        32,
        64,
        64,
    ]
    assert [epochs(n, False) for n in (999, 1_000, 4_999, 5_000, 19_999, 20_000)] == [4, 3, 3, 2, 2, 1]
    assert (batch_size(10**6, True), epochs(5, True)) == (32, 1.0)


def test_a_long_run_warms_up_over_100_steps_and_evaluates_every_epoch() -> None:
    run, _ = resolve(load_run(None, ["train.epochs=100"]), FACTS)  # 94 steps an epoch, 9,375 in all
    assert run.train.warmup_fraction == pytest.approx(100 / 9375, abs=1e-4)
    assert run.train.eval_every == run.train.save_every == 94


def test_max_steps_wins_over_epochs() -> None:
    for more in ([], ["train.epochs=3"]):
        run, reasons = resolve(load_run(None, ["train.max_steps=30", "train.batch_size=10", *more]), FACTS)
        assert run.train.epochs is None
        assert run.train.eval_every == 3
        assert reasons["train.epochs"] == "not used: max_steps says how long"
        again, _ = resolve(run, replace(FACTS, num_train_rows=700))  # its config.yaml on other rows
        assert again.train == run.train


def test_lengths() -> None:
    long = replace(FACTS, max_tokens=5_000, longest_answer_tokens=3)
    run, _ = resolve(Run(), long)
    assert (run.data.max_length, run.evaluate.max_new_tokens) == (1024, 16)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 10**7),
    parameters=st.integers(1_000, 10**12),
    memory=st.integers(0, 1 << 42),
    longest=st.integers(1, 10**6),
    pretraining=st.booleans(),
)
def test_a_resolved_run_is_a_valid_recipe_that_resolves_to_itself(
    rows: int, parameters: int, memory: int, longest: int, pretraining: bool
) -> None:
    facts = replace(
        FACTS,
        num_train_rows=rows,
        num_parameters=parameters,
        available_memory_bytes=memory,
        max_tokens=longest,
        is_pretraining=pretraining,
    )
    run, _ = resolve(Run(), facts)
    assert parse_run(dump(run)) == run
    assert resolve(run, facts)[0] == run


# -- facts that need no torch -------------------------------------------------------------------------


def shard(path: Path, **shapes: list[int]) -> None:
    header = {"__metadata__": {"format": "pt"}}
    header |= {name: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for name, s in shapes.items()}
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)


def test_known_parameters_agree_with_safetensors() -> None:
    from safetensors import safe_open

    file = base_model_path() / "model.safetensors"
    with safe_open(file, "np") as tensors:
        sizes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    expected = sum(a * (b[0] if b else 1) for a, *b in sizes)
    assert known_parameters(base_model_path()) == known_parameters(file) == expected


def test_known_parameters_of_shards(tmp_path: Path) -> None:
    shard(tmp_path / "a.safetensors", x=[2, 3], scalar=[])
    shard(tmp_path / "b.safetensors", y=[5])
    index = {"weight_map": {"x": "a.safetensors", "scalar": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert known_parameters(tmp_path) == 6 + 1 + 5
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks b\.safetensors"):
        known_parameters(tmp_path)


@pytest.mark.parametrize(
    "raw", [b"", b"abc", struct.pack("<Q", 1 << 60), struct.pack("<Q", 2) + b"[]", b"\0" * 8]
)
def test_damaged_weights_are_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(ModelError, match="damaged"):
        known_parameters(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        known_parameters(tmp_path)


def test_native_bfloat16_is_read_from_the_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t\t: fpu avx512f avx512_bf16 sse\n")
    assert cpu_has_bf16(info)
    info.write_text("model name\t: avx512_bf16\nflags\t\t: fpu avx512f avx512_bf16x\n")
    assert not cpu_has_bf16(info)
    assert not cpu_has_bf16(tmp_path / "absent")


def test_there_is_a_core() -> None:
    assert physical_cores() >= 1


def test_a_head_has_a_lower_rate_and_says_what_it_does_not_use() -> None:
    facts = replace(FACTS, num_parameters=22_000_000, has_head=True)
    run, reasons = resolve(load_run(None, ["method.type=classify"]), facts)
    assert run.train.learning_rate == 2.0e-4
    assert reasons["evaluate.few_shot"] == "not used: a head writes no text"
    plain = resolve(load_run(), replace(facts, has_head=False))[0]
    assert plain.train.learning_rate == 6.2e-4
