"""The paper's figures (CUSA, AAAI 2024, Tables 8 to 11), which the summary shows beside those of the same model."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from cusa.config.experiments import RunConfiguration
from cusa.config.losses import LossConfiguration

# The paper's names of the losses that are on.
METHODS = {
    frozenset({"contrastive"}): "contrastive",
    frozenset({"contrastive", "cross_softlabel"}): "csa",
    frozenset({"contrastive", "uni_softlabel"}): "usa",
    frozenset({"contrastive", "cross_softlabel", "uni_softlabel"}): "cusa",
}
STUDENTS = {
    "ViT-B/32": "ViT-B/32",
    "openai/clip-vit-base-patch32": "ViT-B/32",
    "ViT-L/14@336px": "ViT-L/14@336px",
    "openai/clip-vit-large-patch14-336": "ViT-L/14@336px",
}


def figures(configuration: RunConfiguration, metrics: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """The published figures of the student and losses of `configuration`, by our names of the metrics.

    `metrics` gives, for each of our names, the benchmark and the metric of the paper's tables. Empty if the paper does
    not have the student or the losses, and for interpolated weights.
    """
    if configuration.interpolate is not None:
        return {}  # the paper has no weights between those before and after a training
    student = STUDENTS.get(configuration.student.name or "")
    method = method_of(configuration.losses)
    published = {name: _table().get((student, method, *key)) for name, key in metrics.items()}
    return {name: figure for name, figure in published.items() if figure is not None}


def method_of(losses: LossConfiguration) -> str | None:
    """The paper's name of these losses: contrastive, csa, usa or cusa; None for losses that it does not have."""
    return METHODS.get(frozenset(name for name in LossConfiguration.model_fields if getattr(losses, name) is not None))


@cache
def _table() -> dict[tuple[str | None, str | None, str, str], float]:
    text = files("cusa.benchmarks").joinpath("published_results.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["student"], row["method"], row["benchmark"], row["metric"]): float(row["value"]) for row in rows}
