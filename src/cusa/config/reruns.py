"""The results that are made again when a configuration key changes; writes docs/what-runs-again.md.

The keys are those of the JSON Schema (config/schema.json), so none is forgotten. tests/workflow/test_workflow.py
changes keys of each kind, and looks at what Snakemake plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from cusa.config.operational import CHECKS, EXPECTED_IMAGES, PROCESSES, is_operational
from cusa.config.schema import DEFINITIONS, json_schema

ANY = "NAME"  # stands for a name of the user's, or for a number in a list


class Effect(StrEnum):
    """The first results that are made again; the results that depend on them follow."""

    NOTHING = "nothing"
    CHECK = "nothing; the tables, if `dataset.skip` or `dataset.leave_out_of_train` is set"
    COUNT = "nothing, if the tables have these numbers; else `convert` runs and says what it found"
    FOLDER = "everything, in another folder"
    TABLES = "the tables"
    SHARDS = "the shards"
    IMAGE_FEATURES = "the image features of this model, and the trainings that read them"
    TEXT_FEATURES = "the text features of this model, and the trainings that read them"
    PROCESSES = "the trainings, if the number of processes changes: `nodes` x (`gpus`, or else `cpu_processes`)"
    VIEWS = "the features of changed pictures and captions, and the trainings"
    TRAININGS = "the trainings"
    WITH_BASELINES = "the trainings and the baselines"
    SOFT_TRAININGS = "the trainings that read teachers"
    EXPERIMENT = "the trainings of this experiment"
    NEW_RUNS = "the runs that do not exist yet"
    IMPORT = "the import of this checkpoint"
    DATA = "the data of this benchmark that do not exist yet, their embeddings, and its scores"
    SCORES = "the scores of this benchmark"
    SUMMARY = "the summary"
    PAGE = "the report"
    GALLERIES = "the galleries and indexes"
    INDEXES = "the indexes"
    NEW_INDEXES = "the galleries and indexes that do not exist yet"
    EXPORTS = "the exports"
    NEW_EXPORTS = "the exports that do not exist yet"
    SWEEP = "the whole sweep, in another folder"
    TRIALS = "the trials that do not exist yet"


# Of several keys that a key begins with, the longest holds. Keys of `config.operational` need no line here.
BY_KEY: Mapping[str, Effect] = {
    "dataset": Effect.TABLES,
    "dataset.name": Effect.FOLDER,
    "captions": Effect.TABLES,
    "shards": Effect.SHARDS,
    "shards.pixels": Effect.NOTHING,
    "shards.verify": Effect.NOTHING,
    "teachers.image": Effect.IMAGE_FEATURES,
    "teachers.text": Effect.TEXT_FEATURES,
    f"teachers.more.image.{ANY}": Effect.IMAGE_FEATURES,
    f"teachers.more.image.{ANY}.share": Effect.SOFT_TRAININGS,
    f"teachers.more.text.{ANY}": Effect.TEXT_FEATURES,
    f"teachers.more.text.{ANY}.share": Effect.SOFT_TRAININGS,
    "extraction": Effect.NOTHING,
    "stream": Effect.TRAININGS,
    "student": Effect.TRAININGS,
    "student.towers.image": Effect.IMAGE_FEATURES,
    "student.towers.text": Effect.TEXT_FEATURES,
    "train": Effect.TRAININGS,
    "train.augmentation": Effect.VIEWS,
    "train.precision": Effect.WITH_BASELINES,
    f"experiments.{ANY}": Effect.EXPERIMENT,
    f"checkpoints.{ANY}": Effect.IMPORT,
    "seeds": Effect.NEW_RUNS,
    "benchmarks": Effect.SCORES,
    "benchmarks.image_retrieval": Effect.DATA,
    "benchmarks.image_retrieval.recall_at": Effect.SCORES,
    "benchmarks.eccv_caption.positives": Effect.DATA,
    "benchmarks.sts": Effect.DATA,
    "benchmarks.zero_shot_classification": Effect.DATA,
    "benchmarks.linear_probe": Effect.DATA,
    "benchmarks.linear_probe.train_share": Effect.SCORES,
    "benchmarks.linear_probe.head": Effect.SCORES,
    "report.gallery": Effect.PAGE,
    "report.reference": Effect.SUMMARY,
    "search": Effect.GALLERIES,
    "search.gallery": Effect.NEW_INDEXES,
    "search.experiments": Effect.NEW_INDEXES,
    "search.index": Effect.INDEXES,
    "search.queries": Effect.INDEXES,
    "search.parts": Effect.NOTHING,
    "dataset.parts": Effect.NOTHING,
    "shards.parts": Effect.NOTHING,
    "shards.watch_images": Effect.NOTHING,
    "exports": Effect.EXPORTS,
    "exports.formats": Effect.NEW_EXPORTS,
    "exports.experiments": Effect.NEW_EXPORTS,
    "sweep": Effect.SWEEP,
    "sweep.space": Effect.TRIALS,
    "sweep.trials": Effect.TRIALS,
    "sweep.parallel": Effect.NOTHING,
    "sweep.pruning": Effect.NOTHING,
}

# Sections of an experiment that have the keys of a common section.
AS_COMMON = {f"experiments.{ANY}.{section}.": section for section in ("student", "train")}

START = """\
# What runs again

