"""What `data.train` and its kin name -> files of rows: a file, a folder, a saved data set, a hub data set.

| written | is |
|---|---|
| `rows.jsonl` | a file; see `readers` |
| `folder`, `folder#split` | its files of rows; of files that are named for a split, those of the split |
| the same, a data set of the desk | its current version |
| the same, saved by Hugging Face `datasets` | the .arrow files that its state.json lists; of a dictionary, a split's |
| `dataset_info.json#name`, `folder#name` | a data set that LLaMA-Factory's description names; see `dataset_info` |
| `hub:owner/name@revision/folder#split` | files of rows of a hub data set, downloaded, then read as a folder |
| `logs/*.jsonl`, `logs/**/*.jsonl` | the files that fit, in the order of their names |
| `logs.zip`, `logs.tar.gz#split` | an archive, read as a folder; `logs.zip/march.jsonl`: one file of it (`archives`) |
| `sql:URL#SELECT …` | the rows of a query (`sql_rows`) |
| `s3://bucket/logs/*.jsonl#split` | files of an object store: one, a folder, or those that fit (`stores`) |
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.data import archives, dataset_info, sql_rows, stores
from tunesmith.data.addresses import is_remote
from tunesmith.data.columns import Mapping
from tunesmith.data.endings import ENDINGS, PACKED, ending_of, is_of_rows
from tunesmith.data.mixing import parse_weight
from tunesmith.data.sources import open_regular
from tunesmith.data.strict_json import parse_object
from tunesmith.errors import DataError, RowError, near_miss

HUB = "hub:"
CURRENT, VERSIONS = "current", "versions"
"""What the folder of a data set of the desk holds (`tunesmith.desk.versions`)."""
_HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([^/#]+))?((?:/[^/#]+)*)(?:#(.+))?")
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Source:
    """One file of rows, by its address. mapping: what a description says of its columns. described_by: that
    description's file."""

    file: str
    weight: float = 1.0
    mapping: Mapping | None = None
    described_by: str | None = None


def sources_of(entries: Iterable[str], part: str = "") -> list[Source]:
    """The files that these entries name.

    part: train, validation or test, the split to take where an entry has several and names none; "": there must
    be one. Raises DataError for what is not there, and for weights on other parts than train.
    """
    found: list[Source] = []
    for entry in entries:
        address, weight = _weighed(entry)
        if weight != 1 and part != "train":
            where = f"data.{part}" if part else "rows that are scored"
            raise DataError(
                f"{entry}: a weight on {where}", "weights on data.train alone", f"write {address}"
            )
        found += [replace(source, weight=weight) for source in _located(address, part)]
    names = [_same(source.file) for source in found]
    for source, name in zip(found, names, strict=True):
        if names.count(name) > 1:
            raise DataError(
                f"{source.file} is listed twice", fix="name each file once; *2 after it repeats its rows"
            )
    return found


def _weighed(entry: str) -> tuple[str, float]:
    """Address and weight. In a query a * is the database's own."""
    return (entry, 1.0) if entry.startswith(sql_rows.SQL) else parse_weight(stores.local_path(entry))


def _same(address: str) -> str:
    """Equal for two spellings of one file."""
    return address if is_remote(address) else os.path.realpath(address)


def absolute(entry: str) -> str:
    """The entry with its path made absolute, where it is there; a weight and a split stay."""
    if entry.startswith(sql_rows.SQL):
        return sql_rows.absolute(entry)
    if is_remote(entry):
        return entry
    address = _path_of(entry)
    path = Path(address).expanduser()
    if path.exists():
        return f"{path.resolve()}{entry.removeprefix(address)}"
    if _WILD.search(address) or archives.parted(address):
        return f"{Path.cwd() / path}{entry.removeprefix(address)}"
    return entry


def missing(entries: Iterable[str]) -> list[str]:
    """The entries whose file or folder is not on this machine (what is fetched is never said to be missing)."""
    return [entry for entry in entries if not is_remote(entry) and not _is_there(_path_of(entry))]


def _is_there(path: str) -> bool:
    return Path(path).exists() or archives.parted(path) is not None or bool(glob.glob(path, recursive=True))


def _path_of(entry: str) -> str:
    address, _ = parse_weight(stores.local_path(entry))
    return address if Path(address).expanduser().exists() else address.rpartition("#")[0] or address


