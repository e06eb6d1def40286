"""Configuration files and command-line values are read strictly: nothing is lost or changed silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cusa.config.configuration import Configuration, load
from cusa.config.files import (
    REQUIRED,
    merge,
    merge_onto_default,
    read_arguments,
    read_file,
    read_files,
    without_dots,
    yaml_text,
)
from cusa.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
OVERLAYS = [*(ROOT / "config").glob("*.yaml"), ROOT / "tests/workflow/emoji.yaml"]


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.name)
def test_ordinary_files_are_read_as_yaml_reads_them(path):
    assert read_file(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeffseeds: [1]\r\ntrain: {epochs: 3}\r\n", {"seeds": [1], "train": {"epochs": 3}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\ne: *x", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2},
                                                          "e": {"b": 1, "c": 2}}),
        ("a: 1_000\nb: .5\nc: -3\nd: 0\ne: 0.05\nf: 0x1F", {"a": 1000, "b": 0.5, "c": -3, "d": 0, "e": 0.05, "f": 31}),
        ("a: yes\nb: off\nc: 'no'\nd: \"010\"\ne: '1:30'", {"a": True, "b": False, "c": "no", "d": "010", "e": "1:30"}),
        ("a: ~\nb:\nc: null # nothing", {"a": None, "b": None, "c": None}),
        ("image_root: ~/pictures", {"image_root": "~/pictures"}),
        ("a: 'set #2'\nb: set#3 # a note", {"a": "set #2", "b": "set#3"}),
        (r"file: 'C:\data\new.csv'", {"file": r"C:\data\new.csv"}),
        ('{"a": {"b": 1},\n\t"c": "tabs in JSON"}', {"a": {"b": 1}, "c": "tabs in JSON"}),
    ],
)  # fmt: skip
def test_what_has_one_meaning_is_accepted(written, content, expected):
    assert read_file(written(content)) == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key `a` is there already, in line 1; keep one of them"),
        ("train:\n  lr: 1\n  epochs: 2\n  lr: 2", "line 4: the key `train.lr` is there already, in line 2"),
        ("train: {lr: 1}\n'train': {lr: 2}", "line 2: the key `train` is there already, in line 1"),
        ("a: [{b: 1, b: 2}]", "line 1: the key `a.b` is there already"),
        ('{"a": 1,\n\t"a": 2}', "has the key `a` twice in one mapping"),
        ("train: {epochs: 1:30}", "line 1: YAML reads 1:30 of `train.epochs` in base 60; write a number in base 10"),
        ("lr: 1:30.5", "YAML reads 1:30.5 of `lr` in base 60"),
        ("train:\n  batch_size: 010", "line 2: YAML reads 010 of `train.batch_size` in base 8"),
        ("seeds: [1, -07]", "YAML reads -07 of `seeds` in base 8"),
        ("dataset: {name: 2024-01-01}", "YAML reads 2024-01-01 of `dataset.name` as a date; write '2024-01-01' in"),
        ("dataset: {name: 2024-13-45}", "YAML reads 2024-13-45 of `dataset.name` as a date"),
        ("experiments:\n  no: {contrastive: {}}", "line 2: YAML reads the key no as true or false; write 'no' in"),
        ("experiments: {on: {}}", "YAML reads the key on as true or false"),
        ("experiments: {1: {}}", "YAML reads the key 1 as a number; write '1' in quotation marks"),
        ("experiments: {2024-01-01: {}}", "YAML reads the key 2024-01-01 as a date"),
        ("experiments: {null: {}}", "line 1: a key is null, or there is none before the colon"),
        ("? [a, b]\n: 3", "line 1: a key is a list or a mapping; expected a name"),
        ("dataset: {image_root: ~}", "YAML reads ~ of `dataset.image_root` as null; write '~' in quotation marks"),
        ("dataset:\n  annotations: {train: ~}", "line 2: YAML reads ~ of `dataset.annotations.train` as null"),
        ("train:\n\tepochs: 3", "cannot be read as YAML (line 2: found character '\\t' that cannot start any token); "
                                "indent with blanks, not with tabs"),
        ("train: {epochs: 3", "(line 1: expected ',' or '}', but got '<stream end>'); see whether brackets"),
        ("name: \"mine\ntrain: 3", "see whether brackets and quotation marks pair up"),
        ("file: \"C:\\data\"", "found unknown escape character 'd'); a Windows path needs single quotation marks"),
        ("file: \"C:\\Users\\me\"", "found 's'); a Windows path needs single quotation marks, or none"),
        ("file: \"C:\\xml\"", "a Windows path needs single quotation marks, or none"),
        ("dataset:\n  name:x\n  file: c", "put a blank after each colon, and quotation marks around text with a colon"),
        ("file: a: b", "put a blank after each colon, and quotation marks around text with a colon"),
        ("dataset:\n  name: x\n file: c", "indent the keys of a mapping alike"),
        ("dataset:\n\u00a0\u00a0name: x", "line 2: the key `name` begins or ends with the character U+00A0 (no-break"),
        ("file: c.csv\u200b", "the value of `file` begins or ends with the character U+200B (zero width space)"),
        ("files: [a.csv, \u3000b.csv]", "the value of `files` begins or ends with the character U+3000 (ideographic"),
        ("a: 1\n---\nb: 2", "(line 2: but found another document); write one configuration per file"),
        ("a: *b", "(line 1: found undefined alias 'b'); text that begins with *, & or !"),
        ("a: &b [*b]", "line 1: the value with the anchor & has itself in it"),
        ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
         "has more than 1,000,000 values, most of them by aliases (*); write out fewer"),
        ("a: !!python/object/apply:os.system [ls]", "write plain values, without tags"),
        ("a: 1\nb: !!set {x, y}", "line 2: the tag !!set makes no plain value; write values without tags"),
        ("a: {b: [!!binary aGVsbG8=]}", "the tag !!binary makes no plain value"),
        ("a: !!omap [b: 1]", "the tag !!omap makes no plain value"),
        ("a: !!pairs [b: 1]", "the tag !!pairs makes no plain value"),
        ("a: !!timestamp '2024-01-01'", "the tag !!timestamp makes no plain value"),
        ("a: !!timestamp [b]", "cannot be read as YAML (line 1: expected a scalar node, but found sequence)"),
        ("a: !!int x", "cannot be read as YAML: invalid literal for int()"),
        ("a: " + "9" * 5000, "cannot be read as YAML: Exceeds the limit"),
        ("a: \x00", "special characters are not allowed); save the file as UTF-8 text"),
        ("[" * 5000, "its values are nested too deeply"),
        ("", "is empty; expected keys, as config/README.md explains"),
        ("# nothing but a comment\n", "is empty"),
        ("- a\n- b", "holds a list; expected a mapping of keys"),
        ("just text", "holds a str; expected a mapping of keys"),
        (b"a: 1\nname: caf\xe9", "is not UTF-8 text (byte 0xe9 in line 2); save it as UTF-8"),
        ("a: 1".encode("utf-16"), "is not UTF-8 text (byte 0xff in line 1)"),
    ],
)  # fmt: skip
def test_what_yaml_would_lose_or_change_is_a_sentence(written, content, says):
    path = written(content)
    with pytest.raises(ConfigurationError) as caught:
        read_file(path)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)


def test_all_problems_of_a_file_are_reported_together(written):
    with pytest.raises(ConfigurationError) as caught:
        read_file(written("train: {lr: 0.1}\ntrain: {epochs: 1:30, batch_size: 010}\n"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(("place", "says"), [("no.yaml", "no.yaml does not exist"), (".", "is a folder")])
def test_files_that_cannot_be_read(tmp_path, monkeypatch, place, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        read_file(place)


PLAIN = st.text("~!@#:{}[],-_.0123456789 nofyes\n\t'\"&*|>%?é\ud83d", max_size=40)


@settings(max_examples=300, deadline=None)
@given(text=PLAIN | st.lists(st.tuples(PLAIN, PLAIN)).map(lambda rows: "\n".join(f"{a}: {b}" for a, b in rows)))
def test_any_text_is_read_or_is_a_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        content = read_file(path)
    except ConfigurationError as error:
        assert str(error).startswith(str(path))
    else:
        assert content == yaml.safe_load(path.read_text())


@settings(max_examples=200, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_what_yaml_or_json_writes_is_read_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    for text in (yaml.safe_dump({"key": value}), json.dumps({"key": value})):
        path.write_bytes(text.encode())
        assert read_file(path) == {"key": value}


def test_command_line_values_are_read_as_yaml_once():
    arguments = [
        "train={epochs: 3, precision: bf16}",
        "seeds=[1, 2]",
        "report=null",
        "shards=",
        'dataset={name: "007"}',
    ]
    assert read_arguments(arguments) == {
        "train": {"epochs": 3, "precision": "bf16"},
        "seeds": [1, 2],
        "report": None,
        "shards": None,
        "dataset": {"name": "007"},
    }


def test_quoted_text_on_the_command_line_stays_as_it_is():
    given = r"""dataset={annotations: "a/set #2", image_root: 'it''s: here', name: "no", skip: ["010", '1:30']}"""
    assert read_arguments([given])["dataset"] == {
        "annotations": "a/set #2",
        "image_root": "it's: here",
        "name": "no",
        "skip": ["010", "1:30"],
    }


def test_values_of_a_profile_are_as_python_writes_them():
    assert read_arguments([f"train={ {'gpus': 1, 'early_stop': None, 'x': True} }"]) == {
        "train": {"gpus": 1, "early_stop": None, "x": True}
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train={epochs: 3"], "--config train={epochs: 3 cannot be read as YAML (line 1: expected ',' or '}'"),
        (["seeds=[1, 2"], "see whether brackets and quotation marks pair up"),
        (["dataset={name: \"x}"], "see whether brackets and quotation marks pair up"),
        (["dataset={annotations: a/set #2}"], "text with a colon or a # needs quotation marks"),
        (["train={lr: 1, lr: 2}"], "line 1: the key `train.lr` is there already"),
        (["train={epochs: 1:30}"], "YAML reads 1:30 of `train.epochs` in base 60"),
        (["experiments={no: {}}"], "YAML reads the key no as true or false"),
        (["dataset.skip=!!set {a}"], "--config dataset.skip=!!set {a}, line 1: the tag !!set makes no plain value"),
        (["train={lr: 1}", "train={lr: 2}"], "--config gives `train.lr` two values; give each key once"),
    ],
)  # fmt: skip
def test_wrong_command_line_values_are_sentences(arguments, says):
    with pytest.raises(ConfigurationError) as caught:
        read_arguments(arguments)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "value", ["!!set {a}", "!!binary aGVsbG8=", "!!omap [b: 1]", "!!timestamp '2024-01-01'", "2024-01-01"]
)
def test_a_value_that_json_has_not_is_a_sentence_behind_a_key_with_dots_too(value):
    with pytest.raises(ConfigurationError, match=r"^--config dataset\.skip="):
        without_dots(f"dataset.skip={value}")


def test_a_key_may_be_given_in_parts():
    assert read_arguments(["train={lr: 1}", "train={epochs: 2, lr: 1}"]) == {"train": {"lr": 1, "epochs": 2}}


def test_files_are_merged_onto_the_default(tmp_path, monkeypatch, written):
    """That of the working directory, or else that of the workflow."""
    monkeypatch.chdir(tmp_path)
    overlay = written("train: {epochs: 7}\nexperiments: {csa: null}")
    configuration = load(read_files([overlay]))
    assert configuration.train.epochs == 7
    assert configuration.dataset.name == "openmoji"
    assert list(configuration.active_experiments) == ["contrastive", "usa", "cusa"]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("seeds: [5]")
    assert read_files([overlay]) == {"seeds": [5], "train": {"epochs": 7}, "experiments": {"csa": None}}


def test_overlays_of_the_workflow_are_found_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(read_files(["config/coco.yaml"])).dataset.name == "coco"
    (tmp_path / "config").mkdir()
    (tmp_path / "config/coco.yaml").write_text("dataset: {name: mine}")
    assert load(read_files(["config/coco.yaml"])).dataset.name == "mine"


def test_a_part_of_a_configuration_is_completed_by_the_default_and_a_whole_one_is_not():
    assert {name for name, field in Configuration.model_fields.items() if field.is_required()} == REQUIRED
    part = load(merge_onto_default({"train": {"epochs": 7}, "experiments": {"csa": None}}))
    assert (part.train.epochs, part.train.batch_size) == (7, 128)
    assert list(part.active_experiments) == ["contrastive", "usa", "cusa"]
    whole = {**read_files([]), "experiments": {"contrastive": {"contrastive": {}}}}
    assert list(load(merge_onto_default(whole)).active_experiments) == ["contrastive"]


def test_merging_replaces_all_but_mappings():
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 1},
    }


@pytest.mark.parametrize("value", ["/data/set #2", "[1, 2] # two", "#2"])
def test_a_comment_in_a_value_of_the_command_line_is_not_cut_off_silently(value):
    with pytest.raises(ConfigurationError, match="YAML takes # and what follows for a comment; put the value in quo"):
        read_arguments([f"dataset.file={value}"])
    assert read_arguments([f'dataset.file="{value}"']) == {"dataset": {"file": value}}


def test_keys_with_dots_are_keys_of_sections():
    found = read_arguments(["train.epochs=3", "train.lr=0.1", "experiments.a.contrastive={}", "seeds=[1]"])
    assert found == {"train": {"epochs": 3, "lr": 0.1}, "experiments": {"a": {"contrastive": {}}}, "seeds": [1]}
    with pytest.raises(ConfigurationError, match=r"gives `train.epochs` two values"):
        read_arguments(["train.epochs=3", "train={epochs: 4}"])


@pytest.mark.parametrize(
    "text", ["a\nb", "a\x85b", "a\u2028b", "a: b #c", "~", "010", "1:30", "yes", "{x}", "'", "é 日本", ""]
)
def test_written_yaml_is_read_back_as_it_was(tmp_path, text):
    mapping = {"dataset": {"file": text, "split_names": {text: "skip"}}}
    (tmp_path / "a.yaml").write_text(yaml_text(mapping), encoding="utf-8")
    assert read_file(tmp_path / "a.yaml") == mapping
