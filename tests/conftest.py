"""Small real data and small real models, made here: nothing is downloaded, nothing outside the repository is needed."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image, ImageDraw
from snakemake_runs import output_of_snakemake

from cusa.common.garbage import collect_rarely

if TYPE_CHECKING:
    import pyarrow as pa
    from playwright.sync_api import Browser

    from cusa.layout import DatasetFolder
    from cusa.model.interface import RetrievalModel

collect_rarely()
os.environ["HF_HUB_OFFLINE"] = "1"
# These models are small: one thread loads them as fast as several, and a test process has once hung while loading one.
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
ROOT = Path(__file__).parents[1]
COLOURS = {"red": "#d22", "green": "#2a2", "blue": "#22d", "yellow": "#dd2", "purple": "#a2a", "orange": "#f80"}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")


# The modules that take longest, so that no process is left alone with one of them at the end. The first makes the
# workflow's results that others copy; the next need none.
LONGEST = (
    *("test_workflow", "test_installed_package", "test_moved_results", "test_onnx_files", "test_search_workflow"),
    *("test_interrupted_runs", "test_sweep_workflow", "test_several_input_files", "test_use_the_model"),
    *("test_plugins", "test_folder_names", "test_documentation", "test_export_page", "test_release"),
    *("test_changed_images", "test_sharding", "test_open_clip_exports", "test_compilation", "test_step"),
    *("test_gallery_command", "test_interruption", "test_cli", "test_loop", "test_eccv_caption"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the modules that take longest first; the order within a module stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """What the tests have imported stays, so that no look for garbage has to pass over it again."""
    gc.freeze()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, in which pages are looked at; the modules of tests that need it say so where it is missing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A browser that shares two cores is slow.
        started = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=30_000
        )
        yield started
        started.close()


def draw_shape(colour: str, shape: str, size: str) -> Image.Image:
    """One 64x48 picture that its caption can be checked against by eye."""
    image = Image.new("RGB", (64, 48), "white")
    pen = ImageDraw.Draw(image)
    radius = 8 if size == "small" else 20
    x, y, paint = 32, 24, COLOURS[colour]
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=paint)
    elif shape == "square":
        pen.rectangle(box, fill=paint)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=paint)
    else:
        pen.rectangle((x - radius, y - 3, x + radius, y + 3), fill=paint)
        pen.rectangle((x - 3, y - radius, x + 3, y + radius), fill=paint)
    return image


def write_shapes(folder: Path) -> Path:
    """48 pictures in the published format: 32 train, 8 val, 8 test, two captions each."""
    (folder / "pics").mkdir(parents=True)
    things = [(colour, shape, size) for colour in COLOURS for shape in SHAPES for size in SIZES]
    order = np.random.default_rng(0).permutation(len(things))
    rows: dict[str, list[dict[str, str]]] = {"train": [], "val": [], "test": []}
    for number, position in enumerate(order):
        colour, shape, size = things[position]
        name = f"{colour}_{shape}_{size}.jpg"
        draw_shape(colour, shape, size).save(folder / "pics" / name, quality=95)
        split = "train" if number < 32 else "val" if number < 40 else "test"
        for caption in (f"A {size} {colour} {shape}.", f"{shape}, {colour} and {size}"):
            rows[split].append({"image_path": f"./pics/{name}", "caption": caption, "image_id": name})
    for split, members in rows.items():
        (folder / f"{split}.json").write_text(json.dumps(members))
    return folder


def write_record(run: Path, losses: dict[str, object], dataset: str = "d", student: str = "ViT-B/32") -> None:
    """The run.json of a run with these losses, which nobody trained."""
    from cusa.config import RunConfiguration, validate
    from cusa.runs.record import RunRecord

    configuration = {"dataset": dataset, "experiment": "cusa", "seed": 1, "losses": losses, "teachers": None}
    configuration |= {"student": {"name": student}, "train": {"epochs": 1}}
    RunRecord(
        configuration=validate(RunConfiguration, configuration),
        selected_epoch=0,
        selected_because="a test says so",
        epochs=1,
        processes=1,
        device="cpu",
        seconds=1.0,
        weights_sha256="abc",
        versions={},
    ).write(run)


@contextmanager
def mounted_tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory, to have a full or a read-only one; skips the test where mounting is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: a disk with {options} is NOT tested")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def in_processes(ranks: int, function: Callable[..., None], *arguments: object) -> None:
    """Call `function` in as many processes as torchrun would start, but with torch imported once.

    They are forked from a process that has only imported it: one that has computed gradients, or exported a graph, may
    not be forked. So `function` and its arguments are pickled.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "cusa.training.loop"])
    launched = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    launched["MASTER_PORT"] = str(port)
    started = [
        context.Process(target=_as_rank, args=(launched | {"RANK": str(rank)}, function, arguments))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        assert process.exitcode == 0


def _as_rank(environment: dict[str, str], function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    import torch

    os.environ |= environment
    torch.set_num_threads(1)
    function(*arguments)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder of this name, which all processes of xdist share: the first that needs it fills it."""
    folder = tmp_path_factory.getbasetemp()
    root = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        made, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)  # of a process that failed; this one shall fail in the same way
                made.mkdir()
                fill(made)
                done.touch()
        return made

    return make


@pytest.fixture(scope="session")
def shapes(made_once) -> Path:
    """The folder of `write_shapes`; read it, do not change it."""
    return made_once("shapes", write_shapes)


@pytest.fixture(scope="session")
def annotations(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the shapes' tables; read it, do not change it."""
    from cusa.annotations.convert import convert
    from cusa.config.dataset import PublishedDataset

    folder = tmp_path_factory.mktemp("annotations")
    files = {split: str(shapes / f"{split}.json") for split in ("train", "val", "test")}
    convert(PublishedDataset(name="s", format="published", annotations=files), folder, folder / "images")
    return folder


WORDS = ["a", "and", *COLOURS, *SHAPES, *SIZES]


def _word_tokeniser(folder: Path, bert: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*specials, *WORDS])}
    tokeniser = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    tokeniser.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"} if bert else {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokeniser, model_max_length=32, **names)
    wrapped.save_pretrained(folder)


