"""On a Ray cluster a recipe makes the same bytes as here; a cluster that is not there, or fails, is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.desk.test_make import TICKETS, quiet, written

from tunesmith.config.desk import Desk
from tunesmith.data.shares import Sharing
from tunesmith.desk import cluster, reading
from tunesmith.desk.cluster import connected
from tunesmith.desk.make import make
from tunesmith.errors import ConfigError, DataError, ResourceError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
STARTS = 60
"""Seconds that the head may take."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of this machine alone, with two workers."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--object-store-memory=100000000"]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "RAY_AUTH_MODE": "disabled",
        "RAY_agent_register_timeout_ms": "120000",  # slow machines
        "RAY_raylet_start_wait_time_s": "120",
    }
    os.environ["RAY_AUTH_MODE"] = "disabled"
    log = (tmp_path_factory.mktemp("ray") / "head.log").open("wb")
    head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + STARTS
        while b"Ray runtime started" not in Path(log.name).read_bytes():
            if head.poll() is not None or time.monotonic() > until:
                pytest.skip(f"no Ray here: {Path(log.name).read_text()[-400:]}")
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        ours = psutil.Process(head.pid)  # to ask it to end takes half a minute
        for one in [*ours.children(recursive=True), ours]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        head.wait(30)
        log.close()
        del os.environ["RAY_AUTH_MODE"]


def recipe(folder: Path, rows: list[dict[str, Any]], **more: Any) -> Desk:
    bench = written(
        folder, [{"prompt": "who answers my mails on Monday at noon", "completion": "x"}], "b.jsonl"
    )
    document = {
        "output": str(folder / "out"),
        "data": {"train": [written(folder, rows)]},
        "clean": {},
        "dedup": {"against": [bench], "ngram": 5},
        "split": {"near": None},
        **more,
    }
    return Desk.model_validate(document)


def contents(folder: Path) -> dict[str, bytes]:
    """What a version holds but for when it was made and by which recipe."""
    version = folder / "out" / "versions" / "0001"
    return {p.name: p.read_bytes() for p in version.iterdir() if p.suffix == ".jsonl"}


def test_it_makes_the_same_bytes(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK_ROWS", 8)
    monkeypatch.setattr(cluster, "WINDOW", 1)
    from_items, held = ray.data.from_items, []

    def noted(chunks: list[Any], **more: Any) -> Any:
        held.append(len(chunks))
        return from_items(chunks, **more)

    monkeypatch.setattr(ray.data, "from_items", noted)
    rows = [
        *TICKETS,
        *TICKETS[:9],
        {"text": "<p>Call&nbsp;me</p>", "label": "billing"},
        {"text": " ", "label": "x"},
    ]
    rows.append({"text": "so, who answers my mails on Monday at noon?", "label": "billing"})
    here, counts = {}, {}
    for name, more in (("here", {}), ("there", {"ray": address})):
        made = make(recipe(tmp_path, rows, **more), quiet, sharing=Sharing(1))
        here[name], counts[name] = contents(tmp_path), [step.as_dict() for step in made.steps]
        shutil.rmtree(tmp_path / "out")
    assert here["there"] == here["here"]
    assert counts["there"] == counts["here"]
    assert b"contaminated" in here["there"]["changes.jsonl"]
    assert len(held) > 2
    assert max(held) == 2  # chunks on their way at a time: one for each core
    # An error of a row is the one that it is without a cluster, and nothing is left behind.
    with pytest.raises(DataError, match="no column 'ticket'"):
        make(recipe(tmp_path, rows, ray=address, dedup={"id": "ticket"}), quiet)
    assert not list((tmp_path / "out" / "versions").iterdir())
    assert not ray.is_initialized()


def dies(row: dict[str, Any], shared: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return row


def test_a_worker_that_dies_is_said(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK_ROWS", 30)
    monkeypatch.setattr(cluster, "_there", dies)
    with pytest.raises(ResourceError, match="did not end its work"):
        make(recipe(tmp_path, TICKETS, ray=address), quiet)
    assert not list((tmp_path / "out" / "versions").iterdir())


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    for wrong in (f"127.0.0.1:{free_port()}", "nothing", "ray://127.0.0.1:1"):
        with pytest.raises(ConfigError, match="no Ray cluster answers"), connected(wrong):
            pass
    with pytest.raises(ValueError, match="names_model"):
        recipe(tmp_path, [], ray="h:1", scrub={"names_model": "run"})
