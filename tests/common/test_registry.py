"""Parts by our names, by the names of installed packages, and by file; and the sentence for what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cusa.annotations.sources.registry import open_source
from cusa.common.registry import Registry, call_part, file_path, loaded_versions, python_files, require_folder_of_model
from cusa.config.dataset import FORMATS, SECTIONS, load_dataset
from cusa.config.models import ImageModel, StudentSettings
from cusa.errors import ConfigurationError

COLOURS = Registry(
    kind="image colour",
    group="cusa.tests",
    modules={"red": "string", "named/": "textwrap"},
    needs=("PAINT", "mix"),
)
SOUND = "PAINT = 1\n\n\ndef mix():\n    return __name__\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are found in."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, package: str, entries: dict[str, str], source: str = SOUND, group: str = "cusa.tests") -> None:
    """What pip leaves behind of a package with one module and these entry points."""
    module = package.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    sys.modules.pop(module, None)


def problem(name: str, registry: Registry = COLOURS) -> str:
    with pytest.raises(ConfigurationError) as caught:
        registry.load(name, "paint.name")
    message = str(caught.value)
    assert message.startswith("Configuration key `paint.name`: ")
    assert "\n" not in message
    return message.removeprefix("Configuration key `paint.name`: ")


def test_our_own_by_name_and_by_what_a_name_begins_with():
    import string
    import textwrap

    assert COLOURS.load("red") is string
    assert COLOURS.load("named/crimson") is textwrap
    assert COLOURS.names() == ["red", "named/"]


def test_a_package_registers_a_name_and_its_variants(site):
    install(site, "more-colours", {"blue": "more_colours"})
    assert COLOURS.names() == ["red", "named/", "blue"]
    assert COLOURS.load("blue") is COLOURS.load("blue/dark") is sys.modules["more_colours"]
    assert loaded_versions()["more-colours"] == "1.2"


def test_a_name_that_nobody_registers(site):
    install(site, "more-colours", {"blue": "more_colours"})
    assert problem("green") == (
        "there is no image colour 'green'; expected one of 'red', 'named/', 'blue'. An installed package can add one "
        "(entry point group `cusa.tests`), and so can a Python file; see docs/extending.md in cusa's repository."
    )


def test_a_name_that_nobody_registers_is_the_default_modules():
    import json

    registry = Registry("image colour", "cusa.tests", {"red": "string"}, ("PAINT",), default="json")
    assert registry.load("someone/green") is json


def test_two_packages_with_one_name(site):
    install(site, "more-colours", {"blue": "more_colours"})
    install(site, "other-colours", {"blue": "other_colours"})
    assert problem("blue/dark") == (
        "the package more-colours 1.2 and the package other-colours 1.2 register the same image colour `blue`. "
        "Uninstall one of them, or register it under another name."
    )
    COLOURS.load("red")  # what is not asked for does no harm


@pytest.mark.parametrize(("entry", "name"), [("red", "red"), ("named", "named/crimson")])
def test_a_package_with_a_name_of_ours(site, entry, name):
    install(site, "more-colours", {entry: "more_colours"})
    expected = f"the package more-colours 1.2 registers the image colour `{entry}`, but cusa has one of this name"
    assert expected in problem(name)
    with pytest.raises(ConfigurationError, match="but cusa has one of this name"):
        COLOURS.require(name)


def test_a_package_that_cannot_be_imported(site):
    install(site, "more-colours", {"blue": "more_colours"}, source="import no_such_module\n")
    message = problem("blue")
    assert message.startswith("the package more-colours 1.2 registers the image colour `blue` as more_colours, which")
    assert "could not be imported (ModuleNotFoundError: No module named 'no_such_module')" in message


def test_a_package_whose_module_lacks_something(site):
    install(site, "more-colours", {"blue": "more_colours"}, source="PAINT = 1\n")
    assert problem("blue") == (
        "the package more-colours 1.2 (more_colours) has no `mix`. The module of an image colour needs PAINT, mix; "
        "docs/extending.md in cusa's repository shows one."
    )


def test_a_file_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "blue.py").write_text(SOUND)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    module = COLOURS.load("./blue.py")
    assert module.mix() in sys.modules
    assert COLOURS.load("blue.py") is COLOURS.load("~/blue.py") is COLOURS.load(str(tmp_path / "blue.py")) is module
    assert loaded_versions()["./blue.py"].startswith("sha256 ")
    assert [path.name for path in tmp_path.iterdir()] == ["blue.py"]  # no __pycache__
    assert file_path("./a/../blue.py") == "blue.py"
    assert python_files("./blue.py", None, "blue", "~/blue.py") == ["blue.py", str(tmp_path / "blue.py")]


def test_a_changed_file_is_loaded_anew(tmp_path):
    """Also within the second that file systems and .pyc files tell apart."""
    path = tmp_path / "blue.py"
    for paint in (1, 2):
        path.write_text(SOUND.replace("1", str(paint)))
        found = COLOURS.load(str(path)).PAINT
        assert found == paint


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("PAINT = 1\n", "./blue.py has no `mix`. The module of an image colour needs PAINT, mix"),
        (
            "PAINT = 1\n1 / 0\n",
            "./blue.py could not be executed (line 2, ZeroDivisionError: division by zero). Correct",
        ),
        ("import no_such\n", "(line 1, ModuleNotFoundError: No module named 'no_such'). Correct the file, or install"),
        ("PAINT =\n", "./blue.py could not be executed (SyntaxError: invalid syntax (blue.py, line 1))"),
        ("raise ValueError\n", "./blue.py could not be executed (line 1, ValueError: ValueError)"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, monkeypatch, source, says):
    (tmp_path / "blue.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert says in problem("./blue.py")
    assert says in problem("./blue.py")  # not half loaded the second time


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problem("./blue.py") == f"./blue.py does not exist (relative paths start at {tmp_path})."


def test_the_sections_of_our_formats_are_those_of_their_modules():
    assert {name: FORMATS.load(name).SETTINGS for name in FORMATS.modules} == SECTIONS


def test_a_format_of_a_package(site, tmp_path):
    source = (
        "from cusa.annotations.sources.source import Source\n"
        "from cusa.config.dataset import DatasetSection\n"
        "class SETTINGS(DatasetSection):\n"
        "    pages: int\n"
        "def open_source(settings, image_folder):\n"
        "    return Source()\n"
    )
    install(site, "atlas", {"atlas": "atlas"}, source, group="cusa.sources")
    dataset = load_dataset({"name": "a", "format": "atlas", "pages": 3})
    assert load_dataset(dataset.model_dump(mode="json")) == dataset
    assert type(open_source(dataset, tmp_path)).__name__ == "Source"
    with pytest.raises(
        ConfigurationError, match=r"key `dataset.pages` is 'x' \(str\): input should be a valid integer"
    ):
        load_dataset({"name": "a", "format": "atlas", "pages": "x"})
    with pytest.raises(ConfigurationError, match=r"key `dataset.folder` is unknown"):
        load_dataset({"name": "a", "format": "atlas", "pages": 3, "folder": "x"})


@pytest.mark.parametrize("section", ["dict", "3"])
def test_the_settings_of_a_format_are_a_section(site, section):
    install(site, "atlas", {"atlas": "atlas"}, f"SETTINGS = {section}\nopen_source = print\n", group="cusa.sources")
    with pytest.raises(ConfigurationError, match="expected a subclass of cusa.config.dataset.DatasetSection"):
        load_dataset({"name": "a", "format": "atlas"})


def test_the_settings_of_a_benchmark_are_a_section(tmp_path):
    from cusa.benchmarks.registry import settings_of

    path = tmp_path / "overlap.py"
    path.write_text("SETTINGS = dict\nACROSS_MODALITIES = False\ndata = evaluate = print\n")
    with pytest.raises(ConfigurationError, match="expected a subclass of cusa.config.benchmarks.BenchmarkSection"):
        settings_of(str(path))


def test_encoders_and_backbones_are_of_their_class(tmp_path):
    from cusa.student.registry import load_backbone
    from cusa.teachers.registry import load_image_encoder

    path = tmp_path / "mine.py"
    path.write_text(
        "from cusa.student.backbones import Backbone\n"
        "def image_encoder(settings):\n    return []\n"
        "def backbone(settings):\n    return Backbone() if settings.max_tokens == 1 else {}\n"
    )
    with pytest.raises(ConfigurationError, match=r"returns list; expected a cusa.teachers.encoders.ImageEncoder"):
        load_image_encoder(ImageModel(name=str(path)))
    with pytest.raises(ConfigurationError, match=r"returns dict; expected a cusa.student.backbones.Backbone"):
        load_backbone(StudentSettings(name=str(path)))
    with pytest.raises(ConfigurationError, match=r"needs an image_transform, and `tokenises` has to be True"):
        load_backbone(StudentSettings(name=str(path), max_tokens=1))


def test_what_a_plug_in_raises_while_it_loads_is_a_sentence(tmp_path):
    from cusa.student.registry import load_backbone
    from cusa.teachers.registry import load_image_encoder, load_text_encoder

    path = tmp_path / "mine.py"
    path.write_text(
        "def image_encoder(settings):\n    raise OSError\ndef backbone(settings):\n    raise OSError('gone')\n"
    )
    with pytest.raises(ConfigurationError, match=r"mine.py could not be loaded \(OSError\)"):
        load_image_encoder(ImageModel(name=str(path)))
    with pytest.raises(ConfigurationError, match=r"mine.py could not be loaded \(OSError: gone\)"):
        load_backbone(StudentSettings(name=str(path)))
    with pytest.raises(ConfigurationError, match=r"mine.py has no `text_encoder`"):
        load_text_encoder(ImageModel(name=str(path)))


def test_a_function_of_a_plug_in_that_fails_is_a_sentence_with_its_line(tmp_path):
    """Errors that callers put into words of their own are passed on; so is every error of cusa's own parts."""
    (tmp_path / "broken.py").write_text("def build(size):\n    return {}[size]\n\ndef read(path):\n    open(path)\n")
    module = Registry("thing", "cusa.things", {}, ("build", "read")).load(str(tmp_path / "broken.py"))
    with pytest.raises(ConfigurationError, match=r"`build` of .* failed in .*broken.py, line 2 \(KeyError: 3\)"):
        call_part(module.build, 3)
    with pytest.raises(FileNotFoundError):
        call_part(module.read, tmp_path / "no")


@pytest.mark.parametrize("name", ["./gone", "/gone/model", "~/gone/model"])
def test_a_folder_of_a_model_that_is_not_there_is_told_as_that(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"student.name {name} does not exist \(relative paths start at "):
        require_folder_of_model("student.name", name)
    (tmp_path / "model").mkdir()
    for there in ("./model", str(tmp_path), "openai/clip-vit-base-patch32"):
        require_folder_of_model("student.name", there)