def write_tiny_clip(folder: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    text = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 32, "eos_token_id": 3, "bos_token_id": 2}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, resample=3).save_pretrained(
        folder
    )
    _word_tokeniser(folder, bert=False)


@pytest.fixture(scope="session")
def tiny_clip(made_once) -> Path:
    """A randomly initialised CLIP with 16-d embeddings and 32-pixel input, saved as Hugging Face saves it."""
    return made_once("tiny-clip", write_tiny_clip)


def write_tiny_siglip(folder: Path) -> None:
    import torch
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(3)
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = common | {"vocab_size": 32, "max_position_embeddings": 16, "projection_size": 32}
    vision = common | {"image_size": 32, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    _word_tokeniser(folder, bert=True)


@pytest.fixture(scope="session")
def tiny_siglip(made_once) -> Path:
    """A randomly initialised SigLIP whose text model reads 16 positions."""
    return made_once("tiny-siglip", write_tiny_siglip)


def write_tiny_vision(folder: Path) -> None:
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_vision(made_once) -> Path:
    """A randomly initialised ViT with 24-d features and 32-pixel input."""
    return made_once("tiny-vit", write_tiny_vision)


def write_tiny_sentences(folder: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(2)
    config = BertConfig(vocab_size=32, hidden_size=20, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2)
    with tempfile.TemporaryDirectory() as bert:
        BertModel(config).save_pretrained(bert)
        _word_tokeniser(Path(bert), bert=True)
        transformer = Transformer(bert, max_seq_length=32)
        pooling = Pooling(transformer.get_embedding_dimension())
        SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))


@pytest.fixture(scope="session")
def tiny_sentences(made_once) -> Path:
    """A randomly initialised BERT with mean pooling and 20-d embeddings, as sentence-transformers saves it."""
    return made_once("tiny-sentences", write_tiny_sentences)


@pytest.fixture(scope="session")
def tiny_configuration(shapes: Path, tiny_clip: Path, tiny_vision: Path, tiny_sentences: Path) -> dict[str, object]:
    """A configuration of the shapes data with the tiny models, as YAML would give it."""
    return {
        "dataset": {
            "name": "shapes",
            "format": "published",
            "annotations": {split: str(shapes / f"{split}.json") for split in ("train", "val", "test")},
        },
        "shards": {"shorter_side": 32, "samples_per_shard": 20},
        "teachers": {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}},
        "student": {"name": str(tiny_clip), "towers": None},
        "train": {"epochs": 2, "batch_size": 8, "lr": 0.001, "min_lr": 0.0001, "log_every": 2},
        "experiments": {
            "contrastive": {"contrastive": {}},
            "csa": None,
            "usa": None,
            "cusa": {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {"teacher_temperature": "cross"}},
        },
        "seeds": [23],
        "benchmarks": {"itr": {}, "eccv_caption": None, "image_retrieval": None, "sts": None},
        "search": None,
    }


@pytest.fixture(scope="session")
def shapes_data(tmp_path_factory: pytest.TempPathFactory, tiny_configuration: dict[str, object]) -> Path:
    """Everything training reads of the shapes: annotations, shards and teacher features. Only runs may be added."""
    from cusa.annotations.convert import convert
    from cusa.config.configuration import load
    from cusa.layout import DatasetFolder
    from cusa.shards.writing import write_split
    from cusa.teachers.extraction import extract_image_features, extract_text_features

    configuration = load(tiny_configuration)
    folder = DatasetFolder(tmp_path_factory.mktemp("shapes-data"))
    convert(configuration.dataset, folder.annotations, folder.root / "images")
    image, text = configuration.teachers.image, configuration.teachers.text
    for split in ("train", "val", "test"):
        write_split(folder.annotations, split, folder.shards(split), configuration.shards)
        extract_image_features(folder.shards(split), image, folder.features("image", image.folder, split))
        extract_text_features(folder.annotations, split, text, folder.features("text", text.folder, split))
    return folder.root


