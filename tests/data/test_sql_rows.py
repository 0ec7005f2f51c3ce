"""Rows of a query: read once, by a transaction that only reads, and without a password anywhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.desk import Desk
from tunesmith.config.load import load_desk, load_run, parse_run
from tunesmith.config.run import DataConfig
from tunesmith.data import sql_rows
from tunesmith.data.account import Account
from tunesmith.data.folders import absolute, missing, sources_of
from tunesmith.data.load import read_examples
from tunesmith.data.readers import read_rows, sha256
from tunesmith.desk.make import make
from tunesmith.errors import ConfigError, DataError, RowError

ROWS = [(1, "The reader is dead", "hardware", 0.5), (2, "I was charged twice", "billing", None)]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tickets (id INTEGER, text TEXT, label TEXT, score REAL, raw BLOB)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?, x'00')", ROWS)
    connection.close()
    return path


def entry(base: Path, query: str) -> str:
    return f"sql:sqlite:///{base}#{query}"


def read(address: str) -> list[Any]:
    return [row.reason if isinstance(row, RowError) else row for _, row in read_rows(address)]


def test_rows_of_a_query(base: Path) -> None:
    address = entry(base, "SELECT text, label, score FROM tickets ORDER BY id")
    assert read(address) == [{"text": t, "label": label, "score": score} for _, t, label, score in ROWS]
    account = Account("stop")
    examples, _ = read_examples([address], DataConfig(), account)
    assert [example.label for example in examples] == ["hardware", "billing"]
    assert str(examples[1].ref) == f"{address}:2"
    assert [source.file for source in sources_of([address], "train")] == [address]


def test_a_star_in_a_query_is_no_weight(base: Path) -> None:
    assert (
        len(read(sources_of([entry(base, "SELECT text, id * 2 FROM tickets WHERE id = 1 * 2")])[0].file)) == 1
    )


def test_what_is_hashed_is_what_is_read(base: Path) -> None:
    address = entry(base, "SELECT text FROM tickets ORDER BY id")
    before = sha256(address)
    with sqlite3.connect(base) as connection:
        connection.execute("DELETE FROM tickets WHERE id = 2")
    connection.close()
    assert (sha256(address), len(read(address))) == (before, 2)
    assert len(read(entry(base, "SELECT text FROM tickets"))) == 1


def test_through_the_desk_with_a_hash_in_the_manifest(base: Path, tmp_path: Path) -> None:
    address = entry(base, "SELECT text, label FROM tickets")
    desk = Desk.model_validate({"output": str(tmp_path / "out"), "data": {"train": address}, "clean": {}})
    made = make(desk, lambda kind, /, **fields: None)
    assert made.version is not None
    [source] = made.version.manifest["sources"]
    assert (source["file"], source["sha256"], source["used"]) == (address, sha256(address), 2)


RECIPE = """
output: {folder}/out
data:
  train:
    sql: |
      SELECT text, label -- of tickets # that are not closed
      FROM tickets
      ORDER BY id
    url: sqlite:///{base}
  test: [{{sql: "SELECT 'No screen' AS text, 'hardware' AS label;", url: $TICKETS_DB}}, {rows}]
