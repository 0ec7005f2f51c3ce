"""The model card: README.md beside the weights, YAML front matter and Markdown, from the report."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tunesmith.evaluate.report_html import environment, view
from tunesmith.evaluate.report_model import Report

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Opens(NamedTuple):
    """loader: the class that loads a whole model. task: what hubs call it. way: how the card's example goes."""

    loader: str
    task: str
    way: str


WRITES = Opens("AutoModelForCausalLM", "text-generation", "chat")
LOADERS = {
    "ForSequenceClassification": Opens("AutoModelForSequenceClassification", "text-classification", "logits"),
    "ForTokenClassification": Opens("AutoModelForTokenClassification", "token-classification", "logits"),
    "ForConditionalGeneration": Opens("AutoModelForSeq2SeqLM", "text2text-generation", "pairs"),
    "with a linear layer on": Opens("SentenceTransformer", "text-classification", "encode"),
    "with embeddings, ": Opens("SentenceTransformer", "sentence-similarity", "encode"),
}
"""What an architecture's name has in it -> how the model is opened."""


def opens(report: Report) -> Opens:
    return next((how for part, how in LOADERS.items() if part in report.model.architecture), WRITES)


def model_card(report: Report, folder: str = "model") -> str:
    """The card's text. folder: where the model lies, as the loading examples name it."""
    front = yaml.safe_dump(front_matter(report), sort_keys=False, allow_unicode=True)
    body = (
        environment(html=False)
        .get_template("card.md.j2")
        .render(view(report), folder=folder, opens=opens(report))
    )
    return f"---\n{front}---\n\n{body}"


def front_matter(report: Report) -> dict[str, Any]:
    """The keys that model hubs read. `license` is the base's, when it is known; `model-index` holds the tuned
    model's finite metrics on the test rows."""
    model = report.model
    front: dict[str, Any] = {}
    if model.base_licence:
        front["license"] = model.base_licence.lower()
    if _HUB_ID.fullmatch(model.base):
        front["base_model"] = model.base
        front["base_model_relation"] = "finetune" if model.kind == "full" else "adapter"
    front["library_name"] = "transformers" if model.kind == "full" else "peft"
    front["pipeline_tag"] = opens(report).task
    front["tags"] = ["tunesmith", "full-parameter" if model.kind == "full" else model.kind, report.task]
    tuned = next((s for s in report.systems if s.name == "tuned"), None)
    if tuned is not None:
        metrics = [
            {"type": name, "value": round(m.value, 6)}
            for name, m in tuned.metrics.items()
            if math.isfinite(m.value)
        ]
        result = {
            "task": {"type": front["pipeline_tag"]},
            "dataset": {"name": f"{report.name}, test rows", "type": "private"},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": report.name, "results": [result]}]
    return front


def write_card(report: Report, folder: str | Path) -> Path:
    """Write README.md into the model's folder; returns its path."""
    path = Path(folder) / "README.md"
    path.write_text(model_card(report, path.resolve().parent.name), encoding="utf-8")
    return path
