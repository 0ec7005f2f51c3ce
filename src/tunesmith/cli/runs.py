"""`tunesmith runs`: what run folders say, without loading a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import Json

if TYPE_CHECKING:
    from tunesmith.cli.run_folders import RunFolder

app = typer.Typer(help="Runs: list them, look at one.", no_args_is_help=True)


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="The folder that holds the runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder."""
    from tunesmith.cli.output import show_json, show_table
    from tunesmith.cli.run_folders import list_runs

    found = list_runs(folder)
    if as_json:
        show_json([run.as_dict() for run in found])
        return
    show_table(
        ["run", "status", "step", "base", "tuning", "best on validation"], [_row(run) for run in found]
    )


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="A run's folder, e.g. runs/tickets.")],
    as_json: Json = False,
) -> None:
    """Show one run: its state, its settings and its results."""
    from tunesmith.cli.output import printable, show_json
    from tunesmith.cli.run_folders import read_run

    run = read_run(folder)
    if as_json:
        show_json(run.as_dict())
        return
    print(printable("\n".join(_page(run))))


def _row(run: RunFolder) -> list[str]:
    tuning = run.setting("method.tuning")
    return [
        run.name,
        run.status,
        _steps(run),
        str(run.setting("model.base") or ""),
        str(tuning or ""),
        _best(run),
    ]


def _steps(run: RunFolder) -> str:
    return f"{run.step}/{run.total}" if run.total else str(run.step)


def _best(run: RunFolder) -> str:
    from tunesmith.cli.progress import metrics_text

    return metrics_text(run.best["metrics"]) if run.best else ""


def _page(run: RunFolder) -> Iterator[str]:
    yield f"{run.name}: {run.status}, step {_steps(run)}"
    if run.best:
        yield f"best step {run.best['step']}: {_best(run)}"
    if run.damaged:
        yield f"{run.damaged} damaged lines in events.jsonl were left out"
    for key in (
        "model.base",
        "data.train",
        "method.type",
        "method.tuning",
        "train.learning_rate",
        "train.epochs",
    ):
        yield f"{key}: {run.setting(key)}"
    if run.metrics:
        yield "results (report/metrics.json):"
        yield from (f"  {name}: {value}" for name, value in _flat(run.metrics, ""))
    if (run.path / "report" / "report.html").is_file():
        yield f"report: {run.path / 'report' / 'report.html'}"


def _flat(metrics: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Single values under dotted names; lists, such as curves and confusion tables, are left to the report."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield prefix + name, f"{value:.4g}" if isinstance(value, float) else value
