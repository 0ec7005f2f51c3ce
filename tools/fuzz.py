"""The fuzzing campaign: valid files of every format, mutated by structure and by bytes, through the readers.

python tools/fuzz.py --inputs 1000000 [--seed 0] [--only csv] [--record benchmarks/results]
python tools/fuzz.py --again 4711              one input, with its traceback

Each input is a pure function of (seed, number). A process of its own works on them; a watcher ends it where one input
takes longer than the limit, and begins it again after the input that ended it. What raises anything but a DataError,
dies, hangs or takes too much memory is a finding, named by its number.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.config.machine import describe_machine
from tunesmith.config.run import DataConfig
from tunesmith.data import archives
from tunesmith.data.chat_logs import unlogged
from tunesmith.data.endings import ending_of, is_of_rows
from tunesmith.data.formats import detect, to_example
from tunesmith.data.readers import READERS, head_of
from tunesmith.data.scratch import scratch
from tunesmith.errors import DataError, RowError
from tunesmith.types import RowRef

SECONDS, MIB = 10, 512
"""Of processor time for one input, and memory of the process at any time."""
SHARES = {
    "rows.jsonl": 35,
    "rows.json": 15,
    "rows.csv": 15,
    "rows.tsv": 5,
    "rows.parquet": 8,
    "rows.arrow": 8,
    "rows.jsonl.gz": 6,
    "rows.csv.gz": 2,
    "rows.zip": 3,
    "rows.tar": 2,
    "rows.tar.gz": 1,
}

ROWS: tuple[Sequence[dict[str, Any]], ...] = (
    [{"text": "The reader is dead", "label": "hardware"}, {"text": "Charged twice", "label": "billing"}],
    [{"prompt": "How do I reset it?", "completion": "Hold the button — ten seconds."}] * 2,
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"messages": []},
    ],
    [{"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 0.5}],
    [{"prompt": "Q", "completions": [{"content": "A", "score": 1}, "B"], "ranks": [1, 2]}],
    [{"instruction": "Sum", "input": "1 2", "output": "3", "history": [["a", "b"]]}],
    [{"tokens": ["New", "York"], "ner_tags": ["B-LOC", "I-LOC"]}],
    [
        {"text": "New York", "spans": [{"start": 0, "end": 8, "label": "LOC"}]},
        {"text": "é\u2028\U0001f600", "spans": []},
    ],
    [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[]"}],
    [
        {
            "request": {"messages": [{"role": "user", "content": "a"}], "model": "m"},
            "response": {
                "choices": [{"message": {"role": "assistant", "content": "b"}, "finish_reason": "stop"}]
            },
        }
    ],
    [
        {
            "text": "a",
            "labels": ["x", "y"],
            "score": 1.5,
            "n": None,
            "deep": {"a": {"b": [1, [2, {"c": True}]]}},
        }
    ]
    * 3,
)
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        2**63,
        10**40,
        0.1,
        1e308,
        "",
        " ",
        "\0",
        "\ud800",
        "\u202e",
        "a" * 300,
        "[",
        "[{",
        "{}",
    ),
    *(
        '"',
        "NaN",
        [],
        {},
        [[]],
        [{}],
        [None],
        {"": ""},
        {"role": "user"},
        "<|im_end|>",
        "=cmd|",
        "\r",
        "\n",
        "\t,;",
    ),
    *(
        [["a", "b"]],
        [1, "a", None],
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    ),
)
TOKENS = (
    *(
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\t",
    ),
    *(
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 400,
        b"null",
        b"//",
    ),
    *(
        b"[" * 200,
        b'{"a":' * 100,
        b'""',
        b',"',
        b"PAR1",
        b"ARROW1",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"<html>",
        b"\xff\xfe",
    ),
)

Content = bytes
Mutation = Callable[[random.Random, Content], Content]


# Files ---------------------------------------------------------------------------------------------------


def made(generator: random.Random) -> tuple[str, bytes]:
    """Name and content of one input."""
    name = generator.choices(list(SHARES), list(SHARES.values()))[0]
    plain = name.removesuffix(".gz") if "tar" not in name else name
    if plain.endswith((".parquet", ".arrow")):
        content = generator.choice(tables(plain.rpartition(".")[2]))
    else:
        content = _written(plain, [_odd(generator, row) for row in generator.choice(ROWS)], generator)
    wrapped = plain != name or plain.endswith((".zip", ".tar", ".tar.gz"))
    if not wrapped or generator.random() < 0.5:
        content = _mutated(generator, content)
    if plain.endswith((".zip", ".tar", ".tar.gz")):
        content = _archive(plain, content, generator)
    elif plain != name:
        content = gzip.compress(content, 1)
    return name, _mutated(generator, content) if wrapped else content


def _written(name: str, rows: Sequence[Any], generator: random.Random) -> bytes:
    if name.endswith((".csv", ".tsv")):
        out = io.StringIO()
        columns = list(rows[0]) if isinstance(rows[0], dict) and rows[0] else ["text"]
        writer = csv.writer(out, delimiter="\t" if name.endswith("tsv") else ",")
        writer.writerow(columns)
        for row in rows:
            cells = [row.get(c) if isinstance(row, dict) else row for c in columns]
            writer.writerow([c if isinstance(c, str) else json.dumps(c) for c in cells])
        return out.getvalue().encode("utf-8", "surrogatepass")
    ascii_only = generator.random() < 0.5
    texts = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    text = "[" + ",\n".join(texts) + "]" if name.endswith(".json") else "\n".join(texts) + "\n"
    return text.encode("utf-8", "surrogatepass")


def _archive(name: str, content: bytes, generator: random.Random) -> bytes:
    out = io.BytesIO()
    member = generator.choice(
        ["rows.jsonl", "a/rows.csv", "../rows.jsonl", "train.jsonl", "rows.parquet", "b.zip"]
    )
    if name.endswith(".zip"):
        with zipfile.ZipFile(
            out, "w", generator.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        ) as archive:
            archive.writestr(member, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w:gz" if name.endswith("gz") else "w") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@cache
def tables(kind: str) -> list[bytes]:
    """Whole files of every kind of column and encoding."""
    found: list[bytes] = []
    for rows in ROWS:
        try:
            table = pa.Table.from_pylist([dict(row) for row in rows])
        except pa.ArrowException:
            continue  # a column of several types
        for option in ("none", "zstd", "snappy" if kind == "parquet" else "lz4"):
            out = io.BytesIO()
            if kind == "parquet":
                pq.write_table(table, out, compression=option, use_dictionary=option != "none")
            else:
                how = pa.ipc.IpcWriteOptions(compression=None if option == "none" else option)
                new = pa.ipc.new_file if len(found) % 2 else pa.ipc.new_stream
                with new(out, table.schema, options=how) as writer:
                    writer.write_table(table)
            found.append(out.getvalue())
    return found


# Mutations -----------------------------------------------------------------------------------------------


def _odd(generator: random.Random, value: Any) -> Any:
    """The same value but for odd ones here and there."""
    if generator.random() < 0.04:
        return generator.choice(ODD)
    if isinstance(value, dict):
        out = {key: _odd(generator, item) for key, item in value.items() if generator.random() > 0.02}
        if generator.random() < 0.04:
            out[generator.choice(["text", "messages", "label", "prompt", "", "role", "content"])] = (
                generator.choice(ODD)
            )
        return out
    if isinstance(value, list):
        items = [_odd(generator, item) for item in value]
        return items * 2 if generator.random() < 0.02 else items
    return value


def _mutated(generator: random.Random, content: bytes) -> bytes:
    for _ in range(generator.choice((0, 1, 1, 1, 2, 3, 6))):
        content = generator.choice(MUTATIONS)(generator, content)
    return content


def _place(generator: random.Random, content: bytes) -> int:
    return generator.randrange(len(content) + 1)


def _flip(generator: random.Random, content: bytes) -> bytes:
    at = _place(generator, content)
    return (
        content[:at]
        + bytes(b ^ (1 << generator.randrange(8)) for b in content[at : at + 1])
        + content[at + 1 :]
    )


def _token(generator: random.Random, content: bytes) -> bytes:
    at = _place(generator, content)
    return content[:at] + generator.choice(TOKENS) + content[at + generator.choice((0, 0, 1, 4)) :]


def _without(generator: random.Random, content: bytes) -> bytes:
    at = _place(generator, content)
    return content[:at] + content[at + generator.choice((1, 2, 8, 64)) :]


def _cut(generator: random.Random, content: bytes) -> bytes:
    return content[: _place(generator, content)]


def _twice(generator: random.Random, content: bytes) -> bytes:
    at = _place(generator, content)
    return content[:at] + content[max(0, at - generator.choice((1, 8, 64, 512))) :]


def _number(generator: random.Random, content: bytes) -> bytes:
    at = _place(generator, content)
    value = generator.choice((0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), len(content), 2**40))
    short = generator.random() < 0.5
    raw = struct.pack("<i", max(-(2**31), min(2**31 - 1, value))) if short else struct.pack("<q", value)
    return content[:at] + raw + content[at + len(raw) :]


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _token, _token, _without, _cut, _twice, _number)


# One input -----------------------------------------------------------------------------------------------


def read(name: str, content: bytes) -> str:
    """What comes of it: 'rows', or how it is refused."""
    try:
        if archives.parted(name) or name.endswith((".zip", ".tar", ".tar.gz")):
            return _read_archive(name, content)
        return _read_rows(name, content)
    except RowError as error:
        return error.reason
    except DataError:
        return "file"


def _read_rows(name: str, content: bytes) -> str:
    path = Path(name)
    reader = READERS[ending_of(path)](name, io.BytesIO(content), path.suffix == ".gz", Counter())
    rows = unlogged(reader, name)
    head = head_of(rows)
    whole = [row for _, row in head if not isinstance(row, RowError)]
    said = next((row.reason for _, row in head if isinstance(row, RowError)), "rows")
    if whole:
        meaning = detect(whole, DataConfig(), name)
        for row in whole:
            try:
                to_example(meaning, row, RowRef(name, 1))
            except RowError as error:
                said = error.reason
    for _ in rows:
        pass
    return said


def _read_archive(name: str, content: bytes) -> str:
    path = scratch() / name
    path.write_bytes(content)
    said = "file"
    try:
        for member, where in archives.unpacked(path, is_of_rows).items():
            said = _read_rows(member, where.read_bytes())
    finally:
        for one in scratch().iterdir():
            if one.is_dir():
                for inside in one.iterdir():
                    inside.unlink()
                one.rmdir()
    return said


# The campaign --------------------------------------------------------------------------------------------


def work(numbers: range, seed: int, at: mmap.mmap, folder: Path) -> None:
    """In a process of its own. at: the number that is worked on."""
    said: Counter[str] = Counter()
    for number in numbers:
        at[:8] = struct.pack("<q", number)
        name, content = made(random.Random(f"{seed} {number}"))
        try:
            said[f"{name}: {read(name, content)}"] += 1
        except Exception:
            found(folder, number, "exception", traceback.format_exc())
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MIB * 1024:
            found(folder, number, "memory", f"more than {MIB} MiB")
            break
    (folder / f"said-{numbers.start}.json").write_text(json.dumps(said))
    at[:8] = struct.pack("<q", number + 1)
    os._exit(0)


def found(folder: Path, number: int, kind: str, text: str) -> None:
    print(f"{kind}, input {number}: {text}", file=sys.stderr, flush=True)
    (folder / f"finding-{number}.json").write_text(json.dumps({"number": number, "kind": kind, "text": text}))


def campaign(count: int, seed: int, folder: Path) -> None:
    """Every number from 0; a process for as long as it lives, at most 20,000 inputs."""
    at = mmap.mmap(-1, 8)
    start = 0
    while start < count:
        process = os.fork()
        if process == 0:
            work(range(start, min(count, start + 20_000)), seed, at, folder)
        status = _watched(process, at)
        reached = struct.unpack("<q", at[:8])[0]
        if status:
            kind = "hang" if status == signal.SIGKILL else "crash"
            found(folder, reached, kind, f"ended by signal {status & 127}")
            reached += 1
        start = reached


def _watched(process: int, at: mmap.mmap) -> int:
    """Its status. Ends it where it spends too much processor time on one input."""
    last, used = at[:8], 0.0
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        now = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if at[:8] != last:
            last, used = at[:8], now
        elif now - used > SECONDS:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=int, help="the number of one input")
    parser.add_argument("--record", type=Path, help="folder for a dated JSON of the results")
    given = parser.parse_args()
    if given.again is not None:
        name, content = made(random.Random(f"{given.seed} {given.again}"))
        print(name, content[:4000])
        print(read(name, content))
        return
    for kind in ("parquet", "arrow"):
        tables(kind)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tunesmith-fuzz-") as place:
        folder = Path(place)
        campaign(given.inputs, given.seed, folder)
        findings = [json.loads(path.read_text()) for path in sorted(folder.glob("finding-*.json"))]
        said: Counter[str] = Counter()
        for path in folder.glob("said-*.json"):
            said.update(json.loads(path.read_text()))
    seconds = time.monotonic() - started
    facts = {"date": date.today().isoformat(), "machine": describe_machine(), "seed": given.seed}
    facts |= {"inputs": given.inputs, "seconds": round(seconds, 1), "a_second": round(given.inputs / seconds)}
    facts |= {
        "limits": {"seconds": SECONDS, "mib": MIB},
        "findings": findings,
        "uncounted": given.inputs - len(findings) - said.total(),  # what a process saw that then died
        "said": dict(said.most_common()),
    }
    print(json.dumps({**facts, "said": dict(said.most_common(25))}, indent=1))
    if given.record:
        given.record.mkdir(parents=True, exist_ok=True)
        (given.record / f"fuzz-{facts['date']}.json").write_text(json.dumps(facts, indent=1) + "\n")
    raise SystemExit(bool(findings))


if __name__ == "__main__":
    main()
