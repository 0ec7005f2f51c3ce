"""Rows that were read, split and tokenised before, kept in the user's cache under a hash of all that decides them.

One folder for each hash, in $XDG_CACHE_HOME/tunesmith/rows (~/.cache/tunesmith/rows): NumPy arrays, which are mapped
and not read, JSON, and a manifest with the SHA-256 of each. A folder is written aside, synced and renamed, so it is
whole or absent, also where two processes write the same one. TUNESMITH_CACHE=0 turns it off.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import tunesmith
from tunesmith import storage
from tunesmith.config.judged import ScoresAnswers
from tunesmith.config.run import Run
from tunesmith.config.tuning import Writes
from tunesmith.data.account import Account, FileCount
from tunesmith.data.columns import Mapping as Meaning
from tunesmith.data.flat import FlatExamples, FlatRows, Unkept, files_of, flat_examples, flat_rows
from tunesmith.data.folders import sources_of
from tunesmith.data.load import Splits, entries_of
from tunesmith.data.peer_formats import Turns
from tunesmith.data.readers import sha256
from tunesmith.data.template import freeze_dates
from tunesmith.types import EventSink, TokenRow

MIN_BYTES = 2**20
"""Smaller files are read again: that takes no longer than a second."""
MAX_BYTES, MAX_DAYS = 8 * 2**30, 30
"""What is kept at most: of all folders together, and since one was last used. The longest unused go first."""
MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Kept:
    """What `prepare` works out of the files. outputs: a head's, as settings of its method; why: reasons for them."""

    splits: Splits
    rows: Mapping[str, Sequence[TokenRow]]
    outputs: dict[str, Any]
    why: dict[str, str]


def key_of(run: Run, tokenizer: Any, settings: Sequence[Any], now: datetime) -> str | None:
    """A hash of all that decides the rows; None where they are not kept: small files, no fast tokenizer, or turned off.

    settings: what else decides them. now: counts by what a template writes of it. Raises DataError for files that are
    not there.
    """
    if os.environ.get("TUNESMITH_CACHE") == "0" or not tokenizer.is_fast:
        return None
    named = entries_of(run.data)
    sources = [(part, source) for part, entries in named.items() for source in sources_of(entries, part)]
    files = {file for _, s in sources for file in (s.file, s.described_by) if file is not None}
    if sum(Path(file).stat().st_size for file in files if Path(file).is_file()) < MIN_BYTES:
        return None
    named_template = Path(run.model.template)
    template = named_template.read_text(encoding="utf-8") if named_template.is_file() else run.model.template
    templates = (
        f"{template}{tokenizer.chat_template}" if isinstance(run.method, Writes | ScoresAnswers) else ""
    )
    parts = [
        [run.data.model_dump(mode="json"), run.method.model_dump(mode="json"), run.seed, list(settings)],
        [[part, asdict(source)] for part, source in sources],
        {file: sha256(file) for file in sorted(files)},
        freeze_dates(templates, now),
        [type(tokenizer).__name__, tokenizer.backend_tokenizer.to_str()],
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        [tokenizer.model_input_names, tokenizer.truncation_side, tokenizer.split_special_tokens],
        _code(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


def _code() -> list[str]:
    """Of this package whole (its files' bytes), and the versions of what it tokenises and reads with."""
    folder = Path(tunesmith.__file__).parent
    files = [
        *sorted(folder.glob("data/*.py")),
        folder / "types.py",
        folder / "workflow" / "heads.py",
        Path(__file__),
    ]
    names = ("tokenizers", "transformers", "jinja2", "numpy", "pyarrow")
    versions = [importlib.metadata.version(name) for name in names]
    return [*(hashlib.sha256(file.read_bytes()).hexdigest() for file in files), *versions, sys.version]


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith" / "rows"


def take(key: str, run_folder: Path, sink: EventSink) -> Kept | None:
    """What was kept under this hash, every byte checked; the dropped rows are listed in the run's folder again."""
    home = folder() / key
    if not home.is_dir():
        return None
    problem = _problem(home)
    if problem:
        sink("note", text=f"{problem}; the rows are read and tokenised again")
        shutil.rmtree(home, ignore_errors=True)  # another process may be at it too
        return None
    os.utime(home)
    state = json.loads((home / "state.json").read_bytes())
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in home.glob("*.npy")}
    parts = {
        name: {k.removeprefix(f"{name}-"): v for k, v in arrays.items() if k.startswith(f"{name}-")}
        for name in (f"{kind}-{split}" for kind in ("rows", "examples") for split in SPLITS)
    }
    files = state["files"]
    account = Account(folder=run_folder)
    account.notes = Counter(state["notes"])
    account.files = {
        name: FileCount(**(count | {"dropped": Counter(count["dropped"])}))
        for name, count in state["counts"].items()
    }
    if (home / "dropped.jsonl").stat().st_size:
        run_folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home / "dropped.jsonl", run_folder / "dropped.jsonl")
    examples = {split: FlatExamples(parts[f"examples-{split}"], files) for split in SPLITS}
    splits = Splits(
        examples["train"],
        examples["validation"],
        examples["test"],
        mapping=_meaning(state["mapping"]),
        account=account,
        warnings=tuple(state["warnings"]),
        labels=tuple(state["labels"]),
        unseen_labels=tuple(state["unseen_labels"]),
        hashes=state["hashes"],
    )
    rows = {split: FlatRows(parts[f"rows-{split}"], files) for split in SPLITS}
    sink("note", text=f"the rows were tokenised before and are taken from {home}")
    return Kept(splits, rows, state["outputs"], state["why"])


