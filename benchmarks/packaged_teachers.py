"""The packaged teachers on a CPU: the start of the sentence model, and image features with freed memory used again."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from loading_images import shards_of_photographs
from measure import ROOT, Claim, best_of_turns

TEXT = """
import torch
from cusa.config.models import TextModel
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_text_encoder
from cusa.teachers.sentence_encoder import as_sentence_encoder
encoder = load_text_encoder(TextModel(name="all-MiniLM-L6-v2"))
encoder = as_sentence_encoder(encoder) if {by_the_library} else encoder
encode_texts(encoder, ["a birthday cake with candles"], 1, torch.device("cpu"))
"""
IMAGE = """
from cusa.common.memory import keep_freed_memory
from cusa.config.models import ImageModel
from cusa.teachers.extraction import extract_image_features
if {keeps}:
    keep_freed_memory()
extract_image_features("train", ImageModel(name="efficientnet-lite0"), "features-{keeps}", threads=1)
"""


def main() -> None:
    start = _turns(ROOT, ours=TEXT.format(by_the_library=False), theirs=TEXT.format(by_the_library=True))
    ratio = start["theirs"] / start["ours"]
    measured = f"{ratio:.1f}x ({start['ours']:.1f} s against {start['theirs']:.1f} s)"
    Claim("first text of the packaged sentence model, over sentence-transformers", measured, "2x", ratio > 2).report()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = shards_of_photographs(folder)
        whole = _turns(folder, again=IMAGE.format(keeps=True), given_back=IMAGE.format(keeps=False))
    ratio = whole["given_back"] / whole["again"]
    measured = f"{ratio:.2f}x ({whole['again']:.1f} s against {whole['given_back']:.1f} s, one core, {kind})"
    what = "a job of image features with freed memory used again, over giving it back"
    Claim(what, measured, "1.1x", ratio > 1.1).report()


def _turns(folder: Path, **programs: str) -> dict[str, float]:
    """The seconds of each program, run in `folder`."""
    calls = {
        side: lambda code=code: subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
        for side, code in programs.items()
    }
    return best_of_turns(3, **calls)


if __name__ == "__main__":
    main()
