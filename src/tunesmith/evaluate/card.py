"""The model card: README.md beside the weights, YAML front matter and Markdown, from the report."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from tunesmith.evaluate.report_html import environment, view
from tunesmith.evaluate.report_model import Report

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

HEADS = {
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "PooledHead": ("", "text-classification"),
}
"""End of an architecture's name -> the class that loads it (none: not one of transformers'), and what hubs call it."""


def head_of(report: Report) -> str:
    """Which of HEADS the model has; empty for one that writes text."""
    return next((end for end in HEADS if report.model.architecture.endswith(end)), "")


def model_card(report: Report, folder: str = "model") -> str:
    """The card's text. folder: where the model lies, as the loading examples name it."""
    front = yaml.safe_dump(front_matter(report), sort_keys=False, allow_unicode=True)
    body = (
        environment(html=False)
        .get_template("card.md.j2")
        .render(
            view(report), folder=folder, head=head_of(report), loader=HEADS.get(head_of(report), ("", ""))[0]
        )
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
    front["pipeline_tag"] = HEADS.get(head_of(report), ("", "text-generation"))[1]
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
