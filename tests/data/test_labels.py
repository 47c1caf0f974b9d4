"""The label of a record comes along with its text, in every form of record."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from litmoe.data.reading.formats import read_documents
from litmoe.data.reading.record_text import Label

RECORDS = [
    {"text": "one", "domain": "law"},
    {"text": "two", "domain": None, "source": "web"},
    {"text": "three", "domain": 7},
    {"text": "four", "domain": "law", "source": "web"},
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_every_form_of_record_has_its_label(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        rows = [
            {**record, "domain": str(record["domain"]) if record["domain"] else None} for record in RECORDS
        ]
        rows[2]["domain"] = None
        pq.write_table(pa.Table.from_pylist([{"source": None, **row} for row in rows]), path)
    else:
        path.write_text(
            "\n".join(map(json.dumps, RECORDS)) if name == "a.jsonl" else json.dumps(RECORDS, indent=1)
        )
    label = Label("domain", "source")
    found = [(piece.text, label.value) for piece in read_documents(path, label=label)]
    assert found == [("one", "law"), ("two", "web"), ("three", None), ("four", "law")]
