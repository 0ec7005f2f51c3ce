"""`tunesmith data scrub` and `kinds` as a person meets them."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_main import Answer

MAIL = "nora.lind@mail.example.com"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *arguments: Answer(capsys, *arguments)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": f"write to {MAIL}", "label": "contact"}) + "\n")
    return path


def test_kinds_are_listed_with_what_checks_them(run: Callable[..., Answer]) -> None:
    listed = {one["kind"]: one for one in json.loads(run("data", "kinds", "--json").out)}
    assert listed["CARD"]["checked by"] == "Luhn, issuer's range"
    assert listed["IBAN"]["checked by"].startswith("mod 97")
    assert "PERSON" in run("data", "kinds").out


def test_scrub_writes_masked_rows_and_shows_no_original(
    run: Callable[..., Answer], rows: Path, tmp_path: Path
) -> None:
    trial = run("data", "scrub", str(rows), "--dry-run", "-q")
    assert (trial.code, MAIL in trial.out) == (0, False)
    assert "<EMAIL>" in trial.out
    made = run("data", "scrub", str(rows), "-o", str(tmp_path / "out"), "scrub.kinds=[EMAIL]", "--json", "-q")
    assert json.loads(made.out)["steps"][0]["changed"] == {"EMAIL": 1}
    found = (tmp_path / "out/versions/0001/train.jsonl").read_text()
    assert json.loads(found)["text"] == "write to <EMAIL>"


def test_what_is_not_installed_is_named_with_its_extra(
    run: Callable[..., Answer], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "detect_secrets":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    answer = run("data", "scrub", str(rows), "--dry-run", "-q")
    assert answer.code == 2
    assert "needs detect_secrets" in answer.err
    assert "pip install tunesmith[privacy]" in answer.err