@pytest.fixture(scope="session")
def finished_workflow(made_once, tiny_configuration: dict[str, object]) -> Path:
    """A working directory in which the workflow has made everything of its mine.yaml, `tiny_configuration`.

    Read it only, and run no Snakemake in it; `copy_of_results` makes a copy for that.
    """

    def fill(folder: Path) -> None:
        (folder / "mine.yaml").write_text(yaml.safe_dump(tiny_configuration))
        words = ["--cores", "2", "--directory", folder, "--configfile", folder / "mine.yaml"]
        output_of_snakemake(*words, cwd=ROOT)

    return made_once("finished-workflow", fill)


def copy_of_results(source: Path, target: Path) -> Path:
    """A copy of a working directory that can be changed, with the times of its files and Snakemake's records."""
    return Path(shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def scored_runs(
    shapes_data: Path, tiny_configuration: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> tuple[DatasetFolder, dict[str, list[Path]]]:
    """Two trained, embedded, scored and summarised runs on the shapes. Read them only."""
    import shutil

    from cusa.benchmarks.evaluation import evaluate
    from cusa.config.benchmarks import ImageTextRetrieval
    from cusa.config.configuration import load
    from cusa.embeddings import embed
    from cusa.layout import DatasetFolder
    from cusa.report.summary import summarise
    from cusa.training.loop import train

    root = Path(shutil.copytree(shapes_data, tmp_path_factory.mktemp("report") / "shapes"))
    folder, configuration = DatasetFolder(root), load(tiny_configuration)
    runs = {}
    for experiment in configuration.active_experiments:
        run = root / "runs" / experiment / "seed23"
        train(configuration.run(experiment, 23), folder, run)
        embed(run, folder, "test", run / "embeddings/test")
        output, queries = (run / f"benchmarks/itr.{ending}" for ending in ("json", "queries.npz"))
        evaluate("itr", folder, run, output, queries, ImageTextRetrieval())
        runs[experiment] = [run]
    results = sorted(root.glob("runs/*/*/benchmarks/*.json"))
    parquet, markdown, latex = (root / f"summary.{ending}" for ending in ("parquet", "md", "tex"))
    summarise(results, folder.annotations, parquet, markdown, latex, "contrastive", {"sop": "It does not exist."})
    return folder, runs


@pytest.fixture(scope="session")
def search_run(
    shapes_data: Path, tiny_configuration: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A trained run on the shapes, whose model the index of `shapes_index` names. Read it only."""
    import shutil

    from cusa.config.configuration import load
    from cusa.layout import DatasetFolder
    from cusa.training.loop import train

    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path_factory.mktemp("search") / "shapes")))
    run = folder.run("cusa", 23)
    train(load(tiny_configuration).run("cusa", 23), folder, run)
    return run


@pytest.fixture(scope="session")
def search_model(search_run: Path) -> RetrievalModel:
    """The model of `search_run`."""
    import cusa

    return cusa.load(search_run, device="cpu")


@pytest.fixture(scope="session")
def shapes_items(shapes_data: Path) -> pa.Table:
    """The 48 pictures as items of a gallery, with the columns split, colour and radius."""
    from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
    from cusa.gallery.items import items_table

    images = read_table(shapes_data / "annotations", IMAGES).to_pylist()
    captions: dict[int, list[str]] = {}
    for row in read_table(shapes_data / "annotations", CAPTIONS).to_pylist():
        captions.setdefault(row["image"], []).append(row["caption"])
    paths = [str(Path(row["image_path"]).absolute()) for row in images]
    names = [Path(path).name for path in paths]
    columns = {
        "split": [row["split"] for row in images],
        "colour": [name.split("_")[0] for name in names],
        "radius": [8 if "small" in name else 20 for name in names],
    }
    return items_table(names, paths, captions=[captions[row] for row in range(len(images))], columns=columns)


@pytest.fixture(scope="session")
def shapes_index(
    search_run: Path, search_model: RetrievalModel, shapes_items: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """OUT with the embeddings of the 48 pictures by the model of `search_run`, and their index. Read it only."""
    from cusa.gallery.store import write_gallery
    from cusa.index.build import build_index

    out = tmp_path_factory.mktemp("indexed") / "out"
    embeddings = search_model.encode_image(shapes_items["path"].to_pylist())
    write_gallery(out, embeddings, shapes_items, search_run, search_model.weights_sha256)
    build_index(out)
    return out


@pytest.fixture
def one_thread(monkeypatch):
    """Indexes are made by one thread: several of them wait for each other where other tests run beside."""
    from cusa.index.options import IndexOptions

    monkeypatch.setattr(IndexOptions, "processors", lambda options: 1)
