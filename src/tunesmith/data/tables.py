"""CSV and TSV (RFC 4180, with a header), Parquet and Arrow -> rows. Strict, and in bounded memory."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from tunesmith.data.apart import Ended, apart
from tunesmith.data.sources import CHUNK, MAX_LINE, UnreadableRow, byte_chunks, lines, too_long
from tunesmith.errors import DataError, RowError

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[int, dict[str, Any] | RowError]

BATCH_ROWS = 64
MAX_CHUNK_RATIO = 500  # uncompressed / compressed of one Parquet column chunk over 64 MiB


SEPARATORS = {",": "commas", "\t": "tabs"}


class _Record:
    """Feeds the CSV parser line by line; knows where the current record began and bounds its size."""

    def __init__(self, path: str, source: Iterator[tuple[int, bytes | None]]) -> None:
        self.path, self.source = path, source
        self.first, self.last, self.size, self.raw = 0, 0, 0, ""

    def begin(self) -> None:
        self.first, self.size, self.raw = 0, 0, ""

    def __iter__(self) -> _Record:
        return self

    def __next__(self) -> str:
        number, line = next(self.source)
        self.first, self.last = self.first or number, number
        self.size += MAX_LINE + 1 if line is None else len(line)
        if line is None or self.size > MAX_LINE:
            raise self.runaway(f"a record of more than {MAX_LINE // 2**20} MiB")
        # Bytes that are no UTF-8 become lone surrogates, and are reported once the record is whole.
        text = line.decode("utf-8", errors="surrogateescape")
        if len(self.raw) < 2048:
            self.raw += text[:2048]
        return text

    def runaway(self, what: str) -> DataError:
        return DataError(
            f"{self.path}:{self.first}: {what}",
            'a field opened with " closes with " before the next separator or line end',
            f'look for an unpaired " on line {self.first}; inside a quoted field write "" for each "',
        )


def read_csv(
    path: str, stream: IO[bytes], zipped: bool, notes: Counter[str] | None = None, separator: str = ","
) -> Iterator[Row]:
    """Rows of separated values under a header. An empty field is "". Every value is a string."""
    record = _Record(path, lines(path, byte_chunks(path, stream, zipped), notes))
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    parser = csv.reader(record, delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        record.begin()
        try:
            fields = next(parser)
            if header is None:
                if fields:
                    header = _header(path, record, fields, separator)
                continue
            if not fields:  # a blank line
                continue
            row: dict[str, Any] | RowError = _csv_row(header, fields)
        except StopIteration:
            return
        except csv.Error as error:
            if record.last != record.first or "unexpected end" in str(error):
                # The quote has swallowed an unknown number of rows.
                raise record.runaway("a quoted field that does not close where it should") from None
            row = RowError("bad_quote", f"a misplaced quote ({error})", fix='write "" for " in a field')
        except RowError as error:
            row = error
        if isinstance(row, RowError):
            raw = record.raw.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
            row = UnreadableRow(row, path, record.first, raw)
        yield record.first, row


def read_tsv(path: str, stream: IO[bytes], zipped: bool, notes: Counter[str] | None = None) -> Iterator[Row]:
    """Rows of tab-separated values, quoted where need be as spreadsheets write them."""
    return read_csv(path, stream, zipped, notes, "\t")


def _header(path: str, record: _Record, fields: list[str], separator: str) -> list[str]:
    names = [field.strip() for field in fields]
    where = f"{path}:{record.first}"
    fix = "the first line must name the columns, each once, such as: text,label"
    if any(_escaped(name) for name in names):
        raise DataError(f"{where}: the header is not UTF-8", fix="iconv -f latin1 -t utf-8")
    if len(names) == 1 and any(mark in names[0] for mark in ",;\t|"):
        marks = SEPARATORS[separator]
        raise DataError(f"{where}: the columns are not separated by {marks}", marks, f"save it with {marks}")
    if "" in names:
        raise DataError(f"{where}: column {names.index('') + 1} of the header has no name", fix=fix)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where}: the header names '{twice[0]}' more than once", fix=fix)
    if any(len(name) > 100 or "\n" in name or _is_number(name) for name in names):
        raise DataError(f"{where}: the first line looks like a row, not like a header", fix=fix)
    return names


def _is_number(name: str) -> bool:
    return name.replace(".", "", 1).lstrip("-").isdecimal()


def _escaped(text: str) -> bool:
    return any("\udc80" <= char <= "\udcff" for char in text)


def _csv_row(header: list[str], fields: list[str]) -> dict[str, Any]:
    if len(fields) != len(header):
        raise RowError(
            "ragged_row",
            f"{len(fields)} fields under a header of {len(header)}",
            fix='put fields that hold a separator or a line end into "…"',
        )
    for name, value in zip(header, fields, strict=True):
        if "\x00" in value:
            raise RowError("nul_byte", "a NUL byte", field=name, fix="the file is damaged or is not text")
        if not value.isascii() and _escaped(value):
            raise RowError("invalid_utf8", "not UTF-8", field=name, fix="iconv -f latin1 -t utf-8")
    return dict(zip(header, fields, strict=True))


def read_parquet(
    path: str, stream: IO[bytes], zipped: bool, notes: Counter[str] | None = None
) -> Iterator[Row]:
    """Rows of a Parquet file, null as None; line = row number. Raises DataError where data is not plain."""
    if not zipped:
        yield from _parquet_rows(path, stream)
        return
    with tempfile.TemporaryFile() as plain:  # Parquet is read from its end, which gzip cannot do
        for chunk in byte_chunks(path, stream, zipped):
            plain.write(chunk)
        plain.seek(0)
        yield from _parquet_rows(path, plain)


def _parquet_rows(path: str, stream: IO[bytes]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=CHUNK)
        _check_schema(path, file.schema_arrow)
        _check_sizes(path, file.metadata)
        # Dictionaries stay dictionaries: one long value that 1e6 rows share is held once.
        strings = [f.name for f in file.schema_arrow if pa.types.is_string(f.type)]
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=CHUNK, read_dictionary=strings)
        yield from _table_rows(path, file.schema_arrow, file.iter_batches(batch_size=BATCH_ROWS))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: not a whole Parquet file ({text})", fix="copy or write it again") from None


def read_arrow(
    path: str, stream: IO[bytes], zipped: bool, notes: Counter[str] | None = None
) -> Iterator[Row]:
    """Rows of an Arrow stream, as Hugging Face `datasets` saves them, or of an Arrow file; line = row number."""
    import pyarrow as pa

    if zipped:
        raise DataError(f"{path}: Arrow files are read as they are", "an .arrow file", "unpack it: gunzip")
    try:
        head = stream.read(6)
        stream.seek(0)
        if head == b"ARROW1":
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            file = batches = pa.ipc.open_stream(stream)
        _check_schema(path, file.schema)
        yield from _table_rows(path, file.schema, map(_validated, batches))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: not a whole Arrow file ({text})", fix="copy or write it again") from None


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Raises ArrowInvalid where offsets lead out of the data: Arrow takes them from the file as they are. Strings
    count as bytes here: one that is not UTF-8 is the fault of its row."""
    import pyarrow as pa

    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        (column.view(as_bytes[column.type]) if column.type in as_bytes else column).validate(full=True)
    return batch


