"""Each damaged file of a results folder is one sentence of the script that reads it, with what to delete.

The results are those of tests/data/run_b749c88; the scripts are called by their command lines.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = Path("results/shapes")
RUN = DATA / "runs/cusa/seed23"
SCORES = [DATA / f"runs/{run}/seed23/benchmarks/sts.json" for run in ("cusa", "towers")]
SUMMARISE = ["summarise.py", "--annotations", DATA / "annotations", "--parquet", "new.parquet", "--markdown", "new.md",
             "--latex", "new.tex", "--reference", "cusa", "--left-out", "{}", *SCORES]  # fmt: skip
GALLERY = json.dumps({"experiments": ["cusa"]})
RENDER = ["render_report.py", "--data", DATA, "--summary", DATA / "summary.parquet", "--gallery", GALLERY, "--output",
          "page.html", "--figures", "figures", RUN]  # fmt: skip
EVALUATE = ["evaluate.py", "itr", "--data", DATA, "--run-folder", RUN, "--output", "new.json", "--queries", "new.npz",
            "--settings", "{}"]  # fmt: skip
EMBED = ["embed.py", "--data", DATA, "--run-folder", RUN, "--benchmark-data", "test", "--output", "new", "--threads", 1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(ROOT / "tests/data/run_b749c88", tmp_path / "run"))
    monkeypatch.chdir(copy)
    return copy


@pytest.mark.parametrize(
    ("words", "damaged", "deleted"),
    [
        (SUMMARISE, SCORES[0], SCORES[0]),
        (SUMMARISE, SCORES[0].with_name("sts.queries.npz"), SCORES[0].with_name("sts.queries.npz")),
        (SUMMARISE, DATA / "annotations/problems.json", DATA / "annotations/problems.json"),
        (RENDER, DATA / "summary.parquet", DATA / "summary.parquet"),
        (RENDER, RUN / "history.parquet", RUN / "history.parquet"),
        (RENDER, RUN / "run.json", RUN / "run.json"),
        (RENDER, DATA / "annotations/problems.json", DATA / "annotations/problems.json"),
        (RENDER, DATA / "shards/test/index.parquet", DATA / "shards/test"),
        (RENDER, RUN / "embeddings/test/image_cross.npy", RUN / "embeddings/test"),
        (EVALUATE, RUN / "embeddings/test/text_cross.npy", RUN / "embeddings/test"),
        (EVALUATE, DATA / "annotations/captions.parquet", DATA / "annotations/captions.parquet"),
        (EVALUATE, RUN / "run.json", RUN / "run.json"),
        (EMBED, RUN / "best.safetensors", RUN / "best.safetensors"),
        (EMBED, DATA / "shards/test/index.parquet", DATA / "shards/test"),
        (EMBED, DATA / "shards/test/shard-000000.tar", DATA / "shards/test"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value.name,
)
@pytest.mark.parametrize("left", [0.5, 0.0], ids=["cut off", "empty"])
def test_a_damaged_file_is_one_sentence_that_says_what_to_delete(folder, capsys, words, damaged, deleted, left):
    damaged, deleted = folder / damaged, folder / deleted
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(left * len(content))])
    with pytest.raises(SystemExit) as ended:
        script([folder / word if isinstance(word, Path) else word for word in words])
    sentence = str(ended.value.code)
    assert sentence.startswith("Error: ")
    assert damaged.name in sentence
    does = "trains the run" if deleted.parent == folder / RUN else "makes it"
    assert sentence.endswith(f"delete {deleted}, and the same command {does} again."), sentence


def script(words: list[object]) -> None:
    """Run a script with its command line, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, words)))
        runpy.run_path(str(ROOT / "workflow/scripts" / str(words[0])), run_name="__main__")
