"""The versions that a result depends on."""

from __future__ import annotations

from cusa.common.versions import changed_versions, versions


def test_versions_of_what_computes_a_result():
    found = versions()
    assert {"cusa", "python", "cuda", "torch", "transformers", "numpy"} <= set(found)
    assert changed_versions(found, versions()) == []


def test_each_version_that_differs_is_told_and_a_patch_of_python_is_none():
    saved = {"python": "3.11.2", "torch": "2.14.0", "timm": "1.0"}
    assert changed_versions(saved, saved | {"python": "3.11.7"}) == []
    assert changed_versions(saved, {"python": "3.12.2", "torch": "2.14.1", "numpy": "2.0"}) == [
        "python was 3.11.2, is 3.12.2",
        "torch was 2.14.0, is 2.14.1",
        "timm was 1.0, is not there",
        "numpy was not there, is 2.0",
    ]
