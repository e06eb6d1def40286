"""What the authors published, in the shape of their files, and files that only pretend to be that."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.benchmarks.evaluation import evaluate
from cusa.common.files import read_json
from cusa.config.benchmarks import ImageTextRetrieval
from cusa.config.configuration import load
from cusa.config.losses import LossConfiguration
from cusa.config.models import ImageModel
from cusa.config.section import validate
from cusa.embeddings import embed
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.teachers.store import FeatureStore
from cusa.upstream.checkpoints import import_checkpoint, load_checkpoint
from cusa.upstream.configurations import loss_config, read_config
from cusa.upstream.features import export_features, import_features, load_features

ROOT = Path(__file__).parents[2]


def soft(prefix: str, tau: float, low: float, high: float) -> dict:
    found = {}
    for side in ("image", "text"):
        found |= {f"{prefix}{side}_tau": tau, f"{prefix}{side}_tau_min": low, f"{prefix}{side}_tau_max": high}
    return found


def published(cross: bool = True, uni: bool = True) -> dict:
    """The values of all eight published configurations."""
    common = {"use_loss": "kl", "contrastive_loss_mode": "mean", **soft("the_softlabel_", 1.0, 0.1, 1.0)}
    return {
        "contrastive": {
            "is_on": True,
            "is_block_tau": False,
            "tau": 0.05,
            "tau_min": 0.01,
            "tau_max": 0.10,
            "rate": 1.0,
            "contrastive_loss_mode": "mean",
        },
        "cross_softlabel": {
            "is_on": cross,
            "use_same_tau": True,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 0.99),
            "rate": 0.10,
            **common,
            "cross_softlabel_mode": "each",
            "use_same_softlabel_tau": True,
            "is_block_softlabel_tau": True,
        },
        "uni_softlabel": {
            "is_on": uni,
            "use_cross_softlabel_same_tau": False,
            "use_same_tau": False,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 1.00),
            "rate": 0.50,
            **common,
            "use_cross_softlabel_same_softlabel_tau": True,
            "use_same_softlabel_tau": False,
            "is_block_softlabel_tau": True,
        },
    }


def test_cusa_is_our_default_with_shared_teacher_temperatures():
    expected = {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {"teacher_temperature": "cross"}}
    assert loss_config(published()) == validate(LossConfiguration, expected)


def test_only_contrastive():
    assert loss_config(published(cross=False, uni=False)) == validate(LossConfiguration, {"contrastive": {}})


def test_usa_alone_keeps_its_own_temperatures():
    found = loss_config(published(cross=False))
    assert found.cross_softlabel is None
    assert found.uni_softlabel.teacher_temperature.image.start == 1.0


def test_everything_else_their_test_file_exercises():
    mapping = copy.deepcopy(published())
    mapping["cross_softlabel"] |= {
        "use_same_tau": False,
        "is_block_softlabel_tau": False,
        "the_softlabel_text_tau": 0.3,
    }
    mapping["uni_softlabel"] |= {"use_cross_softlabel_same_softlabel_tau": False, "the_softlabel_text_tau": 0.02}
    found = loss_config(mapping)
    assert not found.cross_softlabel.temperature.tied
    assert found.cross_softlabel.teacher_temperature.learned
    assert found.uni_softlabel.teacher_temperature.text.start == 0.02  # below its minimum: clamped on the first step


def test_a_key_that_is_missing_is_named():
    mapping = published()
    del mapping["contrastive"]["tau_max"]
    with pytest.raises(ConfigurationError, match="'tau_max'"):
        loss_config(mapping)


# ---------------------------------------------------------------------------------------------- configurations


def published_yaml(folder: Path, student="ViT-B/32", batch_size=128, epochs=30, **changes) -> Path:
    content = {
        "save_path": "output/vitb32/coco/cusa",
        "dataset_name": "cross_coco",
        "data_path": "",
        "batch_size_train": batch_size,
        "batch_size_test": batch_size,
        "batch_size_testall": batch_size,
        "clip_model": student,
        "is_all_gather": False,
        "loss_config": published(),
        "optimizer": {"opt": "adamW", "lr": 0.00001, "weight_decay": 0.0001},
        "schedular": {
            "sched": "cosine",
            "epochs": epochs,
            "min_lr": 0.000001,
            "decay_rate": 1,
            "warmup_lr": 0.00001,
            "warmup_epochs": 0,
            "cooldown_epochs": 0,
        },
    }
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def test_a_published_configuration_becomes_an_overlay(tmp_path):
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    overlay = read_config(published_yaml(tmp_path, "ViT-L/14@336px", 16, 40))
    overlay = yaml.safe_load(yaml.safe_dump(overlay))
    merged = {**default, **overlay, "train": {**default["train"], **overlay["train"]}}
    run = load(merged).run("cusa", 23)
    assert run.student.name == "ViT-L/14@336px"
    assert run.losses == loss_config(published())
    train = run.train
    assert (train.epochs, train.batch_size, train.lr, train.min_lr) == (40, 16, 1e-5, 1e-6)
    assert (train.schedule, train.warmup_steps, train.weight_decay) == ("epoch", 0, 1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"is_all_gather": True}, "is_all_gather is True, only False is supported"),
        ({"optimizer": {"opt": "sgd", "lr": 1.0, "weight_decay": 0.0}}, "optimizer.opt is 'sgd'"),
        ({"schedular": None}, "lacks"),
        ({"loss_config": {}}, "every loss is off"),
    ],
)
def test_configurations_that_cannot_be_taken_over(tmp_path, changes, says):
    with pytest.raises(ConfigurationError, match=says):
        read_config(published_yaml(tmp_path, **changes))


def test_configuration_files_that_are_none(tmp_path):
    (tmp_path / "a.yaml").write_text("{a: [")
    with pytest.raises(ConfigurationError, match="is not valid YAML"):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_config(tmp_path / "none.yaml")


# ---------------------------------------------------------------------------------------------- features


def write_published_features(path: Path, content: object, protocol: int = 4) -> Path:
    """As np.save writes a dict, in any pickle protocol."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(content, dtype=object), file, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_features_are_read_in_every_protocol(tmp_path, protocol, dtype):
    rng = np.random.default_rng(0)
    content = {f"image{number}.jpg": rng.standard_normal((1, 2000)).astype(dtype) for number in range(5)}
    ids, features = load_features(write_published_features(tmp_path / "f.npy", content, protocol))
    assert ids == list(content)
    assert features.dtype == dtype
    assert np.array_equal(features, np.concatenate(list(content.values())))