clean: {{}}
"""


def test_a_query_in_two_parts_is_the_same_source(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "No light", "label": "hardware"}')
    monkeypatch.setenv("TICKETS_DB", f"sqlite:///{base}")
    recipe = tmp_path / "desk.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path, base=base, rows=rows))
    desk = load_desk(recipe)
    query = "SELECT text, label -- of tickets # that are not closed\nFROM tickets\nORDER BY id"
    assert desk.data.train == [entry(base, query)]
    assert desk.data.test == ["sql:$TICKETS_DB#SELECT 'No screen' AS text, 'hardware' AS label;", str(rows)]
    made = make(desk, lambda kind, /, **fields: None)
    assert made.rows == {"train": 2, "test": 2}
    run = load_run(None, [f"data.train=[{{sql: SELECT 1, url: 'sqlite:///{base}'}}]"])
    assert run.data.train == [entry(base, "SELECT 1")]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("{sql: SELECT 1, url: 'sqlite:///a.db', usr: me}", "a query has no key 'usr'"),
        ("[rows.jsonl, {query: SELECT 1, url: 'sqlite:///a.db'}]", "a query has no key 'query'"),
        ("{sql: SELECT 1}", "a query without url"),
        ("{sql: 7, url: 'sqlite:///a.db'}", "a query without sql"),
        ("{sql: ' ', url: 'sqlite:///a.db'}", "a query without sql"),
        ("{sql: SELECT 1, url: 'sqlite:///a#b.db'}", "a # in the url"),
    ],
)
def test_a_query_in_other_parts_is_an_error(train: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        parse_run(f"data:\n  train: {train}\n")
    assert "recipe:2: data.train" in str(error.value)


def test_odd_values(base: Path) -> None:
    assert read(entry(base, "SELECT text, 9e999 AS label FROM tickets")) == ["not_finite"] * 2
    with pytest.raises(DataError, match="a column holds bytes values"):
        read(entry(base, "SELECT raw FROM tickets"))
    with pytest.raises(DataError, match="two columns are called 'text'"):
        read(entry(base, "SELECT text, text FROM tickets"))
    with pytest.raises(DataError, match="at least one row"):
        read(entry(base, "SELECT text FROM tickets WHERE id = 9"))
    assert read(entry(base, "SELECT '100 % at 12:30 :a' AS text")) == [{"text": "100 % at 12:30 :a"}]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM tickets",
        "UPDATE tickets SET text = ''",
        "/* select */ DROP TABLE tickets",
        "ATTACH 'other.db' AS other",
        "PRAGMA writable_schema = 1",
        "SELECT 1; DELETE FROM tickets",
        "WITH a AS (SELECT 1) DELETE FROM tickets",
    ],
)
def test_nothing_is_written(base: Path, query: str) -> None:
    before = base.read_bytes()
    with pytest.raises(DataError):
        read(sources_of([entry(base, query)])[0].file)
    assert base.read_bytes() == before
    assert not (base.parent / "other.db").exists()


def test_errors_say_what_the_database_said(base: Path) -> None:
    with pytest.raises(DataError, match="no such column: txt"):
        read(entry(base, "SELECT txt FROM tickets"))
    with pytest.raises(DataError, match=r"did you mean tickets\.db"):
        read(entry(base.with_name("ticket.db"), "SELECT 1"))
    assert not base.with_name("ticket.db").exists()
    with pytest.raises(DataError, match="without a query"):
        sources_of([f"sql:sqlite:///{base}"])
    with pytest.raises(DataError, match="no URL of a database"):
        sources_of(["sql:nowhere#SELECT 1"])
    with pytest.raises(DataError, match="no driver for nonsense"):
        read("sql:nonsense://host/name#SELECT 1")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@host/name",
        "postgresql://host/name?password=hunter2",
        "mysql://me:hunter2@h/n?a=b",
    ],
)
def test_a_password_stands_nowhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="a password in the entry") as error:
        sources_of([f"sql:{url}#SELECT 1"])
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("TICKETS_DB", url.replace("postgresql:", "nonsense:").replace("mysql:", "nonsense:"))
    [source] = sources_of(["sql:$TICKETS_DB#SELECT 1"])
    assert source.file == "sql:$TICKETS_DB#SELECT 1"
    with pytest.raises(DataError) as error:
        read(source.file)
    assert "hunter2" not in str(error.value)
    monkeypatch.delenv("TICKETS_DB")
    with pytest.raises(DataError, match="no environment variable TICKETS_DB"):
        sources_of(["sql:$TICKETS_DB#SELECT 1"])


def test_the_path_of_an_sqlite_file_is_made_absolute(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    short = "sql:sqlite:///tickets.db#SELECT text FROM tickets"
    assert absolute(short) == entry(base, "SELECT text FROM tickets")
    assert absolute("sql:$TICKETS_DB#SELECT 1") == "sql:$TICKETS_DB#SELECT 1"
    assert missing([short]) == []


# PostgreSQL ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of this test's own, on a socket in its folder."""
    binaries = [shutil.which(name) for name in ("initdb", "postgres")]
    if not all(binaries):
        pytest.skip("no PostgreSQL server here")
    folder = Path("/tmp") / f"tunesmith-pg-{os.getpid()}"  # a socket's path must be short
    folder.mkdir(mode=0o777)
    as_user: dict[str, Any] = {"cwd": folder}
    if os.getuid() == 0:  # which a server refuses to run as
        shutil.chown(folder, "nobody")
        as_user |= {"user": "nobody"}
    initdb, server = map(str, binaries)
    command = [initdb, "-D", str(folder / "data"), "-U", "me", "-A", "trust", "--no-sync"]
    done = subprocess.run(command, capture_output=True, text=True, **as_user)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"initdb: {done.stderr[:200]}")
    command = [server, "-D", str(folder / "data"), "-k", str(folder), "-c", "listen_addresses=", "-F"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user)
    try:
        for _ in range(300):
            if (folder / ".s.PGSQL.5432").exists():
                break
            time.sleep(0.1)
        yield f"postgresql+psycopg://me@/postgres?host={folder}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_postgresql(postgres: str) -> None:
    import psycopg

    host = postgres.rpartition("=")[2]
    with psycopg.connect(f"host={host} user=me dbname=postgres") as connection:
        connection.execute("CREATE SEQUENCE s")
        connection.execute(
            "CREATE TABLE t (text text, messages jsonb, at timestamptz, price numeric, id uuid)"
        )
        connection.execute(
            'INSERT INTO t VALUES (\'50 % off\', \'[{"role": "user", "content": "a"}]\', \'2026-03-01 09:00+00\', '
            "1.50, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')"
        )
    query = {"sql": "SELECT text, messages, price, id FROM t WHERE text LIKE '%'", "url": postgres}
    [address] = DataConfig.model_validate({"train": query}).train
    [row] = read(address)
    assert row == {
        "text": "50 % off",
        "messages": [{"role": "user", "content": "a"}],
        "price": "1.50",
        "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    }
    assert read(f"sql:{postgres}#SELECT at AT TIME ZONE 'UTC' AS at FROM t") == [
        {"at": "2026-03-01T09:00:00"}
    ]
    for query in ("WITH gone AS (DELETE FROM t RETURNING *) SELECT text FROM gone", "SELECT nextval('s')"):
        with pytest.raises(DataError, match=r"ReadOnlySqlTransaction|data-modifying"):
            read(f"sql:{postgres}#{query}")
    assert len(read(f"sql:{postgres}#SELECT text FROM t")) == 1


def test_without_sqlalchemy_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sqlalchemy", None)
    with pytest.raises(DataError, match=r"pip install 'tunesmith\[sql\]'"):
        sql_rows.check("sql:sqlite:///a.db#SELECT 1")
