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


def model_card(report: Report, folder: str = "model") -> str:
    """The card's text. folder: where the model lies, as the loading examples name it."""
    front = yaml.safe_dump(front_matter(report), sort_keys=False, allow_unicode=True)
    body = environment(html=False).get_template("card.md.j2").render(view(report), folder=folder)
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
        front["base_model_relation"] = "adapter" if model.kind == "lora" else "finetune"
    front["library_name"] = "peft" if model.kind == "lora" else "transformers"
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["tunesmith", "lora" if model.kind == "lora" else "full-parameter", report.task]
    tuned = next((s for s in report.systems if s.name == "tuned"), None)
    if tuned is not None:
        metrics = [
            {"type": name, "value": round(m.value, 6)}
            for name, m in tuned.metrics.items()
            if math.isfinite(m.value)
        ]
        result = {
            "task": {"type": "text-generation"},
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
