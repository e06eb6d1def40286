"""`cusa datasets`: the known collections, which of them exist, and their counts."""

from __future__ import annotations

import archives
import yaml

from cusa import cli
from cusa.commands.benchmark_data import benchmark_data_findings
from cusa.config.benchmarks import Benchmarks
from cusa.config.section import validate


def test_everything_known_is_listed_and_counted(tmp_path):
    (tmp_path / "mine.tsv").write_text("first\tsecond\tscore\na\tb\t1\nc\td\t2\n")
    named = {
        "image_retrieval": {"cub": str(archives.cub(tmp_path)), "sop": str(tmp_path / "no")},
        "sts": {"senteval": str(archives.senteval(tmp_path)), "sentence_pairs": {"mine": str(tmp_path / "mine.tsv")}},
    }
    findings = benchmark_data_findings(validate(Benchmarks, named))
    found = {finding.subject.partition("(benchmarks.")[2].rstrip(")"): finding for finding in findings}
    cub = found["image_retrieval.cub"]
    assert cub.text == "4 images, 2 classes; expected 5,924 images, 100 classes"
    assert cub.sound is False
    assert found["image_retrieval.sop"].sound is None
    assert found["image_retrieval.sop"].text == "does not exist, so that it is left out"
    assert found["image_retrieval.cars"].sound is None
    expected = "not named in the configuration; expected 136,093 images, 2,452 classes"
    assert found["image_retrieval.inaturalist"].text == expected
    assert found["sts.senteval"].text.startswith("sts12 24, sts13 14")
    assert found["sts.sentence_pairs.mine"].text == "2 pairs"
    assert found["sts.sentence_pairs.mine"].sound


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"benchmarks": {"image_retrieval": {"cub": "CUB_200_2011"}}}))
    monkeypatch.setattr("sys.argv", ["cusa", "datasets", "mine.yaml"])
    cli.main()
    printed = capsys.readouterr().out
    assert "-     CUB-200-2011 (benchmarks.image_retrieval.cub): does not exist, so that it is left out" in printed
    assert printed.splitlines()[-1].startswith("ok: as expected")
    (tmp_path / "CUB_200_2011").mkdir()
    cli.main()
    incomplete = capsys.readouterr().out
    assert "FIX   CUB-200-2011 (benchmarks.image_retrieval.cub)" in incomplete
    assert "images.txt does not exist; unpack all of the archive into" in incomplete
    assert "layout:  images.txt, image_class_labels.txt, images/" in printed
    assert "CUB_200_2011" in printed
    assert "-     Stanford Online Products" in printed
