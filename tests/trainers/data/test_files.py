"""What a path names, and what its rows are: the content of files as it is now, character for character."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.files import read_path

ROWS = [
    {"prompt": '{"city": "Rome", "ok": true}', "completion": "true"},
    {"prompt": " 1e5\u2028", "completion": "1.50", "note": None},
    {"prompt": 'a "quoted", line\nand another', "completion": "007", "note": "text"},
    {"prompt": "\x85é日本", "completion": "null", "extra": {"a": [1]}},
]
TEXTS = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS]


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(delimiter: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(TEXTS)
    return file.getvalue().encode()


def parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TEXTS), file)
    return file.getvalue()


FORMATS = {
    "a.jsonl": json_lines(ROWS),
    "a.ndjson": json_lines(ROWS),
    "a.JSONL": json_lines(ROWS),
    "windows.jsonl": json_lines(ROWS).replace(b"\n", b"\r\n"),
    "blank.jsonl": json_lines(ROWS).replace(b"\n", b"\n\n"),
    "bom.jsonl": b"\xef\xbb\xbf" + json_lines(ROWS),
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "lines.json": json_lines(ROWS),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "a.csv": table(","),
    "bom.csv": b"\xef\xbb\xbf" + table(","),
    "a.tsv": table("\t"),
    "a.parquet": parquet(),
    "a.jsonl.gz": gzip.compress(json_lines(ROWS)),
    "a.csv.bz2": bz2.compress(table(",")),
    "a.json.xz": lzma.compress(json.dumps(ROWS).encode()),
    "a.parquet.gz": gzip.compress(parquet()),
}


def texts(path: str, base: Path, **options: Any) -> list[dict[str, Any]]:
    rows = read_path(path, base, field="data.path", **options)
    return [{key: row.values[key] for key in ("prompt", "completion")} for row in rows]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_text_that_was_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    assert texts(name, tmp_path) == TEXTS


def test_a_line_is_named_as_an_editor_counts_it(tmp_path: Path) -> None:
    for name in ("blank.jsonl", "a.csv", "a.json"):
        (tmp_path / name).write_bytes(FORMATS[name])
    places = {name: [row.place for row in read_path(name, tmp_path, field="f")] for name in ("blank.jsonl", "a.csv")}
    assert places["blank.jsonl"][2] == "line 5 of blank.jsonl"
    assert places["a.csv"] == [f"line {line} of a.csv" for line in (2, 3, 4, 6)]
    assert [row.place for row in read_path("a.json", tmp_path, field="f")][3] == "row 4 of a.json"


def test_a_value_over_the_default_limit_of_csv_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\na," + "b" * 200_000 + "\n")
    assert len(texts("a.csv", tmp_path)[0]["completion"]) == 200_000


def test_nulls_that_a_table_adds_to_its_structs_are_not_part_of_them(tmp_path: Path) -> None:
    calls = [{"name": "add", "arguments": {"a": 1}}, {"name": "see", "arguments": {"b": "x"}}]
    rows = [{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "calls": calls}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row.values for row in read_path("a.parquet", tmp_path, field="f")] == rows


def test_data_are_what_the_file_holds_now(tmp_path: Path) -> None:
    for folder, path in ((tmp_path, "a.jsonl"), (tmp_path / "set", "set")):
        folder.mkdir(exist_ok=True)
        for text in ("old", "new"):
            (folder / "a.jsonl").write_bytes(json_lines([{"prompt": text, "completion": "1"}]))
            os.utime(folder / "a.jsonl", (1_700_000_000, 1_700_000_000))
            assert texts(path, tmp_path)[0]["prompt"] == text


def test_a_pattern_a_folder_and_its_splits(tmp_path: Path) -> None:
    for place, count in (("set/train-0.jsonl", 2), ("set/train-1.jsonl", 1), ("set/data/dev.jsonl.gz", 3)):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json_lines([{"prompt": place, "completion": str(n)} for n in range(count)])
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    (tmp_path / "set" / "README.md").write_text("# About\n")
    assert len(texts("set/*.jsonl", tmp_path)) == 3
    assert len(texts("set/**/*.jsonl*", tmp_path)) == 6
    assert len(texts(str(tmp_path / "set"), tmp_path)) == 3
    assert len(texts("set", tmp_path, split="validation")) == 3
    assert len(texts("set", tmp_path, split="train+validation[1:]")) == 5
    assert len(texts("set/train-0.jsonl", tmp_path, split="train[:50%]")) == 1


def test_a_folder_that_the_library_wrote_is_read_by_it(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(TEXTS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select(range(2))}).save_to_disk(tmp_path / "two")
    assert texts("one", tmp_path) == TEXTS
    assert texts("two", tmp_path, split="test[1:]") == TEXTS[1:2]


def test_a_card_says_which_files_are_whose(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("red", "blue"):
        (tmp_path / "set" / f"{name}.jsonl").write_bytes(json_lines([{"prompt": name, "completion": "1"}]))
    card = "---\nconfigs:\n- config_name: a\n  data_files: red.jsonl\n- config_name: b\n  data_files: blue.jsonl\n---\n"
    (tmp_path / "set" / "README.md").write_text(card)
    assert [row["prompt"] for row in texts("set", tmp_path, name="b")] == ["blue"]


def test_files_of_a_folder_that_are_not_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(FORMATS["a.jsonl"])
    (tmp_path / "b.xlsx").write_bytes(b"")
    (tmp_path / ".gitattributes").write_bytes(b"")
    said: list[str] = []
    assert texts(".", tmp_path, say=said.append) == TEXTS
    assert said == ["not read in .: b.xlsx"]


@pytest.mark.parametrize(
    ("files", "path", "said"),
    [
        ({"a.xyz": b"1"}, "a.xyz", r"must end in one of .jsonl, .*but got a.xyz; convert"),
        ({"a.jsonl": b'{"a": 1}\n{"a": "caf\xe9"}\n'}, "a.jsonl", r"line 2 has the byte 0xe9 at character 11 \('é' in"),
        ({"a.json": b'[{"a": 1},\n {"a": "\xff"}]'}, "a.json", "line 2 has the byte 0xff at character 9"),
        ({"a.csv": b"a,b\nx,y\n\xe9,z\n"}, "a.csv", "line 3 has the byte 0xe9 at character 1"),
        ({"a.jsonl": '{"a": 1}'.encode("utf-16")}, "a.jsonl", "it is UTF-16; save it as UTF-8"),
        ({"a.jsonl": b'{"a": 1}\n{"a": \n'}, "a.jsonl", r"line 2 of a.jsonl is not \(Expecting value at character 6"),
        ({"a.jsonl": b"[\n1]\n"}, "a.jsonl", "line 1 of a.jsonl is not .* holds one JSON value, .* must end in .json"),
        ({"a.jsonl": b'[{"a": 1}]'}, "a.jsonl", "line 1 of a.jsonl is a list; .* must end in .json"),
        ({"a.jsonl": gzip.compress(b"{}")}, "a.jsonl", "is compressed; unpack it, or name it a.jsonl.gz"),
        ({"a.csv": bz2.compress(b"a")}, "a.csv", "is compressed; unpack it, or name it a.csv.bz2"),
        ({"a.jsonl": b"[1, 2]\n"}, "a.jsonl", "line 1 of a.jsonl is a list"),
        ({"a.jsonl": b"[" * 100_000}, "a.jsonl", "line 1 of a.jsonl is not"),
        ({"a.json": b"[1"}, "a.json", "a.json must be JSON, but line 1, Expecting ',' delimiter"),
        ({"a.json": b'[{"a": 1}, 2]'}, "a.json", "row 2 of a.json is int"),
        ({"a.csv": b'a,b\n"x,y\n'}, "a.csv", r"a.csv must be a table of text, but line \d"),
        ({"a.csv": b"a,b\nx,y,z\n"}, "a.csv", "2 columns of the first line, but line 2 of a.csv has 3"),
        ({"a.csv": b"a,a\nx,y\n"}, "a.csv", "'a' twice"),
        ({"a.parquet": b"PAR1 and no more"}, "a.parquet", "a.parquet must be Parquet"),
        ({"a.jsonl.gz": b"no gzip"}, "a.jsonl.gz", "whole, readable file, but .*BadGzipFile"),
        ({"a.jsonl.gz": gzip.compress(b'{"a": 1}' * 999)[:-20]}, "a.jsonl.gz", "whole, readable file"),
        ({"a.jsonl": b""}, "no*.jsonl", "nothing matches"),
        ({"a.jsonl": b"{}"}, "b.jsonl.gz", "must exist, but .*relative paths start at the folder of the YAML"),
        ({"d/a.jsonl": b"{}", "d/b.csv": b"a\n1\n"}, "d", "must be of one format, but there are a.jsonl, b.csv"),
        ({"d/a.jsonl": b"{}", "d/test.jsonl": b"{}"}, "d", "must say its split .* but a.jsonl say none"),
        ({"d/a.txt": b"x"}, "d", "files that end in one of .*but d has a.txt"),
        ({"d/test.jsonl": b"{}"}, "d", "`split` must be one of test, .*split=train"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(
    tmp_path: Path, files: dict[str, bytes], path: str, said: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        list(read_path(path, tmp_path, field="data.path"))
    assert caught.value.field in ("data.path", "data.split")
