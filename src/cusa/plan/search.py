"""The plan of the sections `search` and `exports`: which models are exported, and which galleries are indexed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from cusa.common.files import expanded
from cusa.common.registry import is_added
from cusa.config.models import folder_name
from cusa.config.search import ALL, TEST, Exports, IndexSettings, Search
from cusa.plan.plan import Plan

DEFAULT_RUNS = 2
MEASURED = "val"  # the split that the loss of 8 bits is measured on
# The entry points by which installed packages register students and encoders.
MODEL_GROUPS = ("cusa.students", "cusa.teachers")


@dataclass(frozen=True)
class SearchPlan:
    """The plan of the sections `search` and `exports` of a configuration.

    Paths are relative to the working directory, as in Plan. Of each experiment the run with the first seed is used.
    """

    plan: Plan

    @property
    def search(self) -> Search | None:
        """The section `search`; None if no index is built."""
        return self.plan.configuration.search

    @property
    def exports(self) -> Exports | None:
        """The section `exports`; None if no export is asked for."""
        return self.plan.configuration.exports

    @property
    def seed(self) -> int:
        """The seed of the runs that are used."""
        return self.plan.configuration.seeds[0]

    @property
    def across_modalities(self) -> list[str]:
        """The runs whose model finds images by texts: all but the teachers, which share no space."""
        baselines = self.plan.configuration.baselines
        return [run for run in self.plan.runs if run not in baselines or baselines[run].baseline != "teachers"]

    @property
    def default_runs(self) -> list[str]:
        """The runs that `experiments: null` stands for: those of the report's gallery, or else the first two."""
        return self.plan.gallery_runs or self.across_modalities[:DEFAULT_RUNS]

    @property
    def searched_runs(self) -> list[str]:
        """The runs whose models search; none if `search` is null."""
        if self.search is None:
            return []
        return self.search.experiments or self.default_runs

    @property
    def exported_runs(self) -> list[str]:
        """The runs that the target `exports` writes in `exports.formats`; none if `exports` is null."""
        if self.exports is None:
            return []
        return self.exports.experiments or self.searched_runs or self.default_runs

    @property
    def gallery(self) -> str:
        """The name of the gallery, which is that of its folders: letters, digits, `_`, `.` and `-`."""
        chosen = TEST if self.search is None else self.search.gallery
        if not self.own_gallery:
            return chosen
        return re.sub(r"[^A-Za-z0-9_.\-]+", "-", folder_name(str(expanded(chosen).absolute()))).lstrip("-.")

    @property
    def own_gallery(self) -> str | None:
        """The user's folder, table or tars that are made searchable; None if the gallery is splits of the data set."""
        return self.search.gallery if self.search is not None and self.search.is_own_gallery else None

    @property
    def own_galleries(self) -> list[str]:
        """The name of the gallery, if it is not splits of the data set."""
        return [self.gallery] if self.own_gallery else []

    @property
    def own_gallery_files(self) -> list[str]:
        """The table that is made searchable, if it is one; the time of a folder shows no change of its files."""
        path = expanded(self.own_gallery or "")
        return [str(path)] if self.own_gallery and path.is_file() else []

    @cached_property
    def galleries(self) -> dict[str, tuple[str, ...]]:
        """The galleries of the data set, and the splits that are in each."""
        return {TEST: (TEST,), ALL: tuple(self.plan.splits)}

    def split_gallery_inputs(self, run: str, seed: int | str, gallery: str) -> list[str]:
        """The files that a gallery of the data set is made from: tables, shards, and the run's embeddings."""
        folder, splits = self.plan.folder, self.galleries[gallery]
        embeddings = [str(folder.run(run, seed) / "embeddings" / split) for split in splits]
        return [*self.plan.tables(), *(str(folder.shards(split)) for split in splits), *embeddings]

    def answers_by_export(self, run: str) -> bool:
        """Whether an ONNX export of a run embeds the queries, not the run itself; see `search.queries`."""
        chosen = "auto" if self.search is None else self.search.queries
        return chosen == "onnx" or (chosen == "auto" and not self._is_added(run))

    def _is_added(self, run: str) -> bool:
        """Whether a run's model is of a Python file or of an installed package, whose tokeniser may be any code."""
        student = self.plan.configuration.student_of(run)
        towers = [] if student.towers is None else [student.towers.image.name, student.towers.text.name]
        names = [name for name in (student.name, *towers) if name is not None]
        return any(is_added(name, group) for name in names for group in MODEL_GROUPS)

    @property
    def parts(self) -> int:
        """The jobs that embed a gallery of the user's own items."""
        return 1 if self.search is None else self.search.parts

    @property
    def gallery_head(self) -> str:
        """The head that embeds galleries."""
        return "cross" if self.search is None else self.search.head

    def export_options(self, export_format: str) -> list[str]:
        """The options of the export of a model in a format, which the sections `search` and `exports` ask for."""
        exports = self.exports or Exports()
        head = [] if exports.head is None else ["--head", exports.head]
        return [*head, *(["--int8"] if exports.int8 and export_format == "onnx" else [])]

    def export_inputs(self, run: str, export_format: str) -> list[str]:
        """The files that an export reads besides the run: Python files, and the images that int8 is measured on."""
        files = self.plan.student_files(run)
        if "--int8" in self.export_options(export_format):
            files += [*self.plan.tables(), str(self.plan.folder.shards(MEASURED))]
        return files

    def query_model(self, run: str, seed: int | str) -> str:
        """The folder of the model that embeds the queries to a run's index."""
        folder = self.plan.folder.run(run, seed)
        return str(folder / "exports/onnx" if self.answers_by_export(run) else folder)

    def query_model_files(self, run: str, seed: int | str) -> list[str]:
        """The files that have to be there before the model that embeds the queries can be named."""
        folder = self.query_model(run, seed)
        return [folder] if self.answers_by_export(run) else [f"{folder}/run.json", f"{folder}/best.safetensors"]

    @property
    def index_json(self) -> str:
        """How indexes are built, as one line for their jobs."""
        return (IndexSettings() if self.search is None else self.search.index).as_json()

    def index_folders(self) -> list[str]:
        """The folders of all indexes, which `cusa search` and `cusa serve` take."""
        return [str(self.plan.folder.run(run, self.seed) / "search" / self.gallery) for run in self.searched_runs]

    def index_files(self) -> list[str]:
        """A file of each index: what the target `search` makes."""
        return [f"{folder}/index.faiss" for folder in self.index_folders()]

    def exported_formats(self) -> list[tuple[str, str]]:
        """Every run and format that is exported: those of `exports`, and the ONNX models that embed queries."""
        formats = [] if self.exports is None else self.exports.formats
        queries = [(run, "onnx") for run in self.searched_runs if self.answers_by_export(run)]
        return list(dict.fromkeys([*((run, name) for run in self.exported_runs for name in formats), *queries]))

    def export_folders(self) -> list[str]:
        """The folders of all exports that are asked for: what the target `exports` makes."""
        formats = [] if self.exports is None else self.exports.formats
        folders = [self.plan.folder.run(run, self.seed) / "exports" for run in self.exported_runs]
        return [str(folder / name) for folder in folders for name in formats]
