"""Students of open_clip against open_clip itself, with random weights of small architectures."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from open_clip_files import ARCHITECTURES, SQUEEZED, add_architectures, put_tokeniser_beside, write_weights
from PIL import Image
from snakemake.utils import update_config

from cusa.config.configuration import load
from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.errors import ConfigurationError, DataError
from cusa.student.open_clip_loading import _source
from cusa.student.open_clip_models import OpenClip, image_transform_of
from cusa.student.student import build_student
from cusa.teachers.encoders import pad_tokens

CAPTIONS = ["a red circle", "A large_blue triangle, and a CROSS!", "small", ""]
LOSSES = validate(LossConfiguration, {"contrastive": {}})


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_siglip) -> dict[str, Path]:
    """A file of weights of each small architecture, with the tokeniser beside that of SigLIP2."""
    folder = tmp_path_factory.mktemp("architectures")
    add_architectures(folder)
    found = {}
    for name in ARCHITECTURES:
        place = folder / f"weights of {name}"
        place.mkdir()
        found[name] = write_weights(name, place / "weights.safetensors")
    put_tokeniser_beside(found["tiny-SigLIP2"], tiny_siglip)
    (found["tiny-SigLIP2"].parent / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": ARCHITECTURES["tiny-SigLIP2"], "preprocess_cfg": SQUEEZED})
    )
    return found


def settings_of(name: str, file: Path | None, **keys: object) -> StudentSettings:
    return StudentSettings(name=f"open_clip/{name}", pretrained=None if file is None else str(file), **keys)


def own_tokens(name: str, file: Path) -> torch.Tensor:
    """CAPTIONS as open_clip gives them to this model, padded."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    if name == "tiny-SigLIP2":
        return HFTokenizer(str(file.parent), context_length=12, clean="canonicalize")(CAPTIONS)
    return open_clip.get_tokenizer(name)(CAPTIONS)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_features_equal_those_of_open_clip(files, name):
    import open_clip

    student = build_student(settings_of(name, files[name]), LOSSES).eval()
    backbone = student.backbone
    keys = {"force_preprocess_cfg": SQUEEZED} if name == "tiny-SigLIP2" else {}
    model = open_clip.create_model(name, pretrained=str(files[name]), **keys).eval()
    size = backbone.image_transform.crop
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, 2 * size, 3), dtype=np.uint8))
    prepare = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    with torch.inference_mode():
        expected = model.encode_text(own_tokens(name, files[name]))
        assert torch.allclose(backbone.text_features(pad_tokens(*backbone.tokenise(CAPTIONS))), expected, atol=1e-5)
        alone = [backbone.text_features(pad_tokens(*backbone.tokenise([caption])))[0] for caption in CAPTIONS]
        assert torch.allclose(torch.stack(alone), expected, atol=1e-5)  # whatever else is in the batch
        pixels = backbone.image_transform.pixels_of(picture)
        normalised = backbone.image_transform.normalise(pixels[None])
        assert (normalised - prepare(picture)[None]).abs().mean() < 0.02  # two ways of rounding
        expected = model.encode_image(normalised)
        assert torch.allclose(backbone.image_features(pixels[None]), expected, atol=1e-5)
    assert backbone.dimension == expected.shape[1]
    assert backbone.image_transform.square == (name == "tiny-SigLIP2")


def test_what_no_embedding_depends_on_gets_no_gradient(files):
    student = build_student(settings_of("tiny-SigLIP2", files["tiny-SigLIP2"]), LOSSES)
    model = student.backbone.model
    assert not model.logit_scale.requires_grad
    assert not model.logit_bias.requires_grad
    embeddings = student.encode_text(pad_tokens(*student.backbone.tokenise(CAPTIONS)), "cross")
    pixels = torch.randint(0, 255, (2, 3, 160, 160), dtype=torch.uint8)
    (embeddings.sum() + student.encode_image(pixels, "cross").sum()).backward()
    without = [name for name, each in student.named_parameters() if each.requires_grad and each.grad is None]
    assert without == []


def test_more_than_77_tokens_where_the_model_has_positions_for_them(files):
    long = "circle " * 300
    lengths = []
    for max_tokens in (77, 100, 500):
        backbone = OpenClip.load(settings_of("tiny-LongCLIP", files["tiny-LongCLIP"], max_tokens=max_tokens))
        tokens, _ = backbone.tokenise([long])
        lengths.append(len(tokens[0]))
        assert backbone.vocabulary().room == lengths[-1] - 2
    assert lengths == [77, 100, 120]


