"""What `evaluate --json` printed, on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import failed, succeeded
from evaluation.onnx_text_models import WORDS, proto, saved, weights

from cli.report.reports import HOSTILE, report

PREDICTED: dict[str, Any] = {
    "result": "models/q.gguf",
    "reference": "models/f16.gguf",
    "tokens": 4096,
    "context": 512,
    "perplexity": 22.41294,
    "reference_perplexity": 21.03671,
    "divergence": 0.0771,
    "divergence_99": 0.52184,
    "top_agreement": 0.86553,
}


def written(folder: Path, said: Any) -> Path:
    path = folder / "e.json"
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return path


def test_predictions(result: Path, tmp_path: Path) -> None:
    page = report(result, tmp_path, "--evaluation", written(tmp_path, PREDICTED))
    assert page.tables["evaluation"] == [
        ["perplexity", "22.4129"],
        ["perplexity of the reference", "21.0367"],
        ["KL divergence, nats", "0.07710"],
        ["its 99th percentile", "0.5218"],
        ["the same top token", "86.55 %"],
        ["tokens", "4,096"],
        ["context", "512"],
    ]
    assert "models/q.gguf beside models/f16.gguf, run on a text." in page.text
    numbers = {name: each for name, each in PREDICTED.items() if not name.startswith("re")}
    of_reference = {"reference_perplexity": 21.03671}
    assert page.data["evaluation"] == {
        "result": "models/q.gguf",
        "reference": "models/f16.gguf",
        "numbers": numbers | of_reference,
    }


def test_a_model_by_itself(result: Path, tmp_path: Path) -> None:
    kept = ("result", "tokens", "context")
    said = {name: value if name in kept else None for name, value in PREDICTED.items()}
    page = report(result, tmp_path, "--evaluation", written(tmp_path, said | {"perplexity": "inf"}))
    assert page.tables["evaluation"] == [
        ["perplexity", "inf"],
        ["tokens", "4,096"],
        ["context", "512"],
    ]
    assert "beside" not in page.text.partition("Evaluation")[2].partition("run on a text")[0]
    assert page.data["evaluation"]["numbers"]["perplexity"] == "inf"


def test_what_the_command_prints_is_taken(result: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", proto(weights(), "last_hidden_state"))
    text = tmp_path / "a.txt"
    text.write_text(WORDS)
    told = succeeded("evaluate", model, "--against", model, "--text", text, "--json")
    page = report(result, tmp_path, "--evaluation", written(tmp_path, told))
    assert [name for name, _ in page.tables["evaluation"]] == [
        "cosine of embeddings",
        "the least cosine",
        "passages",
        "tokens",
        "context",
    ]
    assert page.tables["evaluation"][0][1] == "1.000000"


def test_without_one_there_is_no_section(result: Path, tmp_path: Path) -> None:
    page = report(result, tmp_path)
    assert "evaluation" not in page.tables
    assert "Evaluation" not in page.text
    assert page.data["evaluation"] is None


def test_hostile_names_are_text(result: Path, tmp_path: Path) -> None:
    for name in HOSTILE[:-1]:
        path = written(tmp_path, PREDICTED | {"result": name, "reference": name})
        page = report(result, tmp_path, "--evaluation", path)
        assert f"{name} beside {name}, run on a text." in page.text


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("garbage", "is not valid JSON"),
        ([PREDICTED], "must be a JSON object"),
        ({}, "is no evaluation, as its keys are others"),
        ({**PREDICTED, "more": 1}, "is no evaluation, as its keys are others"),
        ({**PREDICTED, "result": 5}, "result and reference are no names"),
        ({**PREDICTED, "perplexity": "low"}, "perplexity is 'low'"),
        ({**PREDICTED, "divergence": [1]}, "divergence is [1]"),
        ({**PREDICTED, "top_agreement": True}, "top_agreement is True"),
        ({**PREDICTED, "tokens": 1.5}, "tokens is 1.5"),
        ({**PREDICTED, "tokens": "inf"}, "tokens is 'inf'"),
        ({**PREDICTED, "perplexity": 10**400}, "perplexity is 1000"),
        ({**PREDICTED, "context": -(10**19)}, "context is -1000"),
    ],
)
def test_what_is_none_is_refused(result: Path, tmp_path: Path, said: Any, problem: str) -> None:
    path = written(tmp_path, said)
    page = tmp_path / "report.html"
    error = failed("report", result, "--html", page, "--evaluation", path)
    assert error.startswith(f"Error: '{path}' ")
    assert problem in error
    assert error.count("\n") == 1
    assert not page.exists()


def test_the_file_is_there_and_stays(result: Path, tmp_path: Path) -> None:
    path, page = tmp_path / "e.json", tmp_path / "report.html"
    error = failed("report", result, "--html", page, "--evaluation", path)
    assert error == f"Error: No such file or folder: '{path}'\n"
    assert "is a folder" in failed("report", result, "--html", page, "--evaluation", tmp_path)
    written(tmp_path, PREDICTED)
    error = failed("report", result, "--html", path, "--evaluation", path, "--overwrite")
    assert "is the source" in error