def _table_rows(path: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
    named = _class_names(schema)
    number = 0
    for batch in batches:
        for index in range(batch.num_rows):
            number += 1
            row = _table_row(path, number, batch, index)
            if isinstance(row, dict):
                row |= {column: name(row[column]) for column, name in named.items()}
            yield number, row


def _table_row(path: str, number: int, batch: pa.RecordBatch, index: int) -> dict[str, Any] | RowError:
    error: RowError
    try:
        row = {name: batch.column(i)[index].as_py() for i, name in enumerate(batch.schema.names)}
    except UnicodeDecodeError:
        error = RowError("invalid_utf8", "a string that is not UTF-8", fix="write the file again as UTF-8")
    else:
        if all(len(value) <= MAX_LINE for value in row.values() if isinstance(value, str | list)):
            return row
        error = too_long()
    return UnreadableRow(error, path, number, "")


def _class_names(schema: pa.Schema) -> dict[str, Callable[[Any], Any]]:
    """For columns of class numbers whose names Hugging Face `datasets` wrote into the file: number -> name."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: named
            for column, feature in features.items()
            if column in schema.names and (named := _named(feature))
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # other metadata of that name, or none: the numbers stay as they are


def _named(feature: Any) -> Callable[[Any], Any] | None:
    """What names the classes in a value of this feature: a class, or lists of them."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = {"feature": feature[0]}
    if feature.get("_type") == "ClassLabel":
        names: list[str] = feature["names"]
        # -1 is how test sets without answers are written.
        return lambda value: names[value] if type(value) is int and 0 <= value < len(names) else None
    inner = _named(feature["feature"]) if "feature" in feature else None
    return (lambda value: None if value is None else [inner(item) for item in value]) if inner else None


def _check_schema(path: str, schema: pa.Schema) -> None:
    fix = "cast the column to string, number, list or struct"
    for field in schema:
        if _holds_extension(field):
            raise DataError(
                f"{path}: column '{field.name}' has an extension type ({field.type})", "plain types", fix
            )
    if len(set(schema.names)) < len(schema.names):
        raise DataError(f"{path}: two columns have the same name", f"got: {', '.join(schema.names[:20])}")
    if not schema.names:
        raise DataError(f"{path}: the table has no columns", "at least one column")


def _holds_extension(field: pa.Field) -> bool:
    import pyarrow as pa

    if isinstance(field.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (field.metadata or {}):
        return True
    return any(_holds_extension(field.type.field(i)) for i in range(field.type.num_fields))


def _check_sizes(path: str, metadata: Any) -> None:
    """The footer says how large each column chunk grows; refuse what no text compresses to."""
    try:
        column = apart(lambda: _bomb(metadata))
    except Ended:
        fix = "copy or write it again"
        raise DataError(
            f"{path}: not a whole Parquet file (its footer contradicts itself)", fix=fix
        ) from None
    if column is not None:
        raise DataError(
            f"{path}: column '{column}' grows more than {MAX_CHUNK_RATIO}-fold when unpacked",
            fix="a decompression bomb, or write it again with smaller row groups",
        )


def _bomb(metadata: Any) -> str | None:
    """The first column with such a chunk."""
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            packed, unpacked = max(1, chunk.total_compressed_size), chunk.total_uncompressed_size
            if unpacked > MAX_LINE and unpacked > MAX_CHUNK_RATIO * packed:
                return str(chunk.path_in_schema)
    return None