def _located(address: str, part: str) -> list[Source]:
    path = Path(address)
    name: str | None = None
    if address.startswith(HUB):
        return _found(address, None, part)
    if address.startswith(sql_rows.SQL):
        sql_rows.check(address)
        return [Source(address)]
    if stores.is_url(address):
        return _stored(address, part)
    if not path.exists() and "#" in address:
        before, _, after = address.rpartition("#")
        path, name = Path(before), after
    if path.is_dir() and (path / dataset_info.NAME).is_file() and not (path / "state.json").exists():
        path = path / dataset_info.NAME
    if path.name == dataset_info.NAME and path.is_file():
        info = dataset_info.described(path, name)
        files = _found(info.address, None, part)
        return [replace(file, mapping=info.mapping, described_by=str(path)) for file in files]
    if name is not None and path.is_file() and not archives.is_archive(path):
        raise DataError(
            f"{address}: '#{name}' after a file", "a folder or a dataset_info.json before #", f"write {path}"
        )
    return _found(address if name is None else str(path), name, part)


def _found(address: str, name: str | None, part: str) -> list[Source]:
    """The files of a hub data set, a folder, or a file; descriptions are not looked for."""
    if address.startswith(HUB):
        return _files_of(*_from_hub(address), part)
    path = current_version(Path(address))
    if path.is_dir():
        return _files_of(path, name, part)
    if (parted := archives.parted(address)) is not None:
        return _packed(*parted, name, part)
    if not path.exists() and _WILD.search(address):
        fitting = sorted(one for one in glob.glob(address, recursive=True) if Path(one).is_file())
        if name is None and fitting:
            return [source for one in fitting for source in _found(one, None, part)]
        before = _WILD.split(address)[0].rpartition("/")[0] or "."
        fix = "leave the # out" if fitting else f"look into {before}"
        raise DataError(f"{address}: {'is no folder with splits' if fitting else 'fits no file'}", fix=fix)
    if not path.exists():
        with open_regular(path):  # says so, with the names that come near
            pass
    return [Source(address)]


def current_version(folder: Path) -> Path:
    """Of a data set of the desk the folder of the version that it names as current; any other folder itself."""
    current, versions = folder / CURRENT, folder / VERSIONS
    if not (current.is_file() and versions.is_dir()):
        return folder
    name = current.read_text(encoding="utf-8", errors="replace").strip()
    if not name.isdigit() or not (versions / name).is_dir():
        raise DataError(
            f"{current}: no version '{name[:40]}'", "the name of a folder in versions", "tunesmith data use"
        )
    return versions / name


def kept_apart(entries: Iterable[str], part: str) -> list[str]:
    """Of these entries the data sets of the desk that have rows of this split, which the desk made."""
    found = []
    for entry in entries:
        path = Path(parse_weight(entry)[0])
        version = current_version(path)
        if version != path and any(version.glob(f"{part}.*")):
            found.append(str(path))
    return found


def _files_of(folder: Path, name: str | None, part: str) -> list[Source]:
    if not folder.is_dir():  # a file of a hub data set
        return [Source(str(folder))]
    if (folder / "dataset_dict.json").is_file():
        splits = _listed(folder / "dataset_dict.json", "splits", str)
        _check_inside(folder / "dataset_dict.json", "splits", splits)
        return _saved(folder / _choose(str(folder), splits, name, part), None)
    if (folder / "state.json").is_file():
        return _saved(folder, name)
    return _plain(folder, name, part)


# Saved by Hugging Face datasets --------------------------------------------------------------------------


def _saved(folder: Path, name: str | None) -> list[Source]:
    """The .arrow files that state.json lists."""
    path = folder / "state.json"
    state = _json(path)
    if name is not None and name != state.get("_split"):
        raise DataError(
            f"{folder}: no split '{name}'", f"its split '{state.get('_split')}'", "leave the # out"
        )
    if state.get("_indices_data_files") or state.get("_indices_files"):
        fix = "save it again after flatten_indices()"
        raise DataError(
            f"{path}: '_indices_data_files': rows are chosen by another file", "the rows alone", fix
        )
    files = _listed(path, "_data_files", dict)
    names = [str(file.get("filename")) for file in files]
    _check_inside(path, "_data_files", names)
    return [Source(str(folder / name)) for name in names]


def _check_inside(path: Path, key: str, names: list[str]) -> None:
    if any(Path(name).name != name for name in names):
        raise DataError(f"{path}: '{key}' names something outside its folder", "names of what lies in it")


def _listed(path: Path, key: str, kind: type) -> list[Any]:
    value = _json(path).get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, kind) for item in value):
        raise DataError(
            f"{path}: '{key}' is not as Hugging Face datasets writes it", fix="save the data set again"
        )
    return value


