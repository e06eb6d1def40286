"""Published checkpoints, compared with the formulas of the paper; other files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from published_files import Hostile, checkpoint_of, clip_with_heads_of_64, save_checkpoint

from cusa.benchmarks.evaluation import evaluate
from cusa.common.files import read_json
from cusa.config.benchmarks import ImageTextRetrieval
from cusa.embeddings import embed
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.upstream.checkpoints import PublishedCheckpoint, import_checkpoint, load_checkpoint

ROOT = Path(__file__).parents[2]
WIDTH, TEXT_WIDTH, DIMENSION, PATCH, SIDE, WORDS, CONTEXT = 128, 64, 24, 8, 32, 40, 20


def openai_state(seed: int = 0, heads=("cross", "uni")) -> dict[str, torch.Tensor]:
    """A random CLIP with OpenAI's key names, two blocks per modality, and the heads of the published code.

    Like the CLIP of the published code, it has no `logit_scale`.
    """
    torch.manual_seed(seed)
    state = {
        "visual.class_embedding": torch.randn(WIDTH),
        "visual.positional_embedding": torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.conv1.weight": torch.randn(WIDTH, 3, PATCH, PATCH) * 0.1,
        "visual.proj": torch.randn(WIDTH, DIMENSION),
        "token_embedding.weight": torch.randn(WORDS, TEXT_WIDTH),
        "positional_embedding": torch.randn(CONTEXT, TEXT_WIDTH),
        "text_projection": torch.randn(TEXT_WIDTH, DIMENSION),
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
    """A transformer with pre-norm residual blocks, QuickGELU, and attention heads of 64 dimensions."""
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


def all_outputs(student):
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        images = [student.encode_image(pixels, head) for head in ("cross", "uni")]
        return images + [student.encode_text(TOKENS, head) for head in ("cross", "uni")]


def equal_outputs(one: Path, other: Path) -> bool:
    pairs = zip(all_outputs(load_checkpoint(one)), all_outputs(load_checkpoint(other)), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_a_logit_scale_changes_no_output(tmp_path):
    """The authors' CLIP has none, OpenAI's has one."""
    state = openai_state()
    assert "clip_model.logit_scale" not in state
    theirs = save_checkpoint(tmp_path / "theirs.pth", state)
    with_scale = save_checkpoint(tmp_path / "with.pth", state | {"clip_model.logit_scale": torch.tensor(2.0)})
    assert equal_outputs(theirs, with_scale)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"model": state, "epoch": None, "config": None, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": state},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"module": state, "ds_version": "0.1"},
        lambda state: {"net": state},
        lambda state: state,
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {name: tensor.double() for name, tensor in state.items()}},
    ],
)
def test_state_dicts_as_training_programs_wrap_them(tmp_path, wrap):
    state = openai_state()
    torch.save(wrap(state), tmp_path / "wrapped.pth")
    assert equal_outputs(tmp_path / "wrapped.pth", save_checkpoint(tmp_path / "plain.pth", state))


def test_weights_that_are_not_finite_are_listed(tmp_path):
    state = openai_state()
    state["clip_model.visual.proj"][0, 0] = torch.nan
    state["tau"] = torch.tensor(torch.inf)
    with pytest.raises(DataError, match=r"2 of \d+ weights \(clip_model.visual.proj, tau\) hold NaN or infinite"):
        load_checkpoint(save_checkpoint(tmp_path / "nan.pth", state))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensor: tensor.to("meta"), r"80 of 80 weights \(.*\) are without numbers"),
        (lambda tensor: tensor.to_sparse() if tensor.ndim == 2 else tensor, r"25 of 80 weights \(.*\) are sparse"),
        (lambda tensor: tensor.to(torch.complex64), "are complex; expected plain tensors of float32"),
        (lambda tensor: tensor.to(torch.int8) if tensor.ndim > 1 else tensor, "are quantised to 8 bits"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "are quantised to 8 bits"),
    ],
    ids=["meta", "sparse", "complex", "int8", "float8"],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_tensors_that_are_no_plain_numbers_are_told(tmp_path, change, says):
    """PyTorch would refuse some of them in the middle, and take others without their scales or imaginary parts."""
    save_checkpoint(tmp_path / "odd.pth", {name: change(tensor) for name, tensor in openai_state().items()})
    with pytest.raises(DataError, match=says):
        load_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("epoch", [torch.tensor([1, 2]), float("nan"), "best", None, torch.tensor(float("inf"))])
def test_an_epoch_that_is_no_number_is_none(tmp_path, epoch):
    torch.save({"model": openai_state(), "best_epoch": epoch}, tmp_path / "c.pth")
    assert PublishedCheckpoint.read(tmp_path / "c.pth").epoch == 0


@pytest.mark.parametrize("configuration", [{"schedular": "cosine"}, {"schedular": {"epochs": "many"}}])
def test_the_configuration_of_other_code_is_told(tmp_path, configuration):
    torch.save({"model": openai_state(), "config": configuration}, tmp_path / "c.pth")
    with pytest.raises(DataError, match="its `config` is not that of the published code"):
        _ = PublishedCheckpoint.read(tmp_path / "c.pth").epochs


@pytest.mark.parametrize("losses", ["kl", 3])
def test_losses_of_other_code_are_told(tmp_path, losses):
    torch.save({"model": openai_state(), "config": {"loss_config": losses}}, tmp_path / "c.pth")
    with pytest.raises(DataError, match="its `config` is not that of the published code"):
        _ = PublishedCheckpoint.read(tmp_path / "c.pth").losses


def test_a_temperature_of_several_numbers_is_told(tmp_path):
    save_checkpoint(tmp_path / "c.pth", openai_state() | {"tau": torch.ones(3)})
    with pytest.raises(DataError, match="`tau` has 3 numbers; expected the published"):
        load_checkpoint(tmp_path / "c.pth")


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
    narrow = {name: tensor[:32] if "visual.conv1" in name else tensor for name, tensor in state.items()}
    save_checkpoint(tmp_path / "narrow.pth", narrow)
    save_checkpoint(tmp_path / "flat.pth", {name: tensor.flatten() for name, tensor in state.items()})
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    for name, says in (
        ("lacks", "is not a checkpoint of the published code.*final_layer_norm"),
        ("hostile", "something else than tensors and plain values"),
        ("narrow", "is not a checkpoint of the published code"),
        ("flat", "is not a checkpoint of the published code"),
        ("other", "has no state dict with tensors named `clip_model....`"),
        ("none", "does not exist"),
    ):
        with pytest.raises(DataError, match=says):
            load_checkpoint(f"{name}.pth")
    assert not Path("was-here").exists()


@pytest.fixture(scope="module")
def clip_of_64(tmp_path_factory, tiny_clip) -> Path:
    return clip_with_heads_of_64(tiny_clip, tmp_path_factory.mktemp("clip") / "of-64")


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


def test_weights_that_would_have_one_name_are_refused_with_both(tmp_path):
    state = openai_state()
    torch.save({"model": state | {"module.tau": torch.tensor(0.5)}}, tmp_path / "both.pth")
    with pytest.raises(DataError, match=r"both.pth has the weights `tau` and `module.tau`, which are one weight"):
        PublishedCheckpoint.read(tmp_path / "both.pth")


@pytest.mark.parametrize(
    "epochs, expected",
    [
        ({"best_epoch": 3, "epoch": 7}, 3),
        ({"best_epoch": None, "epoch": 7}, 7),
        ({"best_epoch": 0, "epoch": 7}, 0),
        ({"epoch": "12"}, 12),
        ({"epoch": torch.tensor(5)}, 5),
        ({}, 0),
    ],
)
def test_the_epoch_is_the_first_number_that_is_there(tmp_path, caplog, epochs, expected):
    torch.save({"model": openai_state(), **epochs}, tmp_path / "x.pth")
    assert PublishedCheckpoint.read(tmp_path / "x.pth").epoch == expected
    assert not caplog.records


@pytest.mark.parametrize("epoch", [-3, float("nan"), "last"])
def test_an_epoch_that_is_no_number_from_0_is_told(tmp_path, caplog, epoch):
    torch.save({"model": openai_state(), "epoch": epoch}, tmp_path / "x.pth")
    assert PublishedCheckpoint.read(tmp_path / "x.pth").epoch == 0
    assert f"its epoch is {epoch!r}, which is no number from 0; 0 is recorded" in caplog.text


RESNET = {"clip_model.visual.layer1.0.conv1.weight": torch.zeros(3, 3, 1, 1)}
HUGGING_FACE = {"clip_model.vision_model.embeddings.class_embedding": torch.zeros(8)}


@pytest.mark.parametrize(
    "left_out, added, reason",
    [
        (
            "visual.",
            RESNET,
            "its image tower is a ResNet, `clip_model.visual.layer1....`; only vision transformers are",
        ),
        (
            "clip_model.",
            HUGGING_FACE,
            "it has Hugging Face's names, `clip_model.vision_model....`; only those of OpenAI",
        ),
        ("visual.positional", {}, "it lacks the tensor `clip_model.visual.positional_embedding`"),
        ("cross_text_projection", {}, "it lacks the tensor `ln_cross_text_projection.weight`"),
    ],
)
def test_what_a_checkpoint_lacks_is_named(tmp_path, left_out, added, reason):
    state = {name: tensor for name, tensor in openai_state().items() if left_out not in name} | added
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(DataError) as raised:
        load_checkpoint(tmp_path / "x.pth")
    assert f"({reason}" in str(raised.value)
