"""Make the rest of this folder with a checkout of commit b749c88, whose scripts and rules do all the work.

    git worktree add /tmp/cusa-b749c88 b749c88
    python tests/data/run_b749c88/make.py /tmp/cusa-b749c88 /tmp/cusa-b749c88/run

Written once and kept as it is: it is for reading, and newer commits test against what it made.
"""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from hashlib import file_digest
from pathlib import Path

CONFIGURATION = """\
# What a user of commit b749c88 had: every path is relative, so the folder can be copied anywhere.
dataset:
  name: shapes
  format: published
  annotations: {train: shapes/train.json, val: shapes/val.json, test: shapes/test.json}
shards: {shorter_side: 16, quality: 90, samples_per_shard: 20}
teachers:
  image: {name: models/vit}
  text: {name: models/bert}
student: {name: ./models/clip}
train: {epochs: 12, batch_size: 8, lr: 0.001, min_lr: 0.0001, log_every: 2}
experiments:
  cusa:
    contrastive: {reduction: sum}
    cross_softlabel: {}
    uni_softlabel: {teacher_temperature: cross}
  towers:
    contrastive: {reduction: sum}
    uni_softlabel: {}
    student:
      towers: {image: {name: models/vit}, text: {name: models/bert}, dimension: 8}
  frozen:
    contrastive: {reduction: sum}
    student:
      towers: {image: {name: models/vit, trainable: false}, text: {name: models/bert, trainable: false}, dimension: 8}
  zero_shot: {baseline: zero_shot}
  teachers: {baseline: teachers}
seeds: [23]
benchmarks:
  itr: {folds: 2}
  sts: {sentence_pairs: {pairs: ./pairs.tsv}}
"""
PAIRS = (
    ("a small red circle", "a large red circle", 4.0),
    ("a small red circle", "a small blue circle", 3.0),
    ("a large green square", "a large green square", 5.0),
    ("a large green square", "a small purple cross", 0.0),
    ("a yellow triangle", "a yellow cross", 2.5),
    ("an orange and large triangle", "a small triangle", 1.5),
)
INTERRUPTED = {"cusa": 24, "towers": 42}  # seeds whose best epoch is after the stop
OPERATIONAL = ("workers", "save_every_minutes", "eval_batch_size", "log_every")
# What Snakemake compares to find out whether a job has to be done again.
COMPARED = ("rule", "input", "params", "code", "software_stack_hash", "record_format_version")
# Runs a script that gets SIGTERM in its 75th step, the third of the tenth of twelve epochs.
STOPPED = """
import os, runpy, signal, sys, torch
taken, step = [], torch.optim.AdamW.step
def counted(self, *arguments, **named):
    taken.append(1)
    if len(taken) == 75:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *arguments, **named)
torch.optim.AdamW.step = counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make(checkout: Path, folder: Path) -> None:
    sys.path[:0] = [str(checkout / "src"), str(checkout / "tests")]
    import conftest

    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    folder.mkdir()
    os.chdir(folder)
    conftest.write_shapes(folder / "shapes")
    make_models(conftest._word_tokeniser)
    Path("pairs.tsv").write_text("\n".join("\t".join(map(str, row)) for row in [("first", "second", "score"), *PAIRS]))
    Path("config").mkdir()
    Path("config/config.yaml").write_text(CONFIGURATION)
    snakemake = [Path(sys.executable).with_name("snakemake"), "--snakefile", "../Snakefile", "--cores", "1", "scores"]
    subprocess.run(snakemake, env=environment, check=True)
    for experiment, seed in INTERRUPTED.items():
        interrupt(experiment, seed, environment)
    import_published(environment)

    outputs: dict[str, list[str]] = {}  # by what a job's record says, which its outputs share
    for path in Path(".snakemake/metadata").iterdir():
        record = json.loads(path.read_text())
        job = json.dumps({key: record[key] for key in COMPARED})
        outputs.setdefault(job, []).append(b64decode(path.name).decode())
    jobs = [{"outputs": sorted(names), "record": json.loads(job)} for job, names in outputs.items()]
    jobs.sort(key=lambda job: job["outputs"])
    Path("snakemake-metadata.json").write_text(json.dumps(jobs, indent=1) + "\n")
    # The pictures are in the shards; the rest is of no use to what comes after.
    for path in (".snakemake", "shapes/pics", "results/shapes/logs", "results/shapes/timings"):
        shutil.rmtree(path)
    for path in ("results/benchmark-data/logs", "results/benchmark-data/timings"):
        shutil.rmtree(path)
    for path in Path("results").rglob("holder.json"):
        path.unlink()


def make_models(write_tokeniser) -> None:
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import (
        BertConfig,
        BertModel,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = size | {"image_size": 16, "patch_size": 8}
    text = size | {"vocab_size": 32, "max_position_embeddings": 16}

    def save(model: torch.nn.Module, folder: str) -> None:
        # Weights this small learn sooner when they are not as close to zero as in large models.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)

    torch.manual_seed(0)
    clip = CLIPConfig(text_config=text | {"eos_token_id": 3, "bos_token_id": 2}, vision_config=vision, projection_dim=8)
    save(CLIPModel(clip), "models/clip")
    square = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square, resample=3).save_pretrained("models/clip")
    write_tokeniser("models/clip", bert=False)

    save(ViTModel(ViTConfig(**vision)), "models/vit")
    # Cropped, not resized: resizing rounds differently on other CPUs.
    ViTImageProcessor(size={"shortest_edge": 16}).save_pretrained("models/vit")

    save(BertModel(BertConfig(**text)), "models/bare")
    write_tokeniser("models/bare", bert=True)
    transformer = models.Transformer("models/bare", max_seq_length=16)
    pooling = models.Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save("models/bert", create_model_card=False)
    shutil.rmtree("models/bare")


def interrupt(experiment: str, seed: int, environment: dict[str, str]) -> None:
    """Leave a run that was stopped in mid-epoch, and what this commit makes of it when it is continued."""
    run, expected = Path(f"results/shapes/runs/{experiment}/seed{seed}"), Path(f"expected/{experiment}/seed{seed}")
    about = json.loads(run.with_name("seed23").joinpath("run.json").read_text())
    configuration = about["configuration"] | {"seed": seed}
    operation = {key: configuration["train"].pop(key) for key in OPERATIONAL}

    def train(folder: Path, *launcher: str) -> int:
        words = [sys.executable, *launcher, "../workflow/scripts/train.py", "--data", "results/shapes"]
        words += ["--run-folder", str(folder), "--configuration", json.dumps(configuration, sort_keys=True)]
        words += ["--operation", json.dumps(operation), "--threads", "1"]
        return subprocess.run(words, env=environment, check=False).returncode

    assert train(run, "-c", STOPPED) == 143
    shutil.copytree(run, expected)
    whole = Path("whole")
    assert train(expected) == train(whole) == 0
    digests = [digest(folder / "best.safetensors") for folder in (expected, whole)]
    assert digests[0] == digests[1], "continuing changed the weights"
    assert json.loads((expected / "run.json").read_text())["selected_epoch"] > 9, "the best epoch is before the stop"
    shutil.rmtree(whole)
    shutil.rmtree(expected / "state")


def import_published(environment: dict[str, str]) -> None:
    """A run that was imported, without its weights: heads of 64, as OpenAI's models have, make them large."""
    import test_upstream
    import torch
    from transformers import CLIPConfig, CLIPModel

    student, file, run = Path("models/of-64"), Path("checkpoint_best.pth"), Path("results/shapes/runs/published/seed23")
    shutil.copytree("models/clip", student)
    torch.manual_seed(5)
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = size | {"vocab_size": 32, "max_position_embeddings": 16, "eos_token_id": 2}
    vision = size | {"image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(student)
    test_upstream.checkpoint_of(student, file)

    def script(name: str, *words: str) -> None:
        command = [sys.executable, f"../workflow/scripts/{name}", *words, "--run-folder", str(run)]
        subprocess.run(command, env=environment, check=True)

    about = ("--student", f"./{student}", "--dataset", "shapes", "--seed", "23")
    script("import_checkpoint.py", "--file", str(file), *about)
    data = ("--data", "results/shapes")
    script("embed.py", *data, "--benchmark-data", "test", "--output", f"{run}/embeddings/test")
    written = ("--output", f"{run}/benchmarks/itr.json", "--queries", f"{run}/benchmarks/itr.queries.npz")
    script("evaluate.py", "itr", *data, *written, "--settings", '{"folds": 2}')
    (run / "best.safetensors").unlink()
    shutil.rmtree(student)
    file.unlink()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
