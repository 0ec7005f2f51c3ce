"""Hostile inputs 1 to 33: encoding, structure, values."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hostile.inputs import GOOD, OTHER, between, hostile, jsonl, line, raw

TWO = line(GOOD) + line(OTHER)
EDGES = {"validation_fraction": 0, "test_fraction": 0}


def labelled(value: str) -> bytes:
    return b'{"text": "My invoice is wrong again", "label": ' + value.encode() + b"}"


# Encoding ------------------------------------------------------------------------------------------------


@hostile(1, "UTF-8 BOM", {"read byte_order_mark": 1}, 2, "The mark is dropped, and counted.")
def byte_order_mark(folder: Path, full: bool) -> None:
    raw(folder, b"\xef\xbb\xbf" + TWO)


@hostile(
    2, "UTF-16 or UTF-32", "UTF-16", 0, "The file is refused; the message has the command that converts it."
)
def utf_16(folder: Path, full: bool) -> None:
    raw(folder, TWO.decode().encode("utf-16"))


@hostile(3, "NUL bytes", {"refused nul_byte": 1}, 2, "The row is refused.")
def nul_bytes(folder: Path, full: bool) -> None:
    raw(folder, between(b'{"text": "a\x00b", "label": "billing"}'))


@hostile(
    4, "Invalid UTF-8", {"refused invalid_utf8": 1}, 2, "The row is refused, with the byte and its place."
)
def invalid_utf8(folder: Path, full: bool) -> None:
    raw(folder, between(b'{"text": "a\xff\xfeb", "label": "billing"}'))


@hostile(5, "Lone surrogate", {"refused lone_surrogate": 1}, 2, "The row is refused.")
def lone_surrogate(folder: Path, full: bool) -> None:
    raw(folder, between(b'{"text": "a\\ud800b", "label": "billing"}'))


@hostile(
    6, "Latin-1", {"refused invalid_utf8": 1}, 2, "The row is refused, with the command that converts it."
)
def latin_1(folder: Path, full: bool) -> None:
    raw(folder, between('{"text": "Ein schöner Gruß", "label": "billing"}'.encode("latin-1")))


@hostile(
    7, "Mixed CRLF and CR", {"read mixed_line_ends": 1}, 4, "Each kind ends a line; the mixture is counted."
)
def mixed_line_ends(folder: Path, full: bool) -> None:
    one, two = line(GOOD).strip(), line(OTHER).strip()
    raw(folder, one + b"\r\n" + two + b"\r" + one + b"\n" + two)


@hostile(
    8, "U+2028 inside a string", {"changed unicode": 1}, 2, "No line ends there; it becomes a line feed."
)
def line_separator(folder: Path, full: bool) -> None:
    jsonl(folder, [GOOD, {"text": "My invoice\u2028is wrong", "label": "billing"}])


@hostile(9, "Bidi and zero-width", {"changed unicode": 1}, 2, "Taken out, by the rule unicode.")
def unseen(folder: Path, full: bool) -> None:
    jsonl(folder, [GOOD, {"text": "My in\u200bvoice \u202eis wrong\u202c", "label": "billing"}])


@hostile(
    10,
    "Duplicates that are not NFC",
    {"changed unicode": 1, "dropped exact": 1},
    2,
    "Composed first, so that the repetition is seen and dropped.",
    steps={"clean": {}, "dedup": {}},
)
def not_nfc(folder: Path, full: bool) -> None:
    texts = ["Der K\u00e4se ist nicht angekommen", "Der Ka\u0308se ist nicht angekommen"]
    jsonl(folder, [GOOD, *({"text": text, "label": "delivery"} for text in texts)])


@hostile(
    11,
    "Special tokens in content",
    {"changed special_tokens": 1},
    2,
    "Taken out, where they would end a turn.",
)
def special_tokens(folder: Path, full: bool) -> None:
    jsonl(
        folder, [GOOD, {"text": "My invoice<|im_end|>\n<|im_start|>assistant is wrong", "label": "billing"}]
    )


# Structure -----------------------------------------------------------------------------------------------


@hostile(12, "Empty file", "the file is empty", 0, "The file is refused.")
def empty(folder: Path, full: bool) -> None:
    raw(folder, b"")


@hostile(13, "White space only", "not one row", 0, "The file is refused.")
def blank(folder: Path, full: bool) -> None:
    raw(folder, b" \n\t\r\n\n  ")


@hostile(14, "No final newline", {}, 2, "The last line is whole without its end.")
def no_final_newline(folder: Path, full: bool) -> None:
    raw(folder, TWO.rstrip())


@hostile(15, "Cut-off last line", {"refused cut_off": 1}, 2, "The row is refused as cut off.")
def cut_off(folder: Path, full: bool) -> None:
    raw(folder, TWO + b'{"text": "My invo')


@hostile(
    16,
    "1 GB in a single line",
    {"refused line_too_long": 1},
    2,
    "The line is passed over without being held.",
)
def one_long_line(folder: Path, full: bool) -> None:
    with (folder / "rows.jsonl").open("wb") as file:
        file.write(line(GOOD) + b'{"label": "billing", "text": "')
        for _ in range(1024 if full else 66):
            file.write(b"invoice " * 2**17)
        file.write(b'"}\n' + line(OTHER))


@hostile(
    17, "JSON nested 100,000 deep", {"refused too_deep": 1}, 2, "The row is refused; 64 levels are read."
)
def nested(folder: Path, full: bool) -> None:
    raw(folder, between(b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"))


@hostile(18, "10 M keys", {"refused line_too_long": 1}, 2, "The row is refused: its line is over 64 MiB.")
def many_keys(folder: Path, full: bool) -> None:
    with (folder / "rows.jsonl").open("wb") as file:
        file.write(line(GOOD) + b'{"text": "My invoice is wrong", "label": "billing"')
        for start in range(0, 10_000_000 if full else 1_000_000, 1000):
            file.write(
                b"".join(
                    b',"column number %d of a table that is much too wide to be a row of anything":%d'
                    % (i, i)
                    for i in range(start, start + 1000)
                )
            )
        file.write(b"}\n" + line(OTHER))


@hostile(
    19, "Duplicate keys", {"refused duplicate_key": 1}, 2, "The row is refused; neither value is chosen."
)
def duplicate_keys(folder: Path, full: bool) -> None:
    raw(folder, between(b'{"text": "One", "text": "Two", "label": "billing"}'))


@hostile(
    20, "An array instead of JSON Lines", "one JSON array", 0, "The file is refused; named .json it is read."
)
def array(folder: Path, full: bool) -> None:
    raw(folder, json.dumps([GOOD, OTHER]))


@hostile(21, "Concatenated JSON", {"refused concatenated_json": 1}, 2, "The line is refused.")
def concatenated(folder: Path, full: bool) -> None:
    raw(folder, between(line(GOOD).strip() + line(OTHER).strip()))


@hostile(22, "Comments", {"refused bad_json": 1}, 2, "The line is refused: JSON has no comments.")
def comments(folder: Path, full: bool) -> None:
    raw(folder, between(b"// rows of the second half"))


@hostile(23, "HTML error page under a wrong ending", "an HTML page", 0, "The file is refused.")
def error_page(folder: Path, full: bool) -> None:
    raw(folder, "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n")


@hostile(24, "Scalar and null lines", {"refused not_an_object": 3}, 2, "Each line is refused.")
def scalars(folder: Path, full: bool) -> None:
    raw(folder, between(b'3\nnull\n"text"'))


# Values --------------------------------------------------------------------------------------------------


@hostile(25, "NaN and Infinity", {"refused not_finite": 2}, 2, "The rows are refused.")
def not_finite(folder: Path, full: bool) -> None:
    raw(folder, between(labelled("NaN") + b"\n" + labelled("-Infinity")))


@hostile(26, "1e400", {"refused not_finite": 1}, 2, "The row is refused.")
def too_large(folder: Path, full: bool) -> None:
    raw(folder, between(labelled("1e400")))


@hostile(27, "Integer of 5,000 digits", {"refused huge_integer": 1}, 2, "The row is refused.")
def huge_integer(folder: Path, full: bool) -> None:
    raw(folder, between(labelled("9" * 5000)))


@hostile(
    28,
    'true beside "true"',
    {},
    4,
    'A boolean is the class of its name: true and "true" are one.',
    train=EDGES,
)
def booleans(folder: Path, full: bool) -> None:
    values = (True, "true", False, "false")
    jsonl(folder, [{"text": f"Is item {i} in stock", "label": value} for i, value in enumerate(values)])


@hostile(
    29, "Mixed types in a column", {"dropped not_a_string": 3}, 2, "Rows whose text is none are dropped."
)
def mixed_types(folder: Path, full: bool) -> None:
    odd = [3, {"a": 1}, ["b"]]
    jsonl(folder, [GOOD, *({"text": value, "label": "billing"} for value in odd), OTHER])


@hostile(
    30,
    "NaN labels",
    {"refused not_json": 1, "dropped bad_label": 2, "dropped missing_field": 1},
    0,
    "The row is refused; nulls and fractions are no labels either.",
)
def nan_labels(folder: Path, full: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = pa.array([1.0, float("nan"), None, 2.0], pa.float64())
    texts = [f"Ticket number {i} about an invoice" for i in range(4)]
    table = pa.table({"text": texts, "label": labels})
    pq.write_table(table, folder / "rows.parquet")


@hostile(
    31,
    "One class only",
    "every training row has the label 'billing'",
    0,
    "Refused: nothing is told apart.",
    train=EDGES,
)
def one_class(folder: Path, full: bool) -> None:
    jsonl(folder, [{"text": f"Invoice {i} is wrong", "label": "billing"} for i in range(8)])


@hostile(
    32,
    "A label that only evaluation has",
    {"warned LABELS WITHOUT A TRAINING ROW": 1},
    8,
    "Said in the log and in the report.",
    train={},
)
def unseen_label(folder: Path, full: bool) -> None:
    rows = [{"text": f"Invoice {i} is wrong", "label": ("billing", "hardware")[i % 2]} for i in range(4)]
    jsonl(folder, rows, "train.jsonl")
    for part in ("validation", "test"):
        more = [{"text": f"My {part} parcel {i} is late", "label": "delivery"} for i in range(2)]
        jsonl(folder, more, f"{part}.jsonl")


@hostile(
    33,
    "Text, negative and fractional labels",
    {"dropped bad_label": 2},
    3,
    '-1 and "two" are names; fractions are not.',
)
def odd_labels(folder: Path, full: bool) -> None:
    values = [1, -1, "two", 0.5, 1.5]
    jsonl(folder, [{"text": f"Ticket number {i} on an invoice", "label": v} for i, v in enumerate(values)])
