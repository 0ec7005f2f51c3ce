"""Scrubbing rows: what stands in for personal data, what is left alone, and that no trace of it is kept or shown."""

from __future__ import annotations

import json
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tests.desk.test_make import desk_of, left, quiet, written

from tunesmith.config.desk import Desk, Scrub
from tunesmith.data.shares import Sharing
from tunesmith.desk.make import make
from tunesmith.desk.originals import restored
from tunesmith.desk.scrub import IN_FIXED, Scrubbing
from tunesmith.errors import ConfigError, DataError

KEY = "correct horse battery staple"
MAIL, PHONE, CARD = "nora.lind@mail.example.com", "(212) 555-0142", "4111 1111 1111 1111"
SECRETS = (MAIL, PHONE, "212", "4111", "nora")


def rows() -> list[dict[str, Any]]:
    return [
        {"text": f"Please write to {MAIL} or call {PHONE}.", "label": "contact", "agent": f"<{MAIL}>"},
        {"text": f"My card {CARD} was   charged twice", "label": "billing", "agent": "17"},
        {"text": "Nothing to see in order 2025550143", "label": "other", "agent": "none"},
        {"text": f"As an AI language model I cannot mail {MAIL}", "label": "contact", "agent": ""},
        {"text": " ", "label": MAIL, "agent": PHONE},
    ]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRUB_KEY", KEY)


def scrubbed(text: str, **config: Any) -> str:
    step = Scrubbing.of(Scrub(**config))
    return step.replaced(text, step.finder.found(text))


def test_every_text_but_labels_is_scrubbed_and_counted_by_kind(tmp_path: Path) -> None:
    made = make(desk_of(tmp_path, rows(), scrub={}), quiet)
    found = left(made)
    assert found[0] == {
        "text": "Please write to <EMAIL> or call <PHONE>.",
        "label": "contact",
        "agent": "<<EMAIL>>",
    }
    assert found[1]["text"] == "My card <CARD> was   charged twice"
    assert found[2] == rows()[2]
    assert found[4]["label"] == MAIL
    (step,) = made.steps
    assert step.changed == {"EMAIL": 2, "PHONE": 2, "CARD": 1}
    assert step.rows_changed == 4


def test_columns_that_are_kept_and_kinds_that_are_not_wanted_stay(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, rows(), scrub={"kinds": ["EMAIL"], "columns_kept": ["agent"]})
    first = left(make(desk, quiet))[0]
    assert first["text"] == f"Please write to <EMAIL> or call {PHONE}."
    assert first["agent"] == f"<{MAIL}>"


