"""The command line: `tunesmith VERB`. Each verb has its file; whatever is heavy is imported inside its function."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tunesmith.cli import compare, config, data, evaluate, export, predict, quickstart, resume, runs, train
from tunesmith.errors import TunesmithError

app = typer.Typer(
    help="Turn a general language model into a specialist on your own data, and prove that it got better.",
    epilog="Start with: tunesmith quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(quickstart.quickstart)
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(resume.resume)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(predict.predict)
app.add_typer(runs.app, name="runs")
app.command()(export.export)
app.add_typer(config.app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        import tunesmith

        print(f"tunesmith {tunesmith.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; errors meant for people are shown without a traceback, others keep theirs."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="tunesmith")
    except TunesmithError as error:
        from tunesmith.cli.output import show_error

        show_error(error, as_json="--json" in given)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
