"""`sql:URL#SELECT …` -> the rows of a query, by SQLAlchemy, as a file of JSON Lines that is read like any other.

The URL is SQLAlchemy's (`postgresql+psycopg://user@host/name`, `sqlite:///tickets.db`), or `$NAME`, an environment
variable that holds it: a password never stands in a recipe, so it comes into no manifest. The query is asked once, in a
transaction that may only read and is rolled back; what it gives is what is hashed and read. Without ORDER BY a database
may give its rows in another order each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from tunesmith.data.scratch import scratch
from tunesmith.data.sources import open_regular
from tunesmith.errors import DataError, TunesmithError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

SQL = "sql:"
_ADDRESS = re.compile(r"sql:([^#]+)#(.+)", re.DOTALL)
_READS = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL
)
_SECRETS = ("password", "passwd", "pwd", "sslpassword", "token", "secret", "access_token")
BATCH = 1000


def check(address: str) -> None:
    """Raises DataError for an address that is none, holds a password, or whose query does more than to read."""
    _url(address)


def fetched(address: str) -> Path:
    """The rows of the query, asked for once for as long as the process lives."""
    target = scratch() / f"{hashlib.sha256(address.encode()).hexdigest()[:32]}.jsonl"
    if target.exists():
        return target
    url, query = _url(address)
    part = target.with_name(f"part-{target.name}")
    with _said(address, url), part.open("w", encoding="utf-8", errors="surrogatepass") as file:
        engine = _engine(address, url)
        try:
            for row in _rows(address, engine, query):
                file.write(json.dumps(row, ensure_ascii=False, default=_as_text) + "\n")
        finally:
            engine.dispose()
    part.replace(target)
    return target


def absolute(address: str) -> str:
    """With the path of an SQLite file made absolute."""
    found = _ADDRESS.fullmatch(address)
    path = found[1].removeprefix("sqlite:///") if found else ""
    if found is None or path == found[1] or path.startswith(("/", ":")) or not path:
        return address
    return f"sql:sqlite:///{Path(path).resolve()}#{found[2]}"


def _url(address: str) -> tuple[URL, str]:
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise DataError("sql: rows need SQLAlchemy", fix="pip install 'tunesmith[sql]'") from None
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise DataError(
            "a sql: entry without a query",
            "sql:URL#SELECT …",
            "such as sql:sqlite:///tickets.db#SELECT text, label",
        )
    written, query = found[1], found[2].strip().rstrip(";")
    if written.startswith("$"):
        name = written.strip("${}")
        if not os.environ.get(name):
            raise DataError(
                f"sql:{written}: no environment variable {name}", "one that holds the URL", f"export {name}=…"
            )
    try:
        url = make_url(os.environ[name] if written.startswith("$") else written)
    except (ArgumentError, ValueError):
        what = f"what ${name} holds" if written.startswith("$") else "what stands before # in a sql: entry"
        raise DataError(f"{what} is no URL of a database", "dialect+driver://user@host/name") from None
    if not written.startswith("$") and (url.password or {key.lower() for key in url.query} & {*_SECRETS}):
        raise DataError(
            f"sql:{url.set(query={}).render_as_string(hide_password=True)}: a password in the entry",
            "an environment variable that holds the URL, so that no manifest has the password",
            "export TICKETS_DB='…' and write sql:$TICKETS_DB#SELECT …",
        )
    if not _READS.match(query):
        raise DataError(
            f"sql: '{query[:80]}' is no query that only reads", "SELECT …, WITH … SELECT, VALUES or TABLE"
        )
    return url, query


def _engine(address: str, url: URL) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if url.get_backend_name() != "sqlite":
        return create_engine(url, poolclass=NullPool)
    if not url.database or url.database.startswith((":", "file:")):
        raise DataError(f"{address}: names no file", "sqlite:///path/to/file.db")
    path = Path(url.database)
    with open_regular(path, f"sql:sqlite:///{path}"):  # SQLite would make a missing file anew
        pass

    def connect() -> Any:
        import sqlite3

        return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def _rows(address: str, engine: Engine, query: str) -> Iterator[dict[str, Any]]:
    options: dict[str, Any] = {"stream_results": True, "max_row_buffer": BATCH, "no_parameters": True}
    if engine.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    with engine.connect().execution_options(**options) as connection:
        result = connection.exec_driver_sql(query)
        columns = list(result.keys())
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise DataError(
                f"{address}: two columns are called '{twice[0]}'", "each its own", "name one with AS"
            )
        for rows in result.partitions(BATCH):
            yield from (dict(zip(columns, row, strict=True)) for row in rows)
        connection.rollback()


def _as_text(value: Any) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise DataError(
        f"a column holds {type(value).__name__} values", "text, numbers, dates, JSON", "CAST it in the query"
    )


@contextmanager
def _said(address: str, url: URL) -> Iterator[None]:
    """What the database or its driver raises becomes a DataError without the password."""
    from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

    shown = f"sql:{url.set(query={}).render_as_string(hide_password=True)}"
    try:
        yield
    except TunesmithError:
        raise
    except (NoSuchModuleError, ImportError) as error:
        driver = url.drivername
        raise DataError(
            f"{shown}: no driver for {driver} is installed",
            "its package",
            "such as pip install 'psycopg[binary]'",
        ) from error
    except (SQLAlchemyError, OSError) as error:
        origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        message = (str(origin).strip().splitlines() or [type(origin).__name__])[0][:300]
        if url.password:
            message = message.replace(str(url.password), "***")
        raise DataError(
            f"{shown}: {type(origin).__name__}: {message}",
            "a query that this database answers",
            "try it there",
        ) from None
