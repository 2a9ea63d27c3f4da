"""An export on the hub: what the hub's own client sends to a stand-in of its API, and the metadata that it reads."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard

from qtarget.search.export.hub import push, readme
from qtarget.spaces.errors import UserError

VERDICT = {"outcome": "better than SFT", "effect": 0.123, "low": 0.05, "high": 0.2, "seeds": 3, "problems": 64}


class Hub(BaseHTTPRequestHandler):
    """The calls of the hub's client that an upload of small text files makes."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state: Any = self.server
        state.calls.append(self.path)
        if self.headers.get("Authorization") != "Bearer right":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            state.repository = json.loads(body)
            name = f"{state.repository.get('organization', 'me')}/{state.repository['name']}"
            return self._answer({"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    state.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"]).decode()
            return self._answer(
                {
                    "commitUrl": "https://huggingface.co/me/found/commit/abc123",
                    "commitOid": "abc123",
                    "commitMessage": "m",
                }
            )
        return self._answer({"error": f"unknown call {self.path}"}, 404)

    def do_GET(self) -> None:
        state: Any = self.server
        state.calls.append(self.path)
        self._answer({"error": "Repository not found"}, 404)

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.calls, server.files, server.repository = [], {}, None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def export(tmp_path):
    winner = {
        "model": {"path": "some/Model-1B"},
        "data": {"path": ["some/data", "./own.jsonl"]},
        "evaluation": {"tasks": [{"path": "gsm8k"}]},
    }
    (tmp_path / "winner.yaml").write_text(yaml.safe_dump(winner))
    provenance = {"preset": "dft", "score": 0.5, "confirmation": VERDICT}
    (tmp_path / "provenance.json").write_text(json.dumps(provenance))
    (tmp_path / "MODEL_CARD.md").write_text("# The card\n")
    return tmp_path


def api(hub: Any, token: str = "right") -> HfApi:
    return HfApi(endpoint=f"http://127.0.0.1:{hub.server_address[1]}", token=token)


def test_all_files_arrive_with_a_readme(hub, export):
    found = push(export, "me/found", private=True, api=api(hub))
    assert found["repository"] == "me/found" and found["commit"] == "abc123"
    assert hub.repository["name"] == "found"
    asked = hub.repository.get("visibility"), hub.repository.get("private")  # by the client's version
    assert asked in (("private", None), (None, True))
    assert set(hub.files) == {"README.md", "MODEL_CARD.md", "winner.yaml", "provenance.json"}
    assert hub.files["README.md"].endswith("# The card\n")


def test_the_metadata_are_what_the_hub_reads(export):
    data = ModelCard(readme(export, "found")).data
    assert data.base_model == "some/Model-1B" and data.datasets == ["some/data"]
    assert {"qtarget", "dft"} <= set(data.tags)
    lead, score = data.eval_results
    assert lead.metric_value == 12.3 and "[+5.0, +20.0], better than SFT, 3 seeds" in lead.metric_name
    assert score.metric_value == 0.5 and lead.dataset_name == "gsm8k"


def test_what_was_not_confirmed_has_no_lead(export):
    (export / "provenance.json").write_text(
        json.dumps({"preset": None, "score": None, "confirmation": "not confirmed"})
    )
    assert "model-index" not in readme(export, "found")


def test_a_refusal_says_how_to_log_in_and_where_the_export_is(hub, export):
    with pytest.raises(UserError, match=r"me/found was refused .*hf auth login.*complete in"):
        push(export, "me/found", api=api(hub, "wrong"))


def test_a_name_that_is_none_is_refused(hub, export):
    with pytest.raises(UserError, match="was refused"):
        push(export, "no/such/name", api=api(hub))