def test_features_that_numpy_saved(tmp_path):
    content = {"b": np.arange(3.0)[None], "a": np.ones((1, 3))}
    np.save(tmp_path / "f.npy", content, allow_pickle=True)
    ids, features = load_features(tmp_path / "f.npy")
    assert ids == ["b", "a"]
    assert features.tolist() == [[0, 1, 2], [1, 1, 1]]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was-here",)


@pytest.mark.parametrize("hide", [lambda bad: bad, lambda bad: {"a": bad}, lambda bad: {"a": np.array([bad])}])
def test_a_hostile_file_of_features_runs_nothing(tmp_path, monkeypatch, hide):
    monkeypatch.chdir(tmp_path)
    write_published_features(tmp_path / "f.npy", hide(Hostile()))
    with pytest.raises(DataError, match=r"it asks for posix.system, .*nothing in it was executed"):
        load_features("f.npy")
    assert not Path("was-here").exists()
    np.load("f.npy", allow_pickle=True)  # the file would have done harm
    assert Path("was-here").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": np.ones((2, 3))}, r"shape \(2, 3\); expected floats of shape \(1, d\)"),
        ({"a": np.ones((1, 3), dtype=int)}, "expected floats"),
        ({"a": 7}, "no image id with a row"),
        ({7: np.ones((1, 3))}, "no image id with a row"),
        ({}, "holds no features"),
    ],
)
def test_features_of_another_shape_are_refused(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        load_features(write_published_features(tmp_path / "f.npy", content))


def test_files_that_are_no_features(tmp_path):
    np.save(tmp_path / "plain.npy", np.ones(3))
    (tmp_path / "text.npy").write_text("hello")
    whole = write_published_features(tmp_path / "whole.npy", {"a": np.ones((1, 5000))}).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-500])
    for name, says in (
        ("plain", "expected one pickled dict"),
        ("text", "is not a published file of features"),
        ("cut", "is not a published file of features"),
        ("none", "does not exist"),
    ):
        with pytest.raises(DataError, match=says):
            load_features(tmp_path / f"{name}.npy")


UNICOM = ImageModel(name="unicom")


