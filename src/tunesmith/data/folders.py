"""What `data.train` and its kin name -> files of rows: a file, a folder, a saved data set, a hub data set.

| written | is |
|---|---|
| `rows.jsonl` | a file; see `readers` |
| `folder`, `folder#split` | its files of rows; of files that are named for a split, those of the split |
| the same, a data set of the desk | its current version |
| the same, saved by Hugging Face `datasets` | the .arrow files that its state.json lists; of a dictionary, a split's |
| `dataset_info.json#name`, `folder#name` | a data set that LLaMA-Factory's description names; see `dataset_info` |
| `hub:owner/name@revision/folder#split` | files of rows of a hub data set, downloaded, then read as a folder |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.data import dataset_info
from tunesmith.data.columns import Mapping
from tunesmith.data.mixing import parse_weight
from tunesmith.data.readers import ENDINGS, ending_of
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
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True)
class Source:
    """One file of rows. mapping: what a description says of its columns. described_by: that description's file."""

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
        address, weight = parse_weight(entry)
        if weight != 1 and part != "train":
            where = f"data.{part}" if part else "rows that are scored"
            raise DataError(
                f"{entry}: a weight on {where}", "weights on data.train alone", f"write {address}"
            )
        found += [replace(source, weight=weight) for source in _located(address, part)]
    for source in found:
        if sum(other.file == source.file for other in found) > 1:
            raise DataError(
                f"{source.file} is listed twice", fix="name each file once; *2 after it repeats its rows"
            )
    return found


def absolute(entry: str) -> str:
    """The entry with its path made absolute, where it is there; a weight and a split stay."""
    if entry.startswith(HUB):
        return entry
    address = _path_of(entry)
    path = Path(address).expanduser()
    return f"{path.resolve()}{entry.removeprefix(address)}" if path.exists() else entry


def missing(entries: Iterable[str]) -> list[str]:
    """The entries whose file or folder is not on this machine (hub data sets are never said to be missing)."""
    return [entry for entry in entries if not entry.startswith(HUB) and not Path(_path_of(entry)).exists()]


def _path_of(entry: str) -> str:
    address, _ = parse_weight(entry)
    return address if Path(address).expanduser().exists() else address.rpartition("#")[0] or address


def _located(address: str, part: str) -> list[Source]:
    path = Path(address)
    name: str | None = None
    if address.startswith(HUB):
        return _found(address, None, part)
    if not path.exists() and "#" in address:
        before, _, after = address.rpartition("#")
        path, name = Path(before), after
    if path.is_dir() and (path / dataset_info.NAME).is_file() and not (path / "state.json").exists():
        path = path / dataset_info.NAME
    if path.name == dataset_info.NAME and path.is_file():
        info = dataset_info.described(path, name)
        files = _found(info.address, None, part)
        return [replace(file, mapping=info.mapping, described_by=str(path)) for file in files]
    if name is not None and path.is_file():
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
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and ending_of(path) in ENDINGS and path.name not in NOT_ROWS
        if not any(piece.startswith(".") for piece in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder}: no file of rows in it", f"files ending in {', '.join(ENDINGS)}")
    splits: dict[str, list[Path]] = {}
    for path in files:
        for split in _splits_in(path.relative_to(folder).as_posix()):
            splits.setdefault(split, []).append(path)
    if name is not None or splits:
        files = splits[_choose(str(folder), list(splits), name, part)]
    for what, found in (("folders", {p.parent for p in files}), ("kinds", {ending_of(p) for p in files})):
        if len(found) > 1:
            listed = " and ".join(sorted(str(one) for one in found)[:4])
            raise DataError(
                f"{folder}: rows in files of several {what}: {listed}",
                "files that hold one data set once",
                "name one folder, or the files",
            )
    return [Source(str(path)) for path in files]


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
        f"{inside}/*{ending}{gz}" if inside else f"*{ending}{gz}" for ending in ENDINGS for gz in ("", ".gz")
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
