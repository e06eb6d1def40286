"""Unicom against a float64 reference written from its description, and everything its loader refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cusa.config.models import ImageModel
from cusa.config.section import validate
from cusa.errors import ConfigurationError, DataError
from cusa.teachers import unicom
from cusa.teachers.encoders import configured_weights_sha256, weights_sha256
from cusa.teachers.registry import load_image_encoder

TINY = unicom.Sizes(dimension=128, depth=2, patch=8, tokens=16, hidden=96, embedding=12)


@pytest.fixture(scope="module")
def network() -> unicom.Unicom:
    """A small Unicom whose every tensor is random, running statistics included."""
    torch.manual_seed(0)
    made = unicom.Unicom(TINY)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape) * 0.2
            tensor.copy_(values.abs() + 0.5 if "var" in name else values + ("norm" in name and "weight" in name))
    return made.eval()


@pytest.fixture
def weights(network, tmp_path) -> Path:
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def reference(state: dict[str, np.ndarray], pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and embedding of one picture [3, 32, 32], by the page: loops, no torch."""

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def batch_norm(x, name):
        scaled = (x - state[f"{name}.running_mean"]) / np.sqrt(state[f"{name}.running_var"] + 2e-5)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    kernel, tokens = state["patch_embed.proj.weight"], []
    for row in range(4):
        for column in range(4):
            patch = pixels[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            tokens.append((kernel * patch).sum(axis=(1, 2, 3)) + state["patch_embed.proj.bias"])
    x = np.stack(tokens) + state["pos_embed"][0]
    for block in ("blocks.0", "blocks.1"):
        q, k, v = np.split(norm(x, f"{block}.norm1") @ state[f"{block}.attn.qkv.weight"].T, 3, axis=1)
        mixed = []
        for head in (slice(0, 64), slice(64, 128)):
            logits = q[:, head] @ k[:, head].T / 8
            attention = np.exp(logits - logits.max(axis=1, keepdims=True))
            mixed.append(attention / attention.sum(axis=1, keepdims=True) @ v[:, head])
        x = x + np.concatenate(mixed, axis=1) @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
        inner = norm(x, f"{block}.norm2") @ state[f"{block}.mlp.fc1.weight"].T + state[f"{block}.mlp.fc1.bias"]
        x = x + np.clip(inner, 0, 6) @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]
    flat = norm(x, "norm").reshape(-1)
    squeezed = batch_norm(state["feature.0.weight"] @ flat, "feature.1")
    return flat, batch_norm(state["feature.2.weight"] @ squeezed, "feature.3")


def test_it_equals_the_reference(network):
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    pixels = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        tokens, embedding = network.tokens(pixels), network.embedding(pixels)
    for number in range(3):
        expected = reference(state, pixels[number].double().numpy())
        assert np.abs(tokens[number].numpy() - expected[0]).max() < 1e-4
        assert np.abs(embedding[number].numpy() - expected[1]).max() < 1e-4 * np.abs(expected[1]).max()


def test_sizes_are_read_off_the_state_dict(weights):
    loaded = unicom.load(weights)
    assert loaded.sizes == TINY
    assert not loaded.training
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    assert loaded.tokens(torch.zeros(2, 3, 32, 32)).shape == (2, 16 * 128)
    assert loaded.embedding(torch.zeros(2, 3, 32, 32)).shape == (2, 12)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {name: tensor.double() if "norm" in name else tensor for name, tensor in state.items()},
    ],
)
def test_wrapped_state_dicts_and_mixed_types_are_the_same_network(network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "wrapped.pt")
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(unicom.load(tmp_path / "wrapped.pt").embedding(pixels), network.embedding(pixels))


@pytest.mark.parametrize(
    ("model", "sizes", "numbers"),
    [
        ("ViT-B/32", unicom.Sizes(768, 12, 32, 49, 3072, 512), 37_632),
        ("ViT-L/14@336px", unicom.Sizes(1024, 24, 14, 576, 4096, 768), 589_824),
    ],
)
def test_the_released_sizes(model, sizes, numbers):
    assert model in unicom.RELEASED
    assert sizes.input_side in (224, 336)
    with torch.device("meta"):
        network = unicom.Unicom(sizes)
    assert network.feature[0].in_features == numbers
    assert unicom.read_sizes(network.state_dict()) == sizes


