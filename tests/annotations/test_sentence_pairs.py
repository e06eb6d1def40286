"""SentEval's folders and TSV files of one's own, sound and damaged."""

from __future__ import annotations

from collections import Counter

import archives
import pytest

from cusa.annotations.sentence_pairs import TASKS, YEARS, own_pairs, senteval_pairs
from cusa.errors import DataError


def test_seven_tasks_in_order_and_empty_scores_left_out(tmp_path):
    pairs = senteval_pairs(archives.senteval(tmp_path))
    assert tuple(dict.fromkeys(pair.task for pair in pairs)) == TASKS
    count = Counter(pair.task for pair in pairs)
    assert count["sts12"] == 5 * 5 - 1
    assert count["stsb"] == count["sickr"] == 6
    assert tuple(dict.fromkeys(pair.subset for pair in pairs if pair.task == "sts14")) == YEARS["sts14"]


def test_sentences_are_kept_as_they_are(tmp_path):
    """Next line, form feed and quotes are characters of sentences, not ends of lines; sources follow in some files."""
    root = archives.senteval(tmp_path)
    place = root / "STS/STS13-en-test"
    (place / "STS.input.FNWN.txt").write_text('A "cat\x85 sat\tTwo\x0c dogs  ran.\tsource\n', encoding="utf-8")
    (place / "STS.gs.FNWN.txt").write_text("4.5\n")
    pair = next(pair for pair in senteval_pairs(root) if pair.subset == "FNWN")
    assert pair[:3] == ('A "cat\x85 sat', "Two\x0c dogs  ran.", 4.5)


def test_missing_and_damaged_files(tmp_path):
    root = archives.senteval(tmp_path)
    gold = root / "STS/STS12-en-test/STS.gs.MSRvid.txt"
    text = gold.read_text()
    gold.unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 50 files of SentEval's STS tasks(.|\n)*STS.gs.MSRvid.txt"):
        senteval_pairs(root)
    gold.write_text(text + "1.0\n")
    with pytest.raises(DataError, match=r"STS.input.MSRvid.txt has 5 pairs, but STS.gs.MSRvid.txt has 6 scores"):
        senteval_pairs(root)
    gold.write_text("high\n" * 5)
    with pytest.raises(DataError, match=r"STS.gs.MSRvid.txt, line 1: the score is 'high', expected a number"):
        senteval_pairs(root)
    gold.write_text(text)
    (root / "SICK/SICK_test_annotated.txt").write_text("heading\n1\tone sentence\n")
    with pytest.raises(DataError, match=r"SICK_test_annotated.txt, line 2: 2 columns, expected at least 4"):
        senteval_pairs(root)


def test_one_s_own_pairs(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text('first\tsecond\tscore\na "cat\tthe cat\t4\na dog\ta log\t\none\ttwo\t1.5\n')
    assert [(pair.first, pair.score, pair.task) for pair in own_pairs(path, "mine")] == [
        ('a "cat', 4.0, "mine"),
        ("one", 1.5, "mine"),
    ]
    path.write_text("one,two,score\n")
    with pytest.raises(DataError, match="but not first, second; its first line has to name"):
        own_pairs(path, "mine")
    path.write_text("first\tsecond\tscore\na\tb\t1\n")
    with pytest.raises(DataError, match="has 1 pairs with a score; a correlation needs at least two"):
        own_pairs(path, "mine")


@pytest.mark.parametrize("score", ["nan", "NaN", "inf", "-Infinity", "1e999", "4,5"])
def test_scores_that_are_not_finite_are_told_by_line(tmp_path, score):
    """A correlation with them would be undefined, and training takes hours."""
    path = tmp_path / "mine.tsv"
    path.write_text(f"first\tsecond\tscore\na dog\ta hound\t1\na car\ta bus\t{score}\na cat\ta kitten\t5\n")
    with pytest.raises(DataError, match=f"mine.tsv, line 3: the score is '{score}', expected a number that is finite"):
        own_pairs(path, "mine")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("first\tsecond\tscore\na\tb\t1\tc\n", "line 2 has more cells than the heading"),
        ("first\tfirst\tsecond\tscore\na\tx\tb\t1\n", "has several columns `first`; keep one"),
    ],
)
def test_no_cell_of_one_s_own_pairs_is_dropped(tmp_path, text, sentence):
    (tmp_path / "mine.tsv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        own_pairs(tmp_path / "mine.tsv", "mine")


def test_blanks_in_the_heading_and_empty_cells_behind_the_last_one_do_not_matter(tmp_path):
    (tmp_path / "mine.tsv").write_text("first \t second\tscore\na\tb\t1\t\nc\td\t2\n")
    assert [(pair.first, pair.score) for pair in own_pairs(tmp_path / "mine.tsv", "mine")] == [("a", 1.0), ("c", 2.0)]
