"""GRPO by a true vLLM server, where `TUNESMITH_VLLM` names its command (`make vllm-check`): it starts one for each
tuning, on whatever the server runs on, and learns from what it writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.workflow.test_own_answers import metric, module, recipe, run
from tunesmith.embedded import base_model_path
from tunesmith.errors import ModelError
from tunesmith.models.files import EMBEDDED
from tunesmith.train.folder import RunFolder

__all__ = ["module"]
COMMAND = os.environ.get("TUNESMITH_VLLM", "")
DTYPE = os.environ.get("TUNESMITH_VLLM_DTYPE", "float32")
PATIENCE = 180.0
"""Seconds until the server must have started."""
FARTHEST = {"float32": 1e-3, "bfloat16": 0.1}
"""Nats by which its log-probabilities may differ from ours, which are computed in float32."""
pytestmark = [
    pytest.mark.usefixtures("quick"),
    pytest.mark.skipif(not COMMAND, reason="TUNESMITH_VLLM names no vllm command"),
]


@contextmanager
def vllm(base: Path | str, tuning: str, log: Path) -> Iterator[str]:
    """The address of a server that is stopped afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [COMMAND, "serve", str(base), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", DTYPE, "--max-model-len", "256", "--enforce-eager"]
    if tuning == "lora":
        given["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        command += ["--enable-lora", "--max-lora-rank", "16"]
    else:
        given["VLLM_SERVER_DEV_MODE"] = "1"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, env=os.environ | given, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until_ready(server, url, log)
        yield url
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def untied(folder: Path) -> Path:
    """The embedded model with a head of its own, which begins as its embeddings."""
    source = base_model_path()
    model = AutoModelForCausalLM.from_pretrained(source)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_learns_from_what_vllm_writes(
    tuning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    base = base_model_path() if tuning == "lora" else untied(tmp_path / "untied")
    with vllm(base, tuning, tmp_path / "vllm.log") as url:
        method: dict[str, Any] = {
            "tuning": tuning,
            "samples": 8,
            "kl": {"weight": 0.002},
            "vllm": {"url": url},
        }
        train = {"max_steps": 6, "eval_every": 6, "learning_rate": 1e-3 if tuning == "full" else 4e-3}
        tree = recipe(base, tmp_path, method=method, train=train)
        tree["data"]["validation_fraction"] = 0.0
        result = run(tree)
        settings = {"top_k": 20}, {"temperature": 0.5}
        for name, more in zip(("cut", "cold"), settings, strict=True):
            (tmp_path / name).mkdir()
            short = recipe(
                base, tmp_path / name, method=method | more, train={"max_steps": 1, "eval_every": 1}
            )
            with nullcontext() if name == "cut" else pytest.raises(ModelError, match="processed_logprobs"):
                run(short)  # it says them before it cuts, but also before it divides by the temperature
        if tuning == "full" and not torch.cuda.is_available():
            (tmp_path / "tied").mkdir()
            with pytest.raises(ModelError, match="tied to the embeddings"):
                run(recipe(EMBEDDED, tmp_path / "tied", method=method))
    folder = RunFolder(result.folder)
    updates, rollouts = folder.read_events("vllm"), folder.curve("rollout")
    found = {
        "tuning": tuning,
        "dtype": DTYPE,
        "update_seconds": [round(update["update_seconds"], 3) for update in updates],
        "gaps": [update["gap"] for update in updates],
        "kl": [rollout["numbers"]["kl"] for rollout in rollouts],
        "rewards": [rollout["numbers"]["reward"] for rollout in rollouts],
        "writing_seconds": [round(rollout["seconds"]["writing"], 3) for rollout in rollouts],
        "base": metric(result, "base"),
        "tuned": metric(result, "tuned"),
        "ratio": folder.curve("step")[0]["metrics"]["ratio"],
    }
    print(json.dumps(found))
    assert len({update["weights"] for update in updates}) == 6
    assert max(found["gaps"]) < FARTHEST[DTYPE]
    assert (
        rollouts[-1]["numbers"]["kl"] > 10 * FARTHEST["float32"]
    )  # so weights that stay behind would have shown
    assert found["ratio"] == 1.0
    assert found["tuned"] > found["base"]
