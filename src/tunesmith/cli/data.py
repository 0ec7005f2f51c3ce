"""`tunesmith data`: the desk, where rows are looked at, cleaned, protected and split before a model sees them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tunesmith.cli import audit, looking, quality, synth
from tunesmith.cli.arguments import files_and_settings
from tunesmith.cli.options import DryRun, FilesAndSettings, Json, Quiet, VersionFolder
from tunesmith.embedded import BASE_MODEL
from tunesmith.errors import ConfigError

if TYPE_CHECKING:
    from tunesmith.config.desk import Desk
    from tunesmith.desk.finding import Names
    from tunesmith.desk.meaning import Embed

app = typer.Typer(
    help="Look at rows, clean, de-duplicate and split them; every version of a data set stays, with its reasons.",
    no_args_is_help=True,
)

Ray: TypeAlias = Annotated[
    str | None,
    typer.Option("--ray", metavar="HOST:PORT", help="Ray cluster that does the work.", show_default=False),
]
Folder: TypeAlias = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of a data set.")]


app.command()(looking.inspect)


@app.command()
def make(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE [KEY=VALUE]...", help="A recipe of the desk (YAML), and settings."),
    ],
    output: VersionFolder = None,
    inspect: Annotated[
        bool,
        typer.Option(
            "--inspect", help="Also say what the rows were, as `inspect` does; a page lies in the version."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="With --inspect: whose tokens are counted.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    ray: Ray = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out every step of a recipe and add a version to its data set."""
    from tunesmith.cli.arguments import split_arguments

    recipe, overrides = split_arguments(arguments)
    if model is not None and not inspect:
        raise ConfigError(
            "--model without --inspect", "tokens are counted by --inspect alone", "add --inspect"
        )
    options: dict[str, tuple[str, Any]] = {"output": ("--output", output), "ray": ("--ray", ray)}
    asked = (model or BASE_MODEL) if inspect else None
    _carried_out(recipe, overrides, options, dry_run, as_json, quiet, inspect=asked)


def _one_step(name: str, help_text: str) -> None:
    @app.command(name=name, help=help_text)
    def step(
        arguments: FilesAndSettings,
        output: VersionFolder = None,
        dry_run: DryRun = False,
        ray: Ray = None,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        files, overrides = files_and_settings(arguments, f"tunesmith data {name} rows.jsonl -o dataset")
        if output is None and not dry_run:
            raise ConfigError(
                "nothing says where to write", "--output FOLDER, or --dry-run to look", "add -o dataset"
            )
        values: dict[str, tuple[str, Any]] = {
            "data.train": ("FILE", files),
            "output": ("--output", output),
            "ray": ("--ray", ray),
            name: (f"data {name}", {}),
        }
        _carried_out(None, overrides, values, dry_run, as_json, quiet)


_one_step("clean", "Mend texts (encoding, HTML, white space …) and drop rows that teach nothing.")
_one_step("scrub", "Replace personal data (see `kinds`) by masks, keyed hashes or invented values.")
_one_step("dedup", "Drop rows that repeat others, exactly or nearly, or that evaluations ask for.")
_one_step("split", "Make train, validation and test, with rows that belong together on one side.")


def _carried_out(
    recipe: Path | None,
    overrides: list[str],
    options: dict[str, tuple[str, Any]],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    inspect: str | None = None,
) -> None:
    """inspect: the model whose tokens are counted of the rows as they were read."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.progress import progress
    from tunesmith.config.load import load_desk
    from tunesmith.desk.make import make as make_version

    given = {key: (value, option) for key, (option, value) in options.items() if value is not None}
    desk = load_desk(recipe, overrides, given)
    if not (desk.data.train or desk.data.validation or desk.data.test):
        raise ConfigError("the recipe names no rows", "data.train", "data.train=rows.jsonl")
    if inspect is not None and desk.ray is not None:
        raise ConfigError(
            f"--inspect, and ray={desk.ray}",
            "rows that are inspected on this machine",
            "leave one of them out",
        )
    with progress(quiet) as sink:
        inspecting = None if inspect is None else partial(work.inspecting, inspect, sink)
        made = make_version(
            desk, sink, dry_run=dry_run, names=_names(desk), embed=_embed(desk), inspecting=inspecting
        )
    out.show(made, as_json)


def _names(desk: Desk) -> Names | None:
    if desk.scrub is None or desk.scrub.names_model is None:
        return None
    from tunesmith.workflow.names import names_of

    return names_of(desk.scrub.names_model)


def _embed(desk: Desk) -> Embed | None:
    if desk.dedup is None or desk.dedup.meaning is None:
        return None
    from tunesmith.workflow.meaning import meanings_of

    return meanings_of(desk.dedup.meaning.encoder)


@app.command()
def kinds(as_json: Json = False) -> None:
    """List the kinds of personal data that scrubbing looks for."""
    from tunesmith.cli import output as out
    from tunesmith.desk.kinds import KINDS

    columns = ["kind", "what", "found by", "checked by", "needs a word nearby"]
    rows = [[one.name, one.what, one.by, one.check, one.needs] for one in KINDS.values()]
    if as_json:
        out.show_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        out.show_table(columns, rows)


app.command()(looking.diff)
app.command()(looking.show)
app.command()(quality.quality)
app.command()(quality.review)
app.command()(audit.audit)
app.command()(synth.synth)
app.command()(synth.augment)


@app.command()
def versions(data_set: Folder, as_json: Json = False) -> None:
    """List the versions of a data set: when each was made, by which steps, and its rows."""
    from tunesmith.cli import output as out
    from tunesmith.desk.versions import DataSet

    found = DataSet(data_set)
    current = found.version().number
    facts = [
        {
            "version": one.number,
            "current": one.number == current,
            "made": (manifest := one.manifest)["made"],
            "steps": [step["step"] for step in manifest["steps"]],
            "rows": manifest["rows"],
        }
        for one in found.versions()
    ]
    if as_json:
        out.show_json(facts)
        return
    rows = [
        [
            f"{one['version']}{' *' if one['current'] else ''}",
            one["made"],
            ", ".join(one["steps"]),
            ", ".join(f"{split} {count:,}" for split, count in one["rows"].items()),
        ]
        for one in facts
    ]
    out.show_table(["version", "made", "steps", "rows"], rows)


@app.command()
def restore(
    data_set: Folder,
    target: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="JSON Lines to write.")],
    number: Annotated[
        int | None,
        typer.Option("--version", min=1, help="Which; default: the current one.", show_default=False),
    ] = None,
) -> None:
    """Write the rows as they were read, before any step: nothing that the desk does is lost."""
    import json

    from tunesmith.cli import output as out
    from tunesmith.desk.originals import restored
    from tunesmith.desk.versions import DataSet

    rows = restored(DataSet(data_set).version(number))
    out.write(target, (json.dumps(values, ensure_ascii=False) + "\n" for _, values in rows))


@app.command()
def use(
    data_set: Folder,
    number: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version to use from now on.")],
) -> None:
    """Make another version the current one, which training reads."""
    from tunesmith.data.folders import CURRENT
    from tunesmith.desk.versions import DataSet
    from tunesmith.storage import write_whole

    found = DataSet(data_set)
    write_whole(found.folder / CURRENT, f"{found.version(number).number:04d}\n")