def test_a_column_that_is_to_stay_is_one_of_the_rows(tmp_path: Path) -> None:
    sparse = [*rows(), {"text": "nothing", "label": "a", "agent": "2", "note": f"ask {MAIL}"}]
    found = left(make(desk_of(tmp_path, sparse, scrub={"columns_kept": ["note"]}), quiet))
    assert found[-1]["note"] == f"ask {MAIL}"
    with pytest.raises(ConfigError, match="no row has a column 'agnet'") as caught:
        make(desk_of(tmp_path, rows(), scrub={"columns_kept": ["text", "agnet"]}), quiet)
    assert "did you mean 'agent'" in str(caught.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_no_trace_is_left_in_any_file_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Neither in rows, nor in what other steps keep and show, nor in rows that could not be read."""
    monkeypatch.setattr("tunesmith.desk.reading.CHUNK_ROWS", 2)
    named = [{**row, "label": "contact"} for row in rows()]
    path = Path(written(tmp_path, named))
    path.write_text(path.read_text() + f'{{"text": "{MAIL}", broken\n')
    desk = Desk.model_validate(
        {
            "output": str(tmp_path / "out"),
            "data": {"train": [str(path)]},
            "clean": {},
            "scrub": {},
            "dedup": {},
        }
    )
    made = make(desk, quiet, sharing=Sharing(processes))
    assert made.version is not None
    counts = {step.name: step for step in made.steps}
    assert counts["clean"].dropped == {"empty_text": 1}
    for file in (*made.version.folder.iterdir(), None):
        text = made.as_text() if file is None else file.read_text(encoding="utf-8")
        for secret in (one for one in SECRETS if len(one) > 6):  # shorter ones may stand in a hash
            assert secret not in text, file
    trial = make(desk, quiet, dry_run=True, sharing=Sharing(processes))
    assert not any(secret in trial.as_text() for secret in SECRETS)


def test_originals_come_back_from_the_files_they_are_from(tmp_path: Path) -> None:
    made = make(desk_of(tmp_path, rows(), clean={}, scrub={}, dedup={}), quiet)
    assert made.version is not None
    assert [values for _, values in restored(made.version)] == rows()
    (tmp_path / "rows.jsonl").write_text('{"text": "another", "label": "a"}\n')
    with pytest.raises(DataError, match=r"were scrubbed .* not the file that they were read from"):
        list(restored(made.version))
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="is gone"):
        list(restored(made.version))


@pytest.mark.parametrize("kind", ["archive", "query", "store"])
def test_originals_come_back_from_wherever_rows_came_from(tmp_path: Path, kind: str) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    if kind == "archive":
        entry = str(tmp_path / "logs.zip")
        with zipfile.ZipFile(entry, "w") as archive:
            archive.writestr("logs/march.jsonl", lines)
    elif kind == "query":
        with sqlite3.connect(tmp_path / "tickets.db") as tickets:
            tickets.execute("CREATE TABLE tickets (text, label, agent)")
            tickets.executemany("INSERT INTO tickets VALUES (:text, :label, :agent)", rows())
        entry = f"sql:sqlite:///{tmp_path}/tickets.db#SELECT * FROM tickets ORDER BY rowid"
    else:
        entry = f"memory://{tmp_path.name}/rows.jsonl"
        fsspec.filesystem("memory").pipe(entry, lines.encode())
    desk = Desk.model_validate({"output": str(tmp_path / "out"), "data": {"train": [entry]}, "scrub": {}})
    made = make(desk, quiet)
    assert made.version is not None
    assert [values for _, values in restored(made.version)] == rows()


def test_originals_that_are_kept_need_no_files(tmp_path: Path) -> None:
    made = make(desk_of(tmp_path, rows(), clean={}, scrub={"keep_originals": True}), quiet)
    assert made.version is not None
    (tmp_path / "rows.jsonl").unlink()
    assert [values for _, values in restored(made.version)] == rows()
    assert MAIL not in (made.version.folder / "card.md").read_text()


def tagged_desk(folder: Path, rows: list[dict[str, Any]]) -> Desk:
    data = {"train": [written(folder, rows)], "format": "tags"}
    return Desk.model_validate({"output": str(folder / "out"), "data": data, "scrub": {}})


def test_spans_cover_what_stands_there_now_and_rows_where_none_can_are_dropped(tmp_path: Path) -> None:
    end = 4 + len(MAIL)
    tagged = [
        {"text": f"Ask {MAIL} in Oslo", "spans": [[4, end, "mail"], [end + 4, end + 8, "place"]]},
        {"text": f"Ask {MAIL} in Oslo", "spans": [[6, end + 8, "half"]]},
    ]
    made = make(tagged_desk(tmp_path, tagged), quiet)
    assert left(made) == [{"text": "Ask <EMAIL> in Oslo", "spans": [[4, 11, "mail"], [15, 19, "place"]]}]
    assert made.steps[0].dropped == {IN_FIXED: 1}
    words = [
        {"tokens": ["call", "(212)", "555-0142", "now"], "tags": ["O", "B-tel", "I-tel", "O"]},
        {"tokens": ["call", "me", "in", "Oslo"], "tags": ["O", "O", "O", "B-place"]},
    ]
    assert left(make(tagged_desk(tmp_path, words), quiet)) == words[1:]


def test_a_keyed_hash_is_hmac_sha256_of_kind_and_value() -> None:
    import hmac

    text = scrubbed(f"{MAIL}, {MAIL.upper()}, {CARD} and 4111-1111-1111-1111", how="hash", key="SCRUB_KEY")
    first = hmac.new(KEY.encode(), f"EMAIL\0{MAIL}".encode(), "sha256").hexdigest()[:16]
    card = hmac.new(KEY.encode(), b"CARD\0004111111111111111", "sha256").hexdigest()[:16]
    assert text == f"<EMAIL:{first}>, <EMAIL:{first}>, <CARD:{card}> and <CARD:{card}>"


def luhn(digits: str) -> bool:
    return sum(sum(divmod(int(d) * (1 + at % 2), 10)) for at, d in enumerate(digits[::-1])) % 10 == 0


def mod97(iban: str) -> int:
    plain = iban.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97


def test_pseudonyms_are_of_the_same_shape_where_nobody_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{MAIL}; {PHONE}; {CARD}; DE89 3704 0044 0532 0130 00; ssn 219-09-9999; 10.0.0.12; DNI 12345678Z"
    out = scrubbed(text, how="pseudonym", key="SCRUB_KEY")
    mail, phone, card, iban, ssn, ip, nif = out.split("; ")
    assert re.fullmatch(r"[a-z]+\.[a-z]+\.[0-9a-f]{8}@example\.org", mail)
    assert re.fullmatch(r"\+1-\d{3}-555-01\d\d", phone)
    assert re.fullmatch(r"4000 00\d\d \d{4} \d{4}", card)
    assert luhn(card.replace(" ", ""))
    assert re.fullmatch(r"DE\d\d( \d{4}){4} \d\d", iban)
    assert mod97(iban) == 1
    assert re.fullmatch(r"ssn \d{3}-00-\d{4}", ssn)
    assert ip.rpartition(".")[0] in ("192.0.2", "198.51.100", "203.0.113")
    assert re.fullmatch(r"DNI \d{8}[A-Z]", nif)
    assert scrubbed(text, how="pseudonym", key="SCRUB_KEY") == out
    monkeypatch.setenv("SCRUB_KEY", KEY[::-1])
    assert scrubbed(text, how="pseudonym", key="SCRUB_KEY") != out


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kinds": ["EMIAL"]}, "did you mean 'EMAIL'"),
        ({"kinds": ["PERSON"]}, "no model finds names"),
        ({"how": "hash", "key": "NO_SUCH_KEY"}, "holds 0 characters"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Scrubbing.of(Scrub(**config))


@pytest.mark.parametrize("config", [{"how": "hash"}, {"key": "SCRUB_KEY"}])
def test_a_key_goes_with_what_needs_one(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key"):
        Scrub(**config)


def test_names_are_found_by_the_function_that_is_given() -> None:
    text = f"Nora Lind <{MAIL}> asks"
    step = Scrubbing.of(Scrub(), lambda text: [(0, 9)] if text.startswith("Nora") else [])
    assert step.replaced(text, step.finder.found(text)) == "<PERSON> <<EMAIL>> asks"
    with pytest.raises(ConfigError, match="leaves PERSON out"):
        Scrubbing.of(Scrub(kinds=["EMAIL"]), lambda text: [])


def test_of_findings_that_overlap_the_longest_stays() -> None:
    assert scrubbed("see https://ann:pw12@db.example.org/x") == "see https://<URL_LOGIN>/x"
    assert scrubbed("pay to de89 3704 0044 0532 0130 00 now") == "pay to <IBAN> now"


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refused(*args: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    from tunesmith.desk.recognisers import engine

    engine.cache_clear()
    assert scrubbed(f"{MAIL} ghp_16C7e42F292c6912E7710c838347Ae178B4a") == "<EMAIL> <SECRET>"


def test_the_ledger_of_what_was_hidden_says_so(tmp_path: Path) -> None:
    made = make(desk_of(tmp_path, rows(), scrub={}), quiet)
    assert made.version is not None
    lines = (made.version.folder / "changes.jsonl").read_text().splitlines()
    assert [json.loads(line)["hidden"] for line in lines] == [True] * 4
