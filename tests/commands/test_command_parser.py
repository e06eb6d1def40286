"""Options of `cusa` may stand before, between and after its other arguments."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import pytest

from cusa.cli import parser


@pytest.mark.parametrize(
    ("positionals", "options"),
    [
        (["search", "gallery", "a text"], [["--top", "5"], ["--json"]]),
        (["embed", "run", "photos"], [["--output", "gallery"], ["--dtype", "float16"]]),
        (["check", "a.yaml", "b.yaml"], [["--all"]]),
        (["serve", "one", "two"], [["--port", "0"], ["--no-token"]]),
        (["diff", "one", "two"], []),
        (["index", "gallery"], [["--target-recall", "0.9"]]),
    ],
    ids=lambda value: value[0] if value and isinstance(value[0], str) else "",
)
def test_options_may_stand_anywhere(positionals, options):
    name, *rest = positionals
    whole = vars(parser().parse_args([name, *rest, *itertools.chain(*options)]))
    for places in itertools.product(range(len(rest) + 1), repeat=len(options)):
        words = [[word] for word in rest]
        for place, option in sorted(zip(places, options, strict=True), reverse=True):
            words.insert(place, option)
        assert vars(parser().parse_args([name, *itertools.chain(*words)])) == whole, words


def test_defaults_and_what_is_lacking_are_as_argparse_has_them(capsys):
    assert parser().parse_args(["search", "gallery", "--top", "5"]).query is None
    assert parser().parse_args(["check", "--all"]).files == []
    assert parser().parse_args(["runs"]).folders == [Path("results")]
    for words, says in (
        (["search", "--top", "5"], "the following arguments are required: index"),
        (["embed", "run", "photos"], "the following arguments are required: --output"),
        (["search", "gallery", "a", "b", "--top", "5"], "unrecognized arguments: b"),
    ):
        with pytest.raises(SystemExit):
            parser().parse_args(words)
        assert says in capsys.readouterr().err


def test_every_command_reads_its_help(capsys):
    action = next(each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    for name in action.choices:
        with pytest.raises(SystemExit) as stopped:
            parser().parse_args([name, "--help"])
        assert stopped.value.code == 0 and f"usage: cusa {name}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "config", "profile"])
@pytest.mark.parametrize("words", [["--configfile", "a.yaml"], ["--configfile=a.yaml"], ["a.yaml", "--configfiles"]])
def test_the_option_of_run_that_names_configurations_is_told_how_to_leave_out(command, words, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args([command, *words])
    assert f"name the files alone: `cusa {command} mine.yaml`" in capsys.readouterr().err