def _problem(home: Path) -> str:
    """What is wrong with a folder, in words; empty where every file is as it was written."""
    try:
        text = (home / MANIFEST).read_bytes()
        manifest = json.loads(text)
        if (
            json.dumps(manifest).encode() != text
        ):  # it guards the others, and is guarded by being just what is written
            return f"{home / MANIFEST} is damaged"
        bad = [name for name, digest in manifest.items() if _digest(home / name) != digest]
    except (OSError, ValueError, AttributeError) as error:
        return f"{home} cannot be read ({error})"
    return f"{home / bad[0]} is damaged" if bad else ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(key: str, kept: Kept, sink: EventSink) -> Kept:
    """Writes what was worked out; says why where it cannot be kept. Returns the same in flat arrays, as it will be
    taken the next time: a million rows as objects need a gigabyte, and every search for garbage goes through them."""
    home = folder()
    aside = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".aside-", dir=home))
        kept = _write(aside, kept)
        if not (home / key).exists():
            storage.rename(aside, home / key)
        _evict(home)
    except (OSError, Unkept) as error:
        if not (home / key).exists():  # another process was first: that is no problem
            sink("note", text=f"the tokenised rows are not kept for another time: {error}")
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)  # it has become the folder, or is not wanted
    return kept


def _write(aside: Path, kept: Kept) -> Kept:
    """Returns what was written."""
    splits, account = kept.splits, kept.splits.account
    account.flush()
    written = [*(kept.rows[split] for split in SPLITS), *(vars(splits)[split] for split in SPLITS)]
    files = dict.fromkeys(file for some in written for file in files_of(some))
    names = {file: index for index, file in enumerate(files)}
    rows = {split: FlatRows(flat_rows(kept.rows[split], names), list(names)) for split in SPLITS}
    examples: dict[str, Any] = {
        split: FlatExamples(flat_examples(vars(splits)[split], names), list(names)) for split in SPLITS
    }
    for kind, parts in (("rows", rows), ("examples", examples)):
        for split, part in parts.items():
            for name, array in part.arrays.items():
                np.save(aside / f"{kind}-{split}-{name}.npy", array, allow_pickle=False)
    counts = {
        file: vars(count) | {"first": {}} for file, count in account.files.items()
    }  # first: only until checked
    state = {
        "files": list(names),
        "mapping": asdict(splits.mapping),
        "warnings": splits.warnings,
        "labels": splits.labels,
        "unseen_labels": splits.unseen_labels,
        "hashes": splits.hashes,
        "notes": account.notes,
        "counts": counts,
        "outputs": kept.outputs,
        "why": kept.why,
    }
    text = json.dumps(state)
    if _meaning(json.loads(text)["mapping"]) != splits.mapping:
        raise Unkept("JSON would change what the columns mean")
    (aside / "state.json").write_text(text)
    listed = account.path
    (aside / "dropped.jsonl").write_bytes(
        listed.read_bytes() if listed is not None and listed.exists() else b""
    )
    digests = {path.name: _digest(path) for path in sorted(aside.iterdir())}
    (aside / MANIFEST).write_text(json.dumps(digests))
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    storage.sync_folder(aside)
    return replace(kept, splits=replace(splits, **examples), rows=rows)


def _meaning(fields: dict[str, Any]) -> Meaning:
    tuples = {name: tuple(fields[name]) for name in ("json_fields", "targets")}
    return Meaning(**(fields | tuples | {"turns": Turns(**fields["turns"])}))


def _evict(home: Path) -> None:
    """Of the folders the longest unused beyond MAX_BYTES, those unused for MAX_DAYS, and what a crash left aside."""
    total, now = 0, time.time()
    newest_first = sorted(home.iterdir(), key=lambda path: -path.stat().st_mtime)
    for path in newest_first:
        total += sum(file.stat().st_size for file in path.iterdir())
        days = 1 if path.name.startswith(".") else MAX_DAYS
        if total > MAX_BYTES or now - path.stat().st_mtime > days * 86_400:
            shutil.rmtree(path, ignore_errors=True)  # another process may be at it too
