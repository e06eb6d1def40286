"""`cusa check` finds problems of the sections `search` and `exports` before the workflow runs for hours."""

from __future__ import annotations

import importlib.util

import pytest

from cusa.commands import search_findings
from cusa.commands.finding import Finding
from cusa.commands.search_findings import ModelSize
from cusa.config import load
from cusa.plan import Plan, SearchPlan

IMAGES = {"train": 3_000_000, "val": 1_000, "test": 500_000}
SIZES = {"contrastive": ModelSize(150_000_000, 512), "cusa": ModelSize(150_000_000, 512)}


def found(mapping: dict, **sections: object) -> tuple[dict[str, Finding], float]:
    """The findings by subject, and the bytes that are needed."""
    needed: list[float] = []
    plan = SearchPlan(Plan(load({**mapping, **sections})))
    findings = list(search_findings.search_findings(plan, IMAGES, SIZES, needed))
    return {finding.subject: finding for finding in findings}, sum(needed)


def test_nothing_is_said_where_nothing_is_searched(tiny_configuration):
    assert found(tiny_configuration, search=None) == ({}, 0)


def test_embeddings_indexes_and_exports_are_sized(tiny_configuration):
    findings, needed = found(tiny_configuration, search={}, exports={"formats": ["onnx", "safetensors"]})
    assert findings["gallery"].text == ("the splits test: 500,000 images, searched with contrastive, cusa; 4.10 GB")
    assert findings["exports"].text.endswith("; 2.40 GB")
    assert "cusa to safetensors" in findings["exports"].text
    assert needed == pytest.approx(2 * 500_000 * 512 * 4 * 2 + 4 * 150e6 * 4)
    assert all(finding.sound for finding in findings.values())
    everything, _ = found(tiny_configuration, search={"gallery": "all", "experiments": ["cusa"]})
    assert everything["gallery"].text.startswith("the splits train, val, test: 3,501,000 images")


def test_a_package_that_is_missing_for_onnx_is_a_finding(tiny_configuration, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(search_findings, "find_spec", lambda name: None if name == "onnxruntime" else there(name))
    findings, _ = found(tiny_configuration, search={})
    assert findings["onnx"].sound is False
    assert "onnxruntime cannot be imported" in findings["onnx"].text
    assert "pip install 'cusa[onnx]'" in findings["onnx"].text
    assert "onnx" not in found(tiny_configuration, search={"queries": "run"})[0]


def test_a_folder_of_ones_own_is_counted(tiny_configuration, shapes, tmp_path):
    findings, needed = found(tiny_configuration, search={"gallery": str(shapes / "pics"), "queries": "run"})
    assert "48 images" in findings["gallery"].text
    assert needed == 2 * 48 * 512 * 4 * 2
    (tmp_path / "notes.txt").write_text("no picture")
    findings, _ = found(tiny_configuration, search={"gallery": str(tmp_path)})
    assert findings["gallery"].sound is False
    assert "has no picture" in findings["gallery"].text


def test_the_whole_check_counts_them(tiny_configuration, tmp_path, monkeypatch):
    from cusa.commands.check import check

    monkeypatch.chdir(tmp_path)
    findings = {finding.subject: finding for finding in check({**tiny_configuration, "search": {}})}
    assert findings["gallery"].text.startswith("the splits test: 8 images, searched with contrastive, cusa")
    assert findings["exports"].text.startswith("contrastive to onnx, cusa to onnx")
    assert all(finding.sound for finding in findings.values())
