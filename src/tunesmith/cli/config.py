"""`tunesmith config`: the recipe's schema, its reference page, and a recipe checked and shown whole."""

from __future__ import annotations

import sys

import typer

from tunesmith.cli.options import Json, RecipeAndOverrides

app = typer.Typer(help="Recipes: their schema, their documentation, and what one says.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from tunesmith.cli.output import show_json
    from tunesmith.config.schema import json_schema

    show_json(json_schema())


@app.command()
def docs() -> None:
    """Print the reference page of every key, in Markdown."""
    from tunesmith.config import schema

    print(schema.docs(), end="")


@app.command()
def show(arguments: RecipeAndOverrides = None, as_json: Json = False) -> None:
    """Check a recipe and print every key, its value and why. Where the rows can be read, defaults are worked out
    from them and from the model; else the rule stands in the value's place."""

    from tunesmith.cli import work
    from tunesmith.cli.arguments import run_from
    from tunesmith.cli.output import show_json
    from tunesmith.config.defaults import given
    from tunesmith.config.explain import explain
    from tunesmith.data import folders

    run = run_from(arguments or [], {})
    missing = folders.missing(run.data.train)
    if run.data.train and not missing:
        run, reasons = work.resolved(run)
    else:
        reasons = given(run)
        why = f"{missing[0]} is not here" if missing else "data.train names no file"
        print(f"{why}: rules are shown where defaults depend on the rows", file=sys.stderr)
    if as_json:
        show_json(run.model_dump(mode="json"))
    else:
        print(explain(run, reasons), end="")
