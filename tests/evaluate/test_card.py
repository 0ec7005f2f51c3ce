"""The model card: YAML that parses, words that promise no more than was measured."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml

from tests.evaluate.samples import ATTACK, bare_report, full_report
from tunesmith.evaluate.card import front_matter, model_card, write_card
from tunesmith.evaluate.report_model import Lineage, Report


def split(card: str) -> tuple[dict[str, object], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def hub_report(kind: str = "lora", licence: str = "Apache-2.0") -> Report:
    return full_report(model=Lineage(base="org/base-1b", kind=kind, base_licence=licence))  # type: ignore[arg-type]


def test_front_matter_for_an_adapter_and_for_full_weights() -> None:
    adapter, full = front_matter(hub_report()), front_matter(hub_report("full"))
    assert adapter["library_name"] == "peft"
    assert adapter["base_model"] == "org/base-1b"
    assert adapter["base_model_relation"] == "adapter"
    assert adapter["license"] == "apache-2.0"
    assert full["library_name"] == "transformers"


def test_metrics_are_those_of_the_tuned_model() -> None:
    report = hub_report()
    listed = front_matter(report)["model-index"][0]["results"][0]["metrics"]
    tuned = next(s for s in report.systems if s.name == "tuned")
    accuracy = next(m["value"] for m in listed if m["type"] == "accuracy")
    assert accuracy == round(tuned.metrics["accuracy"].value, 6) == 0.9


def test_a_head_is_loaded_as_what_it_is() -> None:
    for name, loader, tag in (
        ("BertForSequenceClassification", "AutoModelForSequenceClassification", "text-classification"),
        ("BertForTokenClassification", "AutoModelForTokenClassification", "token-classification"),
        (
            "BertModel with a linear layer on the mean of its states",
            "SentenceTransformer",
            "text-classification",
        ),
        ("BertModel with embeddings, the mean of its states", "SentenceTransformer", "sentence-similarity"),
        ("T5ForConditionalGeneration", "AutoModelForSeq2SeqLM", "text2text-generation"),
        ("LlamaForCausalLM", "AutoModelForCausalLM", "text-generation"),
    ):
        lineage = Lineage(base="org/base-1b", kind="full", architecture=name)
        front, body = split(model_card(full_report(model=lineage)))
        assert front["pipeline_tag"] == tag
        source = re.search(r"```python\n(.*?)```", body, re.DOTALL)
        assert (source is not None) == bool(loader)
        if source is not None:
            ast.parse(source.group(1))
            assert loader in source.group(1)


def test_hostile_text_leaves_the_yaml_whole() -> None:
    front, body = split(model_card(full_report()))
    assert "base_model" not in front  # not a hub id
    assert "<script" not in re.sub(r"```.*?```|`[^`\n]*`", "", body.replace(r"\`", ""), flags=re.DOTALL)
    assert front["model-index"][0]["name"] == ATTACK  # type: ignore[index]


def test_the_code_in_the_card_is_python() -> None:
    for kind in ("lora", "full"):
        body = split(model_card(hub_report(kind)))[1]
        source = re.search(r"```python\n(.*?)```", body, re.DOTALL)
        assert source is not None
        ast.parse(source.group(1))
        assert ("PeftModel" in source.group(1)) == (kind == "lora")


def test_an_unmeasured_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = write_card(bare_report(), tmp_path / "model")
    text = path.read_text()
    assert path.name == "README.md"
    assert "Its quality has not been measured." in text
    assert "Licence of the base: not known" in text
    assert str(tmp_path) not in text
    assert "model-index" not in text