def _json(path: Path) -> dict[str, Any]:
    with open_regular(path) as stream:
        raw = stream.read(dataset_info.MAX_BYTES)
    try:
        return parse_object(raw.decode("utf-8"))
    except (RowError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", "a JSON object") from None


# Folders of files ----------------------------------------------------------------------------------------


def _plain(folder: Path, name: str | None, part: str) -> list[Source]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return _of_a_split(str(folder), sorted(one for one in found if is_of_rows(one)), name, part)


def _packed(archive: Path, member: str, name: str | None, part: str) -> list[Source]:
    """The files of an archive, or of a folder in it, or one of them."""
    found = sorted(archives.unpacked(archive, is_of_rows))
    if member in found and name is None:
        return [Source(f"{archive}/{member}")]
    inside = [one.removeprefix(f"{member}/") for one in found if not member or one.startswith(f"{member}/")]
    if member and not inside:
        raise DataError(f"{archive}/{member}: no such member", near_miss(member, found), "correct the path")
    return _of_a_split(f"{archive}/{member}".rstrip("/"), inside, name, part)


def _stored(address: str, part: str) -> list[Source]:
    """The files of an object store: one, those that fit a pattern, or a folder's."""
    before, _, name = address.partition("#")
    found = stores.listed(before)
    if found is None:
        if name:
            raise DataError(f"{address}: '#{name}' after a file", "a folder before #", f"write {before}")
        return [Source(before)]
    if _WILD.search(before.partition("://")[2]):
        return [Source(one) for one in found]
    folder = before.rstrip("/")
    inside = sorted(one.removeprefix(f"{folder}/") for one in found)
    return _of_a_split(folder, [one for one in inside if is_of_rows(one)], name or None, part)


def _of_a_split(where: str, files: list[str], name: str | None, part: str) -> list[Source]:
    """Of files by their names in a folder those of the split that is asked for."""
    if not files:
        raise DataError(f"{where}: no file of rows in it", f"files ending in {', '.join(ENDINGS)}")
    splits: dict[str, list[str]] = {}
    for file in files:
        for split in _splits_in(file):
            splits.setdefault(split, []).append(file)
    if name is not None or splits:
        files = splits[_choose(where, list(splits), name, part)]
    paths = [PurePosixPath(file) for file in files]
    folders = {f"{where}/{path.parent}".removesuffix("/.") for path in paths}
    for what, found in (("folders", folders), ("kinds", {ending_of(path) for path in paths})):
        if len(found) > 1:
            raise DataError(
                f"{where}: rows in files of several {what}: {' and '.join(sorted(found)[:4])}",
                "files that hold one data set once",
                "name one folder, or the files",
            )
    return [Source(f"{where}/{file}") for file in files]


def _splits_in(path: str) -> list[str]:
    """The split that a file's name, or else one of its folders, names as a word: [] or one."""
    for piece in reversed(path.lower().split("/")):
        words = re.split(r"[-._ ]+", piece)
        if found := [split for split, names in SPLITS.items() if any(name in words for name in names)]:
            return found[:1]
    return []


def _choose(what: str, splits: list[str], name: str | None, part: str) -> str:
    """The split that is asked for: by name, else by part (also under a usual other name), else the only one."""
    if name is not None:
        if name not in splits:
            raise DataError(
                f"{what}: no split '{name}'", near_miss(name, splits) if splits else "it has none"
            )
        return name
    if found := [split for split in SPLITS.get(part, ()) if split in splits] or (
        splits if len(splits) == 1 else []
    ):
        return found[0]
    fix = f"write {what}#<split>"
    raise DataError(
        f"{what}: has the splits {', '.join(splits)}", f"one called {part}" if part else "one split", fix
    )


# The hub -------------------------------------------------------------------------------------------------


def _from_hub(address: str) -> tuple[Path, str | None]:
    """The folder (or file) of a hub data set in the hub's cache, and the split that the address names.

    Downloads files of rows only: nothing that runs or unpickles.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    found = _HUB.fullmatch(address)
    if found is None:
        raise DataError(
            f"{address}: no hub data set", "hub:owner/name@revision/folder#split, the last three optional"
        )
    repository, revision, inside, split = found[1], found[2], found[3].strip("/"), found[4]
    if ".." in inside.split("/"):
        raise DataError(f"{address}: leads out of the data set", "a folder or file in it")
    patterns = [
        f"{inside}/*{ending}{gz}" if inside else f"*{ending}{gz}"
        for ending in ENDINGS
        for gz in ("", *PACKED)
    ]
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[*patterns, *([inside] if inside else [])],
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"the data set '{repository}' is not to be had from the hub ({type(error).__name__})",
            "a data set of the hub, or one that is in its cache here",
            "check the name and the connection; unset HF_HUB_OFFLINE to allow downloads, or name a folder",
        ) from error
    path = Path(folder) / inside
    if not path.exists():
        raise DataError(
            f"{address}: no '{inside}' with files of rows in it", "a folder or file of the data set"
        )
    return path, split