After you change a key of the configuration, the workflow makes only the results again that depend on it. Find your key
in these tables. They name what is made again first. Everything that depends on this follows, along
[the chain](how-it-works.md#the-chain). Nothing else is made again.

`snakemake -n` shows the same for your change before anything runs, and names the keys: "train.epochs was 30, is 4".

- **The tables** are the files in annotations/, which the rule `convert` writes.
- **Nothing** is made again because of a key that only changes how something is computed. Results on another device, or
  in batches of another size, differ by rounding.

`cusa schema --reruns` writes this page from the models of the configuration.
"""


def effect_of(key: str) -> Effect:
    """The effect of a changed key; `key` is that of the schema, with ANY for names and numbers."""
    section, _, name = key.rpartition(".")
    if section.endswith("train") and name in PROCESSES:
        return Effect.PROCESSES
    if name in CHECKS:
        return Effect.CHECK
    if EXPECTED_IMAGES in (name, section.rpartition(".")[2]):
        return Effect.COUNT
    if is_operational(key):
        return Effect.NOTHING
    beginnings = [each for each in BY_KEY if f"{key}.".startswith(f"{each}.")]
    return BY_KEY[max(beginnings, key=len)]


def keys() -> list[str]:
    """Every key of the configuration that has a value, with dots, in the order of the sections."""
    schema = json_schema()
    found = dict.fromkeys(_keys(schema, schema[DEFINITIONS]))
    # A key may be a mapping in one format of data and a section in another; it occurs once.
    return [key for key in found if not any(other.startswith(f"{key}.") for other in found)]


def _keys(schema: Mapping[str, Any], definitions: Mapping[str, Any], key: str = "") -> Iterator[str]:
    """The keys in a schema, which has the key `key` itself."""
    if reference := schema.get("$ref"):
        yield from _keys(definitions[reference.rpartition("/")[2]], definitions, key)
        return
    inner: list[tuple[str, Any]] = list(schema.get("properties", {}).items())
    for of_names in (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()):
        inner += [(ANY, of_names)] if isinstance(of_names, dict) else []
    inner += [(ANY, schema["items"])] if _is_section(schema.get("items"), definitions) else []
    for name, value in inner:
        yield from _keys(value, definitions, f"{key}.{name}".strip("."))
    alternatives = [each.get("then", each) for kind in ("anyOf", "allOf") for each in schema.get(kind, [])]
    for alternative in alternatives:
        yield from _keys(alternative, definitions, key)
    if not (inner or alternatives) and key:
        yield key


def _is_section(schema: Any, definitions: Mapping[str, Any]) -> bool:
    return isinstance(schema, dict) and "properties" in definitions.get(schema.get("$ref", "").rpartition("/")[2], {})


def page() -> str:
    """docs/what-runs-again.md: a table for each section."""
    lines, section = [START], ""
    for key in keys():
        if (first := key.partition(".")[0]) != section:
            section = first
            lines += ["", f"## `{section}`", "", "| key | what is made again |", "|---|---|"]
        shared = next((name for name in AS_COMMON if key.startswith(name)), None)
        row = f"| `{key}` | {effect_of(key).value} |"
        if shared is not None:
            row = f"| `{shared}...` | what the key of `{AS_COMMON[shared]}` makes again, of this experiment |"
        if row != lines[-1]:
            lines.append(row)
    return "\n".join(lines) + "\n"
