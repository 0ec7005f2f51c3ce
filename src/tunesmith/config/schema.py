"""The recipe's JSON schema (for editors) and its reference page, both from the configuration classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith.config.explain import scalar
from tunesmith.config.fields import Key, allowed, inside, keys
from tunesmith.config.peers import PEERS
from tunesmith.config.run import Run
from tunesmith.config.section import Section

INTRODUCTION = """\
# Configuration

Every key of a recipe. This page is generated: `tunesmith config docs > docs/configuration.md`.

A recipe is YAML (`tunesmith train recipe.yaml`); every key may be left out, and `key=value` on the command
line changes one: `tunesmith train recipe.yaml train.epochs=2 data.train='[a.jsonl, b.jsonl]'`. A list is
replaced, not added to. Where a key is said more than once, the later wins: the recipe, then options such as
`--model`, then `key=value`.

- A key left at `null` or `auto` is chosen from the model, the method and the data:
  `tunesmith train recipe.yaml --dry-run` and a run's `config.yaml` show every value with its reason;
  `tunesmith config show recipe.yaml` only checks a recipe and shows it whole, without looking at either.
- Unknown keys are errors, with a suggestion.
- Relative paths are relative to the folder the command is started in, not to the recipe.
- YAML 1.2: `no` and `on` are text, `1e-4` is a number. Anchors, tags and duplicate keys are refused.
- An editor completes and checks recipes with the schema: `tunesmith config schema > tunesmith.schema.json`
  and `# yaml-language-server: $schema=tunesmith.schema.json` as a recipe's first line.
"""


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) with every field's description and bounds."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tunesmith recipe"} | {
        key: value for key, value in Run.model_json_schema().items() if key != "title"
    }


def docs() -> str:
    """The reference page, in Markdown."""
    sections = [""] + [path for path, key in keys().items() if key.sections]
    parts = [
        INTRODUCTION,
        *("\n".join(_section(path)) + "\n" for path in sections),
        "\n".join(_peers()) + "\n",
    ]
    return "\n".join(parts)


def _section(path: str) -> Iterator[str]:
    yield f"## `{path}`" if path else "## Top level"
    yield ""
    for section in keys()[path].sections if path else ():
        yield _about(section, keys()[path])
        yield ""
    yield "| key | default | value | meaning |"
    yield "|---|---|---|---|"
    for name, key in inside(path).items():
        if key.sections:
            link = key.path.replace(".", "")
            value = f"[section](#{link})" + (" or null" if key.nullable else "")
            yield _row(name, "", value, key.types, key.description)
            continue
        for types, meant in _meanings(key):
            yield _row(name, f"`{scalar(meant.default)}`", allowed(meant.node), types, meant.description)


def _meanings(key: Key) -> list[tuple[tuple[str, ...], Key]]:
    """The key once for each thing that it means, with the types that mean that by it."""
    found: list[tuple[tuple[str, ...], Key]] = []
    for kind, own in key.of.items():
        same = next((i for i, (_, other) in enumerate(found) if other == own), None)
        if same is None:
            found.append(((kind,), own))
        else:
            found[same] = ((*found[same][0], kind), own)
    return found or [(key.types, key)]


def _row(name: str, default: str, value: str, types: tuple[str, ...], description: str) -> str:
    only = f"({', '.join(types)}) " if types else ""
    return f"| `{name}` | {default} | {_cell(value)} | {only}{_cell(description)} |"


def _about(section: type[Section], key: Key) -> str:
    about = " ".join((section.__doc__ or "").split())
    if len(key.sections) > 1:
        return f"`type: {section.model_fields['type'].default}`: {about}"
    return about if key.description.rstrip(".") in about else f"{about} {key.description}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _peers() -> Iterator[str]:
    yield "## Coming from another tool"
    yield ""
    yield "| there | here |"
    yield "|---|---|"
    for target in dict.fromkeys(PEERS.values()):
        names = ", ".join(f"`{name}`" for name, ours in PEERS.items() if ours == target)
        yield f"| {names} | `{target}` |"
