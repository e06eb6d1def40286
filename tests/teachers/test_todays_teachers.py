"""Today's teachers, by random weights of their architectures, against what their own libraries compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cusa.config.models import ImageModel, StudentSettings, TextModel
from cusa.errors import ConfigurationError
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_image_encoder, load_text_encoder

CPU = torch.device("cpu")
WORDS = ["a", "red", "blue", "circle", "large", "query", "title", "none", ":", "|", "Instruct", "task"]
TEXTS = ["a red circle", "blue", "a large blue circle " * 30, ""]
PROMPTS = {"query": "Instruct: a task : ", "document": "title: none | "}


def write_tokeniser(folder: Path, start: str | None, end: str | None, side: str) -> None:
    """A tokeniser of words with the special tokens of a kind of model, which pads on one side."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", *WORDS])}
    tokeniser = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [token for token in (start, end) if token is not None]
    template = " ".join([*([start] if start else []), "$A", *([end] if end else [])])
    tokeniser.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in around]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokeniser, model_max_length=400, padding_side=side, **names)
    wrapped.save_pretrained(folder)


def write_sentence_model(folder: Path, network, pooling: str, dense: bool = False, **prompts) -> Path:
    """A network of transformers with pooling and normalisation, as its authors publish it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    network.save_pretrained(folder / "network")
    transformer = parts.Transformer(str(folder / "network"), max_seq_length=300)
    width = transformer.get_embedding_dimension()
    modules = [transformer, parts.Pooling(width, pooling)]
    if dense:
        identity = torch.nn.Identity()
        modules += [parts.Dense(width, 64, bias=False, activation_function=identity)]
        modules += [parts.Dense(64, width, bias=False, activation_function=identity)]
    model = SentenceTransformer(modules=[*modules, parts.Normalize()], device="cpu", prompts=prompts)
    model.save(str(folder / "model"))
    return folder / "model"


def qwen3(folder: Path) -> Path:
    """Qwen3-Embedding: a language model that is read at its last token, the end of the text, and pads on the left."""
    from transformers import Qwen3Config, Qwen3Model

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen3Config(vocab_size=16, head_dim=8, num_key_value_heads=2, max_position_embeddings=512, **sizes)
    write_tokeniser(folder / "network", None, "</s>", "left")
    return write_sentence_model(folder, Qwen3Model(config), "lasttoken", **PROMPTS)


def embedding_gemma(folder: Path) -> Path:
    """EmbeddingGemma: a Gemma 3 that reads in both directions, the mean of its tokens, and two dense layers."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Gemma3TextConfig(
        vocab_size=16, head_dim=8, num_key_value_heads=1, use_bidirectional_attention=True, sliding_window=16, **sizes
    )
    write_tokeniser(folder / "network", "<s>", "</s>", "right")
    return write_sentence_model(folder, Gemma3TextModel(config), "mean", dense=True, **PROMPTS)