def test_a_folder_of_open_clip_is_a_student_by_its_path(files, tmp_path):
    """It is also what an export holds, and open_clip loads it without cusa."""
    import open_clip

    backbone = OpenClip.load(settings_of("tiny-SigLIP2", files["tiny-SigLIP2"]))
    backbone.save(tmp_path / "saved")
    student = build_student(StudentSettings(name=str(tmp_path / "saved")), LOSSES).eval()
    tokens = pad_tokens(*student.backbone.tokenise(CAPTIONS))
    with torch.inference_mode():
        expected = backbone.eval().text_features(tokens)
        assert torch.allclose(student.backbone.text_features(tokens), expected, atol=1e-6)
        place = f"local-dir:{tmp_path / 'saved'}"
        theirs = open_clip.create_model(place).eval().encode_text(open_clip.get_tokenizer(place)(CAPTIONS))
        assert torch.allclose(theirs, expected, atol=1e-5)
    assert student.backbone.image_transform == backbone.image_transform
    (tmp_path / "saved/open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="could not be had .*The folder needs weights that belong to"):
        build_student(StudentSettings(name=str(tmp_path / "saved")), LOSSES)


def test_weights_by_tag_and_what_belongs_to_them():
    """Nothing is fetched here: open_clip knows what its tags were trained with."""
    clip = _source("open_clip/ViT-B-32", "openai")
    assert (clip.name, clip.pretrained, clip.quick_gelu) == ("ViT-B-32", "openai", True)
    assert not _source("open_clip/ViT-B-32", "laion2b_s34b_b79k").quick_gelu
    siglip = _source("open_clip/ViT-B-16-SigLIP2", None)
    assert siglip.pretrained == "webli"
    assert siglip.looks["resize_mode"] == "squash"
    assert _source("open_clip/PE-Core-B-16", None).pretrained == "meta"
    assert _source("open_clip/MobileCLIP2-S0", None).looks["interpolation"] == "bilinear"
    assert _source("open_clip/ViT-H-14-378-quickgelu", None).pretrained == "dfn5b"
    assert _source("open_clip/hf-hub:timm/ViT-B-16-SigLIP2", None).beside_it
    assert _source("RN50", None).pretrained == "openai"


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-99", None, "open_clip [0-9.]+ has no architecture of this name among its [0-9]+ .near it: ViT-B-"),
        ("ViT-B-32", None, "has [0-9]+ sets of weights; give student.pretrained, one of them .openai, "),
        ("tiny-LongCLIP", None, "has 0 sets of weights; .*one of them .none. or the path of a file"),
        ("ViT-B-32", "laion3b", "knows no such weights of ViT-B-32; it knows openai, .*for instance ./laion3b.safet"),
        ("ViT-B-32", "./nowhere.pt", "student.pretrained ./nowhere.pt does not exist .relative paths start at "),
        ("hf-hub:a/b", "webli", "hf-hub:a/b has its weights beside it; leave it out"),
    ],
)
def test_names_that_open_clip_does_not_know_are_a_sentence(files, name, pretrained, message):
    with pytest.raises(ConfigurationError, match=message):
        build_student(StudentSettings(name=f"open_clip/{name}", pretrained=pretrained), LOSSES)


def test_files_that_do_not_fit_are_a_sentence(files, tmp_path):
    from safetensors.torch import load_file, save_file

    for broken, message in (
        (files["tiny-MobileCLIP"], r"could not be had .*has to hold the weights of this architecture"),
        (tmp_path / "evil.pt", r"could not be had .*has to hold the weights of this architecture"),
    ):
        if not broken.exists():
            broken.write_bytes(pickle.dumps(_Evil(tmp_path / "touched")))
        with pytest.raises(ConfigurationError, match=message):
            build_student(settings_of("tiny-LongCLIP", broken), LOSSES)
    assert not (tmp_path / "touched").exists()
    state = load_file(files["tiny-LongCLIP"])
    state["text_projection"][0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(DataError, match="1 of [0-9]+ weights .text_projection. hold NaN"):
        build_student(settings_of("tiny-LongCLIP", tmp_path / "nan.safetensors"), LOSSES)


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}, None),
        (lambda state: {"state_dict": state, "model": {"other": torch.ones(1)}}, None),
        (lambda state: {name: tensor.half() for name, tensor in state.items()}, None),
        (lambda state: {"model": state}, "holds no state dict|has its weights where open_clip does not look"),
        (
            lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
            "where open_clip does not look",
        ),
        (lambda state: {name: tensor.to(torch.int8) for name, tensor in state.items()}, "are quantised to 8 bits"),
        (lambda state: {}, "holds no state dict"),
        (lambda state: [state], "holds no state dict"),
    ],
)
def test_files_as_training_programs_write_them(files, tmp_path, wrap, says):
    """Read as open_clip reads them, or told what has to be changed."""
    from safetensors.torch import load_file

    torch.save(wrap(load_file(files["tiny-LongCLIP"])), tmp_path / "trained.pt")
    settings = settings_of("tiny-LongCLIP", tmp_path / "trained.pt")
    if says is None:
        assert {weight.dtype for weight in build_student(settings, LOSSES).parameters()} == {torch.float32}
    else:
        with pytest.raises(ConfigurationError, match=f"could not be had .*({says}).*has to hold the weights of this"):
            build_student(settings, LOSSES)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_file_that_is_something_else_is_called_so(files, tmp_path, ending):
    (tmp_path / f"weights{ending}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(
        ConfigurationError, match=r"could not be had .*it is a pointer of Git LFS, .*run `git lfs pull`"
    ):
        build_student(settings_of("tiny-LongCLIP", tmp_path / f"weights{ending}"), LOSSES)