def test_attention_and_norms_stay_in_float32(network):
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output.dtype}))
        for name, module in network.named_modules()
        if name in ("blocks.0.attn.qkv", "blocks.0.attn", "blocks.0.norm1", "blocks.0.mlp.fc1")
    ]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        network.tokens(torch.randn(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert seen.pop("blocks.0.mlp.fc1") == torch.bfloat16
    assert set(seen.values()) == {torch.float32}


def test_pixels_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match=r"shape \(1, 3, 16, 16\); expected \[B, 3, 32, 32\]"):
        network.tokens(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(("features", "dimension"), [("tokens", 2048), ("embedding", 12)])
def test_as_a_teacher(weights, network, features, dimension):
    settings = validate(ImageModel, {"name": "unicom", "unicom": {"weights": str(weights), "features": features}})
    encoder = load_image_encoder(settings)
    assert encoder.dimension == dimension
    assert encoder.transform.crop == 32
    assert encoder.name == settings.identity == f"unicom/ViT-B/32/{features}"
    assert weights_sha256(encoder) == configured_weights_sha256(settings)
    pixels = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert encoder(pixels).shape == (2, dimension)
    assert settings.folder == f"unicom--ViT-B--32--{features}"


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was-here",)


def test_a_hostile_file_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"pos_embed": Hostile()}, "hostile.pt")
    with pytest.raises(DataError, match="hostile.pt is damaged, or holds something else than tensors"):
        unicom.load("hostile.pt")
    assert not Path("was-here").exists()


@pytest.mark.filterwarnings("ignore:.*looks like a TorchScript archive")
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:FutureWarning")  # people have such files nevertheless
def test_files_that_are_something_else(tmp_path, network):
    torch.save([1, 2], tmp_path / "list.pt")
    state = network.state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name != "norm.weight"}, tmp_path / "lacks.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save({**state, "pos_embed": torch.zeros(5)}, tmp_path / "flat.pt")
    torch.save({**state, "pos_embed": torch.zeros(1, 15, 128)}, tmp_path / "oblong.pt")
    torch.save({**state, "blocks.one.norm1.weight": torch.zeros(1)}, tmp_path / "named.pt")
    torch.save({**state, "norm.bias": torch.full((128,), torch.nan)}, tmp_path / "nan.pt")
    torch.save(network, tmp_path / "network.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, says in (
        ("list", "something else than a mapping"),
        ("lacks", "norm.weight"),
        ("other", r"is not a Unicom state dict \(KeyError: 'pos_embed'\)"),
        ("flat", "is not a Unicom state dict"),
        ("oblong", r"pos_embed is \[1, 15, 128\], but a network has a square number of patches"),
        ("named", "is not a Unicom state dict"),
        ("nan", r"1 of \d+ weights \(norm.bias\) hold NaN or infinite numbers"),
        ("network", "something else than tensors"),
        ("script", "something else than tensors"),
        ("text", "is damaged"),
        ("none", "does not exist"),
    ):
        with pytest.raises(DataError, match=says):
            unicom.load(tmp_path / f"{name}.pt")


def test_a_download_that_is_damaged_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "cusa").mkdir()
    (tmp_path / "cusa/FP16-ViT-B-32.pt").write_bytes(b"half of it")
    with pytest.raises(ConfigurationError, match=r"released file has f9d5696a9b58.*delete it to fetch it again"):
        load_image_encoder(ImageModel(name="unicom"))


def test_without_a_network_the_key_to_set_is_named(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    with pytest.raises(ConfigurationError, match=r"could not be fetched .*no route.*teachers.image.unicom.weights"):
        load_image_encoder(ImageModel(name="unicom"))
    assert not list((tmp_path / "cusa").iterdir())


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"name": "efficientnet-lite0", "unicom": {}}, "`unicom` is given but `name` is efficientnet-lite0"),
        ({"name": "unicom", "image_size": 96}, "Unicom's input size is fixed by its weights"),
        ({"name": "unicom", "unicom": {"model": "ViT-H/14"}}, "key `unicom.model` is 'ViT-H/14'"),
    ],
)
def test_contradictions(mapping, says):
    with pytest.raises(ConfigurationError, match=says):
        validate(ImageModel, mapping)