def bge_m3(folder: Path) -> Path:
    """BGE-M3: an XLM-RoBERTa with many positions, read at its first token."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = XLMRobertaConfig(vocab_size=16, max_position_embeddings=402, pad_token_id=0, **sizes)
    write_tokeniser(folder / "network", "<s>", "</s>", "right")
    return write_sentence_model(folder, XLMRobertaModel(config), "cls")


TEXT_TEACHERS = {"Qwen3-Embedding": qwen3, "EmbeddingGemma": embedding_gemma, "BGE-M3": bge_m3}


@pytest.fixture(scope="module", params=list(TEXT_TEACHERS))
def sentences(request, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "network").mkdir()
    return TEXT_TEACHERS[request.param](folder)


def reference(folder: Path, **keys: object) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", truncate_dim=keys.pop("truncate_dim", None)).encode(
        TEXTS, **keys
    )


def encoded(folder: Path, **keys: object) -> np.ndarray:
    return encode_texts(load_text_encoder(TextModel(name=str(folder), **keys)), TEXTS, 3, CPU)


def test_a_text_teacher_equals_sentence_transformers(sentences):
    """Also texts of other lengths in a batch, which are padded here on the right, and an empty one."""
    assert np.abs(encoded(sentences) - reference(sentences)).max() < 1e-5


def test_a_prompt_comes_before_each_text(sentences):
    if "BGE" in str(sentences):
        assert np.abs(encoded(sentences, prompt="a large: ") - reference(sentences, prompt="a large: ")).max() < 1e-5
        return
    for name in PROMPTS:
        found = encoded(sentences, prompt=name)
        assert np.abs(found - reference(sentences, prompt_name=name)).max() < 1e-5
        assert np.abs(found - encoded(sentences)).max() > 1e-3


def test_embeddings_can_be_cut_to_their_first_numbers(sentences):
    found = encoded(sentences, matryoshka_dimension=12)
    expected = reference(sentences, truncate_dim=12, normalize_embeddings=True)
    assert found.shape == (4, 12)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5


def test_more_numbers_than_there_are_and_cuts_that_no_one_makes_are_a_sentence(tiny_sentences, tmp_path):
    with pytest.raises(ConfigurationError, match="matryoshka_dimension of the text model .* is 21, but its embeddings"):
        encoded(tiny_sentences, matryoshka_dimension=21)
    assert encoded(tiny_sentences, matryoshka_dimension=20).shape == (4, 20)
    (tmp_path / "words.py").write_text(
        "from cusa.teachers.encoders import TextEncoder\n\n\nclass Words(TextEncoder):\n    dimension = 3\n\n\n"
        "def text_encoder(model):\n    return Words()\n"
    )
    with pytest.raises(ConfigurationError, match="its encoder Words gives 3 numbers and cuts none; leave it out"):
        load_text_encoder(TextModel(name=str(tmp_path / "words.py"), matryoshka_dimension=2))


def test_each_length_of_embeddings_has_a_folder_of_its_own():
    names = [TextModel(name="a/b", matryoshka_dimension=each) for each in (None, 128, 256)]
    assert [each.folder for each in names] == ["a--b", "a--b-128d", "a--b-256d"]
    assert names[1].identity == "a/b, the first 128 numbers"
    assert "matryoshka" not in names[0].as_json()
    both = TextModel(name="a/b", prompt="q: ", matryoshka_dimension=8)
    assert both.folder.startswith("a--b-prompt-")
    assert both.folder.endswith("-8d")


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def dinov3(folder: Path) -> None:
    """DINOv3's vision transformer: a class token, registers, and rotary positions."""
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    DINOv3ViTModel(DINOv3ViTConfig(image_size=32, patch_size=8, num_register_tokens=4, **SIZES)).save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def dinov3_convnext(folder: Path) -> None:
    """DINOv3's ConvNeXt."""
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTImageProcessor

    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64)
    DINOv3ConvNextModel(config).save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def mlcd(folder: Path) -> None:
    """MLCD: a class token, and rotary positions in two dimensions."""
    from transformers import CLIPImageProcessor, MLCDVisionConfig, MLCDVisionModel

    MLCDVisionModel(MLCDVisionConfig(image_size=32, patch_size=8, **SIZES)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def siglip2(folder: Path) -> None:
    """SigLIP 2 for one size, which is a SigLIP with Gemma's vocabulary: its vision side."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    config = SiglipConfig(
        text_config=SIZES | {"vocab_size": 64, "projection_size": 32, "max_position_embeddings": 64},
        vision_config=SIZES | {"image_size": 32, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


IMAGE_TEACHERS = {"DINOv3": dinov3, "DINOv3 ConvNeXt": dinov3_convnext, "MLCD": mlcd, "SigLIP 2": siglip2}


@pytest.mark.parametrize("kind", list(IMAGE_TEACHERS))
def test_an_image_teacher_equals_transformers(kind, tmp_path):
    from transformers import AutoModel

    torch.manual_seed(0)
    IMAGE_TEACHERS[kind](tmp_path)
    encoder = load_image_encoder(ImageModel(name=str(tmp_path)))
    side = encoder.transform.crop
    pixels = torch.randint(0, 255, (2, 3, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        model = AutoModel.from_pretrained(tmp_path).eval()
        vision = getattr(model, "vision_model", model)
        expected = vision(pixel_values=encoder.transform.normalise(pixels)).pooler_output
        found = encoder(pixels)
    assert found.shape == (2, encoder.dimension) == (2, 32)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_the_perception_encoder_of_timm(tmp_path):
    """PE's vision side at another size than it was trained with, as a folder that timm saved."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model("vit_pe_core_tiny_patch16_384", pretrained=False, img_size=64, depth=2).eval()
    arguments = {"img_size": 64, "depth": 2}
    save_for_hf(network, str(tmp_path), model_args=arguments, safe_serialization=True)
    encoder = load_image_encoder(ImageModel(name=str(tmp_path), image_size=64))
    pixels = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        normalised = encoder.transform.normalise(pixels)
        expected = network.forward_head(network.forward_features(normalised), pre_logits=True)
        found = encoder(pixels)
    assert found.shape == (2, encoder.dimension)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_siglip2_for_pictures_of_any_shape_is_refused_with_the_name_of_another(tmp_path, tiny_siglip):
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    from cusa.student.registry import load_backbone

    text = SIZES | {"vocab_size": 32, "projection_size": 32, "max_position_embeddings": 16}
    config = Siglip2Config(text_config=text, vision_config=SIZES | {"num_patches": 16, "patch_size": 8})
    Siglip2Model(config).save_pretrained(tmp_path)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((tiny_siglip / file).read_bytes())
    for load in (
        lambda: load_image_encoder(ImageModel(name=str(tmp_path))),
        lambda: load_backbone(StudentSettings(name=str(tmp_path))),
    ):
        with pytest.raises(ConfigurationError, match=r"\(NaFlex\).*for instance google/siglip2-base-patch16-224"):
            load()
