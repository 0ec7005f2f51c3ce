"""The schema and the reference page say what the configuration classes say."""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.config.fields import allowed, keys
from tunesmith.config.schema import docs, json_schema

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_current() -> None:
    committed = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert committed == docs(), "run: tunesmith config docs > docs/configuration.md"


def test_every_key_is_described_and_in_the_schema() -> None:
    schema = json_schema()
    json.dumps(schema, allow_nan=False)
    sections = {f"#/$defs/{name}": section for name, section in schema["$defs"].items()} | {"": schema}
    described = {
        (
            name,
            " ".join((field if "description" in field else sections[field["$ref"]])["description"].split()),
        )
        for section in sections.values()
        for name, field in section["properties"].items()
    }
    for key in keys().values():
        assert key.description, key.path
        assert (key.name, key.description) in described


def test_unknown_keys_are_errors_in_editors_too() -> None:
    schema = json_schema()
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False


def test_words_for_what_a_value_may_be() -> None:
    assert allowed(keys()["train.epochs"].node) == "a number above 0 or null"
    assert allowed(keys()["train.final_lr_fraction"].node) == "a number of at least 0 and of at most 1"
    assert allowed(keys()["method.tuning"].node) == (
        "one of 'full', 'lora', 'ia3', 'loha', 'vera', 'prompt', 'prefix' or null"
    )
    assert allowed(keys()["data.columns"].node) == "names, each with text"
