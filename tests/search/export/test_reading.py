"""An export reads demonstrations without qtarget as the search does: the same files, formats, shapes and choices."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import character_tokenizer

from qtarget.search.export.reading import FOLDER, reading_files
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.settings import DataSettings

TEMPLATE = (
    "{{ strftime_now('%d.%m.') }}{{ mood }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{{ m['role'][0] }}:{{ m['content'] }}<turn>\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
READ = """
import json, sys
from datetime import date
from pathlib import Path

import pytest
sys.path.insert(0, sys.argv[1])
from types import SimpleNamespace
from target_reading.load import load_demonstrations
from transformers import AutoTokenizer
folder = Path(sys.argv[1])
data = json.loads((folder / "data.json").read_text())
data["path"] = [SimpleNamespace(**each) if isinstance(each, dict) else each for each in data["path"]]
tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
found = load_demonstrations(SimpleNamespace(**data), tokenizer, folder, day=date(2024, 2, 9))
assert not any(name.split(".")[0] == "qtarget" for name in sys.modules)
print(json.dumps([found.fingerprint, found.notes]))
"""


def talk(number: int, **more: Any) -> dict[str, Any]:
    roles = ("system", "user", "assistant", "user", "assistant")
    texts = ("be brief", f"what is {number}?", "it is", "and more?", f"{number}.")
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, texts, strict=True)], **more}


@pytest.mark.started_anew
@pytest.mark.slow
def test_the_exported_reader_gives_the_same_demonstrations(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    rows = [
        talk(n, tools=[tool] if n % 2 else None, chat_template_kwargs={"mood": "x"} if n % 3 else {}) for n in range(9)
    ]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    (tmp_path / "b1.csv").write_text("q,a\n" + "".join(f"{n}+0,{n:03}\n" for n in range(20)))
    (tmp_path / "b2.csv").write_text('q,a\n"one, two",\n')
    sources = [
        {"path": "a.jsonl.gz", "weight": 1},
        {"path": "b*.csv", "prompt_column": "q", "completion_column": "a", "weight": 2},
    ]
    settings = DataSettings.model_validate(
        {"path": sources, "learn": "all", "max_examples": 12, "chat_template_kwargs": {"mood": "y"}, "max_length": 400}
    )
    tokenizer = character_tokenizer(TEMPLATE)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "data.json").write_text(json.dumps(settings.model_dump(mode="json")))
    for name, text in reading_files():
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        (tmp_path / FOLDER / name).write_text(text)
        assert "from .." not in text and "qtarget.spaces" not in text
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours = load_demonstrations(settings, tokenizer, tmp_path, day=datetime.date(2024, 2, 9))
    assert json.loads(done.stdout.splitlines()[-1]) == [ours.fingerprint, list(ours.notes)]
    assert len(ours) == 12 and len(ours.notes) == 3
