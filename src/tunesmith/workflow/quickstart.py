"""Everything once, offline: the embedded model learns to turn a support ticket into JSON."""

from __future__ import annotations

from pathlib import Path

from tunesmith.config.run import DataConfig, EvaluateConfig, ModelConfig, Run, TrainConfig
from tunesmith.embedded import tickets
from tunesmith.train.trial import Child
from tunesmith.types import EventSink
from tunesmith.workflow.finish import Result
from tunesmith.workflow.train import train

NEXT = """
Next:
  answer new tickets   tunesmith predict {folder} tickets.jsonl -o answers.jsonl
  your own rows        tunesmith train --data rows.csv
  what can be set      tunesmith config show {folder}/config.yaml
  an adapter instead   tunesmith train {folder}/config.yaml name=lora method.tuning=lora \\
                         train.learning_rate=null train.optimizer_state=null"""


def recipe(output: Path, seed: int) -> Run:
    """The recipe of the quickstart, as anyone could write it."""
    return Run(
        name="quickstart",
        output=str(output),
        seed=seed,
        data=DataConfig(
            train=[str(tickets("train"))],
            validation=[str(tickets("validation"))],
            test=[str(tickets("test"))],
            columns={"prompt": "text"},
            json_fields=["intent", "urgency"],
            instruction="Ticket as JSON:",
        ),
        model=ModelConfig(base="tunesmith/base-8m"),
        train=TrainConfig(
            epochs=1, learning_rate=1.5e-3, batch_size=16, order="given", eval_every=109, eval_generate=32
        ),
        evaluate=EvaluateConfig(max_new_tokens=40),
    )


def quickstart(output: Path, *, seed: int = 0, sink: EventSink, trial: Child | None = None) -> Result:
    """Run the recipe; a quickstart that was run before is replaced. trial: as of `train`."""
    result = train(recipe(output, seed), sink=sink, resume=False, trial=trial)
    result.text += NEXT.format(folder=result.folder)
    return result
