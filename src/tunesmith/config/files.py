"""What names files of rows: texts, and what is written in their place."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from tunesmith.config.section import Section


class Query(Section):
    """Rows of a query: the entry `sql:URL#SELECT …` in two parts."""

    sql: str
    """The query: SELECT, WITH, VALUES or TABLE."""

    url: str
    """The database, as SQLAlchemy writes it; or `$NAME`, an environment variable that holds it."""


def _entry(value: object) -> object:
    """A query as the one text that names it; anything else as it is."""
    if not isinstance(value, dict) or not value.keys() & Query.model_fields.keys():
        return value
    form = "write {sql: SELECT …, url: sqlite:///file.db}"
    for name in value:
        if name not in Query.model_fields:
            raise ValueError(f"a query has no key '{name}'; {form}")
    for name in Query.model_fields:
        if not isinstance(value.get(name), str) or not value[name].strip():
            raise ValueError(f"a query without {name}; {form}")
    if "#" in value["url"]:
        raise ValueError(
            "a # in the url of a query; put the URL into an environment variable, and write url: $NAME"
        )
    return f"sql:{value['url'].strip()}#{value['sql'].strip()}"


def _listed(value: object) -> object:
    return [_entry(one) for one in value] if isinstance(value, list) else [_entry(value)]


Files = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | Query | list[str | Query])]