def test_features_go_in_and_out(shapes_data, tmp_path):
    import shutil

    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    images = read_table(folder.annotations, IMAGES)
    ids = [images["image_id"][int(row)].as_py() for row in split_rows(images, "train")]
    rng = np.random.default_rng(0)
    content = {image_id: rng.standard_normal((1, 50)).astype(np.float16) for image_id in sorted(ids)}
    content["somebody-else.jpg"] = np.zeros((1, 50), np.float16)
    import_features(write_published_features(tmp_path / "f.npy", content), folder, "train", UNICOM)
    output = folder.features("image", UNICOM.folder, "train")
    store = FeatureStore(output, len(ids), UNICOM.identity)
    expected = np.concatenate([content[image_id] for image_id in ids])
    assert np.array_equal(store.arrays[0], expected)
    assert read_json(output / "meta.json")["imported_from"]["file"] == "f.npy"
    assert [path.name for path in output.parent.iterdir()] == ["train"]

    export_features(folder, "train", UNICOM, tmp_path / "out.npy")
    found, features = load_features(tmp_path / "out.npy")
    assert found == ids
    assert np.array_equal(features, expected.astype(np.float32))


def test_features_that_lack_images_are_refused_with_examples(shapes_data, tmp_path):
    import shutil

    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    path = write_published_features(tmp_path / "f.npy", {"x": np.ones((1, 4))})
    with pytest.raises(DataError, match=r"no features for 8 of the 8 images of val, for instance .*\.jpg"):
        import_features(path, folder, "val", UNICOM)
    assert not folder.features("image", UNICOM.folder, "val").exists()


