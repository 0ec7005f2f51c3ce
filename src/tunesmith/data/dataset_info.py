"""LLaMA-Factory's `dataset_info.json`: data sets by name, each a file and what its columns and tags mean.

The description alone decides: columns it does not name are not read, and a key that cannot be carried out is
refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.columns import Kind
from tunesmith.data.columns import Mapping as ColumnMapping
from tunesmith.data.peer_formats import CALL, USUAL, Turns
from tunesmith.data.sources import open_regular
from tunesmith.data.strict_json import parse_object
from tunesmith.errors import DataError, RowError, near_miss

NAME = "dataset_info.json"
MAX_BYTES = 16 * 2**20

KEYS = {"file_name", "hf_hub_url", "formatting", "ranking", "columns", "tags", "folder", "split", "revision"}
OTHER_HUBS = {"ms_hub_url", "om_hub_url"}  # the same data elsewhere, not needed beside a file or a hub id
NOT_CARRIED_OUT = {
    "script_url": "scripts are never run: export the rows as JSON Lines and name them in file_name",
    "cloud_file_name": "download the file and name it in file_name",
    "subset": "name its folder on the hub in folder",
    "num_samples": "leave it out, and write a weight, such as data.train=dataset_info.json#name*0.5",
}
# Their column -> the part it plays here. Those of media are refused.
JUDGED = {"chosen": "chosen", "rejected": "rejected", "kto_tag": "label"}
PARTS = {
    "alpaca": {
        "prompt": "prompt",
        "query": "input",
        "response": "completion",
        "history": "history",
        "system": "system",
        "tools": "tools",
        **JUDGED,
    },
    "sharegpt": {"messages": "messages", "system": "system", "tools": "tools", **JUDGED},
}
DEFAULTS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
REFUSED_COLUMNS = {
    "images": "only text is read",
    "videos": "only text is read",
    "audios": "only text is read",
}
TAG_KEYS = {"role_tag": ("role", "from"), "content_tag": ("content", "value")}
TAG_ROLES = {
    "user_tag": ("user", "human"),
    "assistant_tag": ("assistant", "gpt"),
    "observation_tag": ("tool", "observation"),
    "function_tag": (CALL, "function_call"),
    "system_tag": ("system", "system"),
}


@dataclass(frozen=True)
class Described:
    """One data set. address: a path beside the description, or `hub:…`. what: 'dataset_info.json#name'."""

    what: str
    address: str
    mapping: ColumnMapping


def described(path: Path, name: str | None) -> Described:
    """The data set `name` of the file at `path` (None: its only one); raises DataError for what it cannot be."""
    sets = _read(path)
    for key, value in sets.items():
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: '{key}' is a {type(value).__name__}",
                "data sets by name, as LLaMA-Factory describes them",
                "correct it, or name the files of rows themselves",
            )
    if name is None and len(sets) != 1:
        listed = ", ".join(list(sets)[:8])
        raise DataError(
            f"{path}: describes {len(sets)} data sets: {listed}", "one of them", f"write {path}#<name>"
        )
    name = name if name is not None else next(iter(sets))
    if name not in sets:
        raise DataError(f"{path}: describes no '{name}'", near_miss(name, sets))
    what, entry = f"{path}#{name}", sets[name]
    _check_keys(what, entry)
    return Described(what, _address(what, path.parent, entry), _mapping(what, entry))


def _read(path: Path) -> dict[str, Any]:
    with open_regular(path) as stream:
        raw = stream.read(MAX_BYTES + 1)
    try:
        if len(raw) > MAX_BYTES:
            raise RowError("too_long", f"more than {MAX_BYTES // 2**20} MiB")
        return parse_object(raw.decode("utf-8"))
    except (RowError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", "a JSON object of data sets by name") from None


def _check_keys(what: str, entry: Mapping[str, Any]) -> None:
    for key, value in entry.items():
        if key in NOT_CARRIED_OUT and value:
            raise DataError(
                f"{what}: '{key}' is not carried out", "file_name or hf_hub_url", NOT_CARRIED_OUT[key]
            )
        if key not in KEYS | OTHER_HUBS | NOT_CARRIED_OUT.keys():
            raise DataError(
                f"{what}: unknown key '{key}'", near_miss(key, KEYS), "correct it or leave it out"
            )
    if not isinstance(entry.get("ranking") or False, bool):
        raise DataError(f"{what}: 'ranking' is a {type(entry['ranking']).__name__}", "true or false")
    if entry.get("formatting", "alpaca") not in ("alpaca", "sharegpt", "openai"):
        raise DataError(f"{what}: formatting '{entry['formatting']}'", "alpaca, sharegpt or openai")


def _address(what: str, folder: Path, entry: Mapping[str, Any]) -> str:
    hub = _text(what, entry, "hf_hub_url")
    for key in ("folder", "split", "revision"):
        if entry.get(key) and not hub:
            raise DataError(f"{what}: '{key}' without hf_hub_url", "a hub data set for it", "leave it out")
    if hub:
        parts = [("@", "revision"), ("/", "folder"), ("#", "split")]
        return f"hub:{hub}" + "".join(
            mark + value for mark, key in parts if (value := _text(what, entry, key))
        )
    file = _text(what, entry, "file_name")
    if not file:
        missing = ", ".join(sorted(entry.keys() & OTHER_HUBS)) or "nothing"
        raise DataError(f"{what}: names no file_name (but {missing})", "file_name or hf_hub_url")
    return str(folder / file)


def _text(what: str, table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{what}: '{key}' is a {type(value).__name__}", "text")
    return value or ""


def _table(what: str, entry: Mapping[str, Any], key: str, known: Iterable[str]) -> dict[str, str] | None:
    """`columns` or `tags`: names, each with a text; null means not said."""
    table = entry.get(key)
    if table is None:
        return None
    if not isinstance(table, dict):
        raise DataError(f"{what}: '{key}' is a {type(table).__name__}", "an object of names")
    for name in table:
        if name not in known:
            raise DataError(
                f"{what}: unknown key '{key}.{name}'", near_miss(name, known), "correct it or leave it out"
            )
    return {name: text for name in table if (text := _text(f"{what}.{key}", table, name))}


def _mapping(what: str, entry: Mapping[str, Any]) -> ColumnMapping:
    style = "alpaca" if entry.get("formatting", "alpaca") == "alpaca" else "sharegpt"
    parts = PARTS[style]
    # As there: a description with columns has those alone, one without has the usual ones.
    columns = _table(what, entry, "columns", (*parts, *REFUSED_COLUMNS))
    columns = DEFAULTS[style] if columns is None else columns
    for name, why in REFUSED_COLUMNS.items():
        if name in columns:
            raise DataError(f"{what}: 'columns.{name}': {why}", "answers of text", "leave it out")
    found = {parts[name]: column for name, column in columns.items()}
    tags = _table(what, entry, "tags", (*TAG_KEYS, *TAG_ROLES))
    if style == "alpaca":
        if tags:
            raise DataError(
                f"{what}: 'tags' beside the formatting alpaca", "formatting sharegpt", "leave tags out"
            )
        if set(found) == {"prompt"}:  # pre-training: only a prompt, which is the text
            return ColumnMapping("text", {"text": found["prompt"]})
    kind = _kind(what, style, columns, bool(entry.get("ranking")))
    if kind == "preference":
        found.pop("completion", None)  # as there: of compared rows the response is not read
    return ColumnMapping(kind, found, turns=_turns(tags or {}) if style == "sharegpt" else USUAL)


def _kind(what: str, style: str, columns: Mapping[str, str], ranking: bool) -> Kind:
    """What the rows are; raises DataError where `columns` lacks one that they need, or names one of another kind."""
    for name in ("kto_tag",) if ranking else ("chosen", "rejected"):
        if name in columns:
            raise DataError(
                f"{what}: 'columns.{name}' with ranking: {str(ranking).lower()}",
                "chosen and rejected with ranking: true, kto_tag without",
                f"leave it out, or write ranking: {str(not ranking).lower()}",
            )
    needed = ["prompt"] if style == "alpaca" else ["messages"]
    if ranking:
        needed += ["chosen", "rejected"]
    elif style == "alpaca":
        needed.append("response")
    for name in needed:
        if name not in columns:
            raise DataError(
                f"{what}: 'columns' names no {name}", f"columns.{name}", f"name its column in columns.{name}"
            )
    if ranking:
        return "preference"
    if "kto_tag" in columns:
        return "unpaired"
    return "prompt" if style == "alpaca" else "messages"


def _turns(tags: Mapping[str, str]) -> Turns:
    if not tags:
        return USUAL
    keys = {part: tags.get(tag, usual) for tag, (part, usual) in TAG_KEYS.items()}
    roles = {tags.get(tag, usual): role for tag, (role, usual) in TAG_ROLES.items()}
    return Turns(keys, roles)