def test_weights_that_open_clip_resizes_are_logged(files, tmp_path, caplog):
    """Positions of another size of pictures or length of texts than the architecture has."""
    import open_clip

    architecture = copy.deepcopy(ARCHITECTURES["tiny-LongCLIP"])
    architecture["text_cfg"]["context_length"] = 77
    (tmp_path / "tiny-ShortCLIP.json").write_text(json.dumps(architecture))
    open_clip.add_model_config(tmp_path)
    build_student(settings_of("tiny-ShortCLIP", files["tiny-LongCLIP"]), LOSSES)
    assert "1 of 62 weights (positional_embedding) have another shape than in the architecture" in caplog.text
    assert "positional_embedding is [120, 32] in the file and [77, 32] here" in caplog.text
    caplog.clear()
    build_student(settings_of("tiny-LongCLIP", files["tiny-LongCLIP"]), LOSSES)
    assert "another shape" not in caplog.text


class _Evil:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self):
        return (Path.touch, (self.touched,))


def test_a_tokeniser_that_cannot_be_had_is_a_sentence(files, tmp_path):
    import shutil

    file = Path(shutil.copy(files["tiny-SigLIP2"], tmp_path))
    with pytest.raises(ConfigurationError, match=r"the tokeniser of student.name open_clip/tiny-SigLIP2 could not be"):
        build_student(settings_of("tiny-SigLIP2", file), LOSSES)


def test_weights_in_a_file_are_prepared_for_as_their_architecture_is(files, tmp_path, caplog):
    """Where open_clip's weights of an architecture agree, a file of it is treated alike; else the log says so."""
    (tmp_path / "weights.pt").touch()
    file = str(tmp_path / "weights.pt")
    assert _source("open_clip/ViT-B-16-SigLIP2", file).looks["mean"] == (0.5, 0.5, 0.5)
    assert not caplog.records
    assert _source("open_clip/ViT-L-14", file).looks is None
    assert "pictures are prepared as OpenAI's CLIP does it" in caplog.text
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": SQUEEZED}))
    assert _source("open_clip/ViT-L-14", file).looks == SQUEEZED
    (tmp_path / "open_clip_config.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="does not say how pictures are prepared"):
        _source("open_clip/ViT-L-14", file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (224, 336)}, "takes 224 x 336 pixels; expected squares"),
        ({"size": 224, "resize_mode": "longest"}, "takes bars around pictures"),
    ],
)
def test_pictures_that_are_no_squares_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        image_transform_of({**SQUEEZED, **settings})


def test_pretrained_belongs_to_architectures_only():
    with pytest.raises(ConfigurationError, match="pretrained is 'webli', but name is 'google/siglip'; only the names"):
        validate(StudentSettings, {"name": "google/siglip", "pretrained": "webli"})
    assert "pretrained" not in StudentSettings(name="google/siglip").as_json()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PE-Core-T-16-384", "MobileCLIP2-S0"])
def test_the_smallest_of_todays_architectures(name):
    """With random weights, as big as they are."""
    import open_clip

    backbone = OpenClip.load(StudentSettings(name=f"open_clip/{name}"), weights=False).eval()
    captions = ["a red circle", "A large blue triangle and a cross, isn't it? " * 9]
    size = backbone.image_transform.crop
    with torch.inference_mode():
        expected = backbone.model.encode_text(open_clip.get_tokenizer(name)(captions))
        assert torch.allclose(backbone.text_features(pad_tokens(*backbone.tokenise(captions))), expected, atol=1e-5)
        pixels = torch.randint(0, 255, (1, 3, size, size), dtype=torch.uint8)
        assert backbone.image_features(pixels).shape == (1, backbone.dimension)


PAGE = Path(__file__).parents[2] / "docs/starting-weights.md"
LINES = re.findall(r"\| `((?:student|image|text): \{.+?\})` \|", PAGE.read_text())


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_page_on_starting_weights_names_what_exists(line, tmp_path, monkeypatch):
    """The names at hubs cannot be looked up here; those that open_clip and timm list can."""
    import timm

    monkeypatch.chdir(tmp_path)
    (tmp_path / "ViT-B-32.safetensors").touch()
    default = yaml.safe_load((PAGE.parents[1] / "config/config.yaml").read_text())
    given = yaml.safe_load(line)
    merged = copy.deepcopy(default)
    update_config(merged, given if "student" in given else {"teachers": given})
    configuration = load(merged)
    if "student" in given and given["student"]["name"].startswith("open_clip/"):
        assert _source(given["student"]["name"], given["student"].get("pretrained")).pretrained
    named = configuration.teachers.image.name
    if named.startswith("timm/"):
        assert named.removeprefix("timm/") in timm.list_pretrained()


def test_the_page_on_starting_weights_has_lines():
    assert len(LINES) > 20