def test_importing_holds_one_row_at_a_time(tmp_path):
    """200 rows of 1 MB: their bytes must not stay in the unpickler's memo."""
    path = write_published_features(
        tmp_path / "f.npy", {f"{number}": np.zeros((1, 262_144), np.float32) for number in range(200)}
    )
    code = (
        "from pathlib import Path\n"
        "import cusa.upstream as u\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        f"assert len(u._read_feature_dict({str(path)!r}, lambda row: None)) == 200\n"
        "assert peak() - before < 40_000, peak() - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------------- checkpoints

WIDTH, TEXT_WIDTH, DIMENSION, PATCH, SIDE, WORDS, CONTEXT = 128, 64, 24, 8, 32, 40, 20


def openai_state(seed: int = 0, heads=("cross", "uni")) -> dict[str, torch.Tensor]:
    """A CLIP in OpenAI's key layout, two blocks a side, with the heads of the published code; all random."""
    torch.manual_seed(seed)
    state = {
        "visual.class_embedding": torch.randn(WIDTH),
        "visual.positional_embedding": torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.conv1.weight": torch.randn(WIDTH, 3, PATCH, PATCH) * 0.1,
        "visual.proj": torch.randn(WIDTH, DIMENSION),
        "token_embedding.weight": torch.randn(WORDS, TEXT_WIDTH),
        "positional_embedding": torch.randn(CONTEXT, TEXT_WIDTH),
        "text_projection": torch.randn(TEXT_WIDTH, DIMENSION),
        "logit_scale": torch.tensor(2.0),
    }
    norms = {"visual.ln_pre": WIDTH, "visual.ln_post": WIDTH, "ln_final": TEXT_WIDTH}
    for prefix, width in (("visual.transformer.resblocks", WIDTH), ("transformer.resblocks", TEXT_WIDTH)):
        for block in (f"{prefix}.0", f"{prefix}.1"):
            norms |= {f"{block}.ln_1": width, f"{block}.ln_2": width}
            state[f"{block}.attn.in_proj_weight"] = torch.randn(3 * width, width) * 0.1
            state[f"{block}.attn.in_proj_bias"] = torch.randn(3 * width) * 0.1
            for name, rows, columns in (("attn.out_proj", width, width), ("mlp.c_fc", 4 * width, width)):
                state[f"{block}.{name}.weight"] = torch.randn(rows, columns) * 0.1
                state[f"{block}.{name}.bias"] = torch.randn(rows) * 0.1
            state[f"{block}.mlp.c_proj.weight"] = torch.randn(width, 4 * width) * 0.1
            state[f"{block}.mlp.c_proj.bias"] = torch.randn(width) * 0.1
    for name, width in norms.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)
    state = {f"clip_model.{name}": tensor for name, tensor in state.items()}
    for head in heads:
        for side in ("image", "text"):
            state[f"{head}_{side}_projection.weight"] = torch.randn(DIMENSION, DIMENSION)
            state[f"{head}_{side}_projection.bias"] = torch.randn(DIMENSION)
            state[f"ln_{head}_{side}_projection.weight"] = torch.randn(DIMENSION)
            state[f"ln_{head}_{side}_projection.bias"] = torch.randn(DIMENSION)
    return state | {"tau": torch.tensor(0.03), "cross_tau": torch.tensor(0.4), "uni_tau_image": torch.tensor(0.5)}


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def transformer(state, prefix, x, mask):
    """Pre-norm residual blocks; QuickGELU; heads of 64."""
    for block in (f"{prefix}.0", f"{prefix}.1"):
        inner = norm(state, f"{block}.ln_1", x)
        joined = inner @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
        mixed = []
        for part in range(x.shape[-1] // 64):
            columns = slice(64 * part, 64 * part + 64)
            q, k, v = (piece[..., columns] for piece in joined.chunk(3, dim=-1))
            mixed.append(F.softmax(q @ k.transpose(1, 2) / 8 + mask, dim=-1) @ v)
        out = state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"]
        x = x + F.linear(torch.cat(mixed, dim=-1), *out)
        hidden = F.linear(
            norm(state, f"{block}.ln_2", x), state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"]
        )
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + F.linear(hidden, state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"])
    return x


def reference_image(state, pixels):
    clip = {name.removeprefix("clip_model."): tensor for name, tensor in state.items()}
    patches = F.conv2d(pixels, clip["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    first = clip["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches], dim=1) + clip["visual.positional_embedding"]
    x = transformer(clip, "visual.transformer.resblocks", norm(clip, "visual.ln_pre", x), 0.0)
    return norm(clip, "visual.ln_post", x[:, 0]) @ clip["visual.proj"]


def reference_text(state, ids):
    clip = {name.removeprefix("clip_model."): tensor for name, tensor in state.items()}
    x = clip["token_embedding.weight"][ids] + clip["positional_embedding"][: ids.shape[1]]
    mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
    x = norm(clip, "ln_final", transformer(clip, "transformer.resblocks", x, mask))
    return x[torch.arange(len(ids)), ids.argmax(dim=1)] @ clip["text_projection"]


def reference_head(state, features, name):
    weights = state[f"{name}_projection.weight"], state[f"{name}_projection.bias"]
    return F.linear(norm(state, f"ln_{name}_projection", features), *weights)


def save_checkpoint(path: Path, state: dict, **more) -> Path:
    torch.save({"model": state, "epoch": 4, "best": 70.1, "best_epoch": 3, **more}, path)
    return path


TOKENS = torch.tensor([[38, 5, 9, 39, 0, 0], [38, 7, 7, 7, 39, 0]])


@pytest.mark.parametrize("head", ["cross", "uni"])
def test_a_checkpoint_gives_what_its_formulas_say(tmp_path, head):
    state = openai_state()
    student = load_checkpoint(save_checkpoint(tmp_path / "checkpoint_best.pth", state))
    pixels = torch.randn(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        image, text = student.encode_image(pixels, head), student.encode_text(TOKENS, head)
    assert torch.allclose(image, reference_head(state, reference_image(state, pixels), f"{head}_image"), atol=1e-3)
    assert torch.allclose(text, reference_head(state, reference_text(state, TOKENS), f"{head}_text"), atol=1e-3)


def test_pixels_may_be_bytes(tmp_path):
    student = load_checkpoint(save_checkpoint(tmp_path / "c.pth", openai_state()))
    pixels = torch.randint(0, 255, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    normalised = student.backbone.image_transform.normalise(pixels)
    with torch.inference_mode():
        assert torch.equal(student.encode_image(pixels, "cross"), student.encode_image(normalised, "cross"))


def test_half_precision_and_wrapped_checkpoints(tmp_path):
    """fp16 tensors, and names as DistributedDataParallel writes them."""
    state = {f"module.{name}": tensor.half() for name, tensor in openai_state().items()}
    student = load_checkpoint(save_checkpoint(tmp_path / "c.pth", state))
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    assert not student.training


def test_a_head_that_is_not_there_is_the_features_before(tmp_path):
    state = openai_state(heads=("cross",))
    student = load_checkpoint(save_checkpoint(tmp_path / "c.pth", state))
    with torch.inference_mode():
        assert torch.allclose(student.encode_text(TOKENS, "uni"), reference_text(state, TOKENS), atol=1e-3)


def test_checkpoints_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = openai_state()
    lacking = {name: tensor for name, tensor in state.items() if "ln_final" not in name}
    save_checkpoint(tmp_path / "lacks.pth", lacking)
    save_checkpoint(tmp_path / "hostile.pth", state, config=Hostile())
    torch.save(state, tmp_path / "bare.pth")
    for name, says in (
        ("lacks", "is not a checkpoint of the published code.*final_layer_norm"),
        ("hostile", "something else than tensors and plain values"),
        ("bare", "no state dict under the key `model`"),
        ("none", "does not exist"),
    ):
        with pytest.raises(DataError, match=says):
            load_checkpoint(f"{name}.pth")
    assert not Path("was-here").exists()


def checkpoint_of(student_folder: Path, path: Path) -> Path:
    """A checkpoint with the sizes of a Hugging Face folder, whose names are translated back by hand."""
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(student_folder)
    state, dimension, clip = model.state_dict(), model.config.projection_dim, {}
    special = {
        "visual_projection.weight": "visual.proj",
        "text_projection.weight": "text_projection",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
        "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
        "vision_model.post_layernorm.weight": "visual.ln_post.weight",
        "vision_model.post_layernorm.bias": "visual.ln_post.bias",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
        "logit_scale": "logit_scale",
    }
    for name, tensor in state.items():
        if name in special:
            clip[special[name]] = tensor.T if "projection" in name else tensor
        elif "q_proj" in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            target = name.replace("self_attn.q_proj.", "attn.in_proj_")
            clip[openai_block(target)] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            clip[openai_block(name)] = tensor
    heads = {}
    for side in ("image", "text"):
        heads[f"cross_{side}_projection.weight"] = torch.randn(dimension, dimension)
        heads[f"cross_{side}_projection.bias"] = torch.zeros(dimension)
        heads[f"ln_cross_{side}_projection.weight"] = torch.ones(dimension)
        heads[f"ln_cross_{side}_projection.bias"] = torch.zeros(dimension)
    whole = {f"clip_model.{name}": tensor for name, tensor in clip.items()} | heads | {"tau": torch.tensor(0.03)}
    config = {"loss_config": published(cross=False, uni=False), "schedular": {"epochs": 30}}
    return save_checkpoint(path, whole, config=config)


def openai_block(name: str) -> str:
    for ours, theirs in (
        ("vision_model.encoder.layers", "visual.transformer.resblocks"),
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("self_attn", "attn"),
        ("layer_norm", "ln_"),
        ("fc1", "c_fc"),
        ("fc2", "c_proj"),
    ):
        name = name.replace(ours, theirs)
    return name


@pytest.fixture(scope="module")
def clip_of_64(tmp_path_factory, tiny_clip) -> Path:
    return clip_with_heads_of_64(tiny_clip, tmp_path_factory.mktemp("clip") / "of-64")


def clip_with_heads_of_64(tiny_clip: Path, folder: Path) -> Path:
    """Like tiny_clip, with heads of 64 as OpenAI's models have."""
    import shutil

    from transformers import CLIPConfig, CLIPModel

    shutil.copytree(tiny_clip, folder)
    torch.manual_seed(5)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = sizes | {"vocab_size": 32, "max_position_embeddings": 32, "eos_token_id": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    return folder


def test_an_imported_checkpoint_is_a_run_that_benchmarks_work_on(shapes_data, clip_of_64, tmp_path):
    path = checkpoint_of(clip_of_64, tmp_path / "checkpoint_best.pth")
    run, folder = tmp_path / "runs/theirs/seed23", DatasetFolder(shapes_data)
    import_checkpoint(path, run, "shapes", str(clip_of_64))
    embed(run, folder, "test", run / "embeddings/test")
    queries = run / "benchmarks/itr.queries.npz"
    evaluate("itr", folder, run, run / "benchmarks/itr.json", queries, ImageTextRetrieval())
    result = read_json(run / "benchmarks/itr.json")
    assert result["experiment"] == "theirs"
    assert 0 <= result["metrics"]["rsum"] <= 600
    about = read_json(run / "run.json")
    assert about["selected_epoch"] == 3
    assert about["temperatures"] == {"tau": pytest.approx(0.03)}
    assert "selects on the test set" in about["selected_because"]
    with pytest.raises(DataError, match="nothing is overwritten"):
        import_checkpoint(path, run, "shapes", str(clip_of_64))


def test_weights_that_do_not_fit_the_student_are_refused(tiny_clip, tmp_path):
    path = save_checkpoint(tmp_path / "c.pth", openai_state())
    with pytest.raises(DataError, match=r"do not fit the student .*Unexpected key"):
        import_checkpoint(path, tmp_path / "run/seed1", "shapes", str(tiny_clip))
    assert not (tmp_path / "run").exists()
