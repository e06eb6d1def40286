# What the rules share: the validated configuration, the names of runs and models, and who needs which files.
import json
import os
import shlex
import shutil
import sys
from os import environ

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

# The library need not be installed where the jobs run: conda environments hold only its dependencies. Jobs use this
# Python also when the virtual environment is not activated. Set for the jobs, not required from the user.
sys.path.insert(0, f"{workflow.basedir}/src")
environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), environ["PATH"]]),
    PYTHONPATH=os.pathsep.join(
        filter(None, [f"{workflow.basedir}/src", environ.get("PYTHONPATH")])
    ),
)

from cusa.benchmarks.registry import across_modalities, checks, data_of
from cusa.benchmarks.registry import settings_of
from cusa.config.training import OPERATIONAL
from cusa.config.configuration import check_files, command_line_values, load
from cusa.config.section import validate
from cusa.devices import available
from cusa.errors import ConfigurationError, DataError
from cusa.common.files import require_writable

update_config(config, command_line_values(workflow.config_settings.config))
try:
    CONFIGURATION = load(config)
    check_files(CONFIGURATION)
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None

DATA = f"results/{CONFIGURATION.dataset.name}"
RUN = f"{DATA}/runs/{{experiment}}/seed{{seed}}"
# Relative, so that commands can be pasted from where Snakemake runs. Rules have their script as a resource: as a
# parameter it would be a reason to make results again that are used from a working directory at another depth.
SCRIPTS = os.path.relpath(f"{workflow.basedir}/workflow/scripts")
EXPERIMENTS = list(CONFIGURATION.active_experiments)
CHECKPOINTS = list(CONFIGURATION.active_checkpoints)
BASELINES = list(CONFIGURATION.baselines)
SETTINGS = {
    name: settings
    for name, settings in CONFIGURATION.benchmarks.sections.items()
    if settings is not None
}
ADDED = [name for name, own in CONFIGURATION.benchmarks.more.items() if own is not None]
try:
    for name in ADDED:
        SETTINGS[name] = validate(section_of(name), CONFIGURATION.benchmarks.more[name])
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None
DATA_OF = {
    name: data_of(name, CONFIGURATION.dataset.provides, settings)
    for name, settings in SETTINGS.items()
}
# A benchmark without any data of those that are named is left out, and so are single data sets; the summary says so.
BENCHMARKS = [name for name in SETTINGS if DATA_OF[name]]
LEFT_OUT = {
    f"{benchmark}, {name}": why
    for benchmark, settings in SETTINGS.items()
    for name, why in settings.left_out().items()
}
LEFT_OUT |= {
    f"{run}, {benchmark}": "The two teachers share no space, so no text finds an image."
    for run, baseline in CONFIGURATION.baselines.items()
    for benchmark in BENCHMARKS
    if baseline.baseline == "teachers" and across_modalities(benchmark)
}
BENCHMARK_DATA = "results/benchmark-data"
LABELLED_IMAGES = (
    SETTINGS["image_retrieval"].available() if "image_retrieval" in SETTINGS else {}
)
SENTENCE_PAIRS = SETTINGS["sts"].available() if "sts" in SETTINGS else {}
SPLITS = ["train", "val", "test"] + ["variants"] * (
    "variants" in DATA_OF.get("image_retrieval", ())
)
TABLES = sorted(
    CONFIGURATION.dataset.provides & {"extended_positives", "sentence_pairs"}
)
ON_GPU = CONFIGURATION.train.gpus > 0


wildcard_constraints:
    split="|".join(SPLITS),
    experiment="|".join(EXPERIMENTS + CHECKPOINTS + BASELINES),
    seed=r"\d+",
    part=r"\d+",
    model=r"[^/]+",
    benchmark="|".join(BENCHMARKS) or "none",


def require_writable_results():
    """Asked once, when jobs are about to run: a dry run and a report work on read-only results."""
    try:
        require_writable(DATA)
    except DataError as error:
        raise WorkflowError(str(error)) from None


def gpus_wanted():
    """The GPUs of the largest job on one machine."""
    return max([int(ON_GPU)] + [CONFIGURATION.recipe(run).gpus for run in EXPERIMENTS])


# Snakemake counts GPUs, but has to be told how many there are; a cluster counts for itself.
COUNTS_GPUS = gpus_wanted() and workflow.is_main_process and workflow.local_exec
GPUS_HERE = available() if COUNTS_GPUS else 0
if GPUS_HERE and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS_HERE)


def require_devices():
    """Asked once, when jobs are about to run: Snakemake would give a job fewer GPUs than it asks for."""
    if CONFIGURATION.train.nodes > 1 and shutil.which("srun") is None:
        raise WorkflowError(
            f"train.nodes is {CONFIGURATION.train.nodes}, which Slurm's srun starts, but there is no srun here; use "
            "--workflow-profile workflow/profiles/slurm on a cluster, or set train.nodes: 1."
        )
    if not COUNTS_GPUS:
        return
    wanted = gpus_wanted()
    if wanted > GPUS_HERE:
        raise WorkflowError(
            f"train.gpus asks for {wanted} GPUs, but this machine has {GPUS_HERE}; lower train.gpus, or run "
            "nvidia-smi to see why."
        )
    if wanted > (given := workflow.global_resources["gpu"].value):
        raise WorkflowError(
            f"train.gpus asks for {wanted} GPUs, but --resources gpu={given} gives a job no more than {given}; give "
            "more, or lower train.gpus."
        )


def lease(gpus):
    """What gives a job on this machine devices of its own; cusa.devices stands aside where Slurm has."""
    return f"python -m cusa.devices {int(gpus)}" if gpus else ""


# Several machines need Slurm: the job asks for all of them, and srun starts a torchrun on each, with its own GPUs. The
# first machine, where the job's script runs, is where they meet.
NODES = CONFIGURATION.train.nodes
MACHINES = {"nodes": NODES}
MEETING = ""
if NODES > 1:
    MACHINES |= {"tasks": NODES, "tasks_per_gpu": 0, "mpi": "srun"}
    MEETING = "export SLURM_NNODES={resources.nodes} SRUN_CPUS_PER_TASK={threads}; "


def launcher(wildcards):
    """What starts the training processes."""
    recipe = CONFIGURATION.recipe(wildcards.experiment)
    torchrun = f"torchrun --nproc-per-node {recipe.processes_per_node}"
    if NODES == 1:
        return f"{lease(recipe.gpus)} {torchrun} --standalone".strip()
    gpus = f" --gpus-per-task {recipe.gpus}" if recipe.gpus else ""
    return (
        f"srun --ntasks {NODES}{gpus} --kill-on-bad-exit {torchrun} --nnodes {NODES} --rdzv-backend c10d"
        " --rdzv-id $SLURM_JOB_ID --rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 20000))"
    )


def as_json(section, without=()):
    """A section of the configuration as one line: Snakemake compares it to decide whether a job is up to date.

    `without` names keys of its `train` that are no reason to do it again.
    """
    content = section.model_dump(mode="json")
    for name in without:
        del content["train"][name]
    return json.dumps(content, sort_keys=True)


def operation(experiment):
    """The keys of `train` that are no reason to train again, as one line."""
    recipe = CONFIGURATION.recipe(experiment)
    return recipe.model_dump_json(include=set(OPERATIONAL))


def run_files(name):
    """One file of every run, in the order of the tables of experiments and checkpoints; these have one run each."""
    pattern = f"{RUN}/{name}".rstrip("/")
    once = CONFIGURATION.seeds[:1]
    runs = [(run, CONFIGURATION.seeds) for run in EXPERIMENTS]
    runs += [(run, once) for run in CHECKPOINTS + BASELINES]
    return [
        path
        for run, seeds in runs
        for path in expand(
            pattern, experiment=run, seed=seeds, benchmark=benchmarks_of(run)
        )
    ]


def benchmarks_of(run):
    """The benchmarks that a run is scored on."""
    return [name for name in BENCHMARKS if f"{run}, {name}" not in LEFT_OUT]


def annotation_tables(*extra):
    return expand(
        f"{DATA}/annotations/{{name}}.parquet", name=["images", "captions", *extra]
    )


def own_tables(name):
    """A table beyond images and captions, where the data set's format has it."""
    return [name] if name in TABLES else []


def student_of(wildcards):
    return CONFIGURATION.student_of(wildcards.experiment)


def frozen_models(modality):
    """Every model whose features are cached, by folder: teachers in use, and frozen towers of the students."""
    runs = [
        CONFIGURATION.run(experiment, CONFIGURATION.seeds[0])
        for experiment in EXPERIMENTS + BASELINES
    ]
    models = [
        getattr(run.teachers, modality) for run in runs if run.teachers is not None
    ]
    towers = [
        getattr(run.student.towers, modality)
        for run in runs
        if run.student.towers is not None
    ]
    frozen = [tower for tower in towers if not tower.trainable]
    chosen = {}
    for model in [*models, *frozen]:
        settings = {**model.model_dump(mode="json")}
        settings.pop("trainable", None)
        # A tower that is also the teacher shares its features, in the wider of the two types and arithmetics.
        if other := chosen.get(model.folder):
            for key, widest in (("dtype", "float32"), ("precision", "fp32")):
                if other.get(key) == widest:
                    settings[key] = widest
        chosen[model.folder] = settings
    return chosen


FROZEN = {modality: frozen_models(modality) for modality in ("image", "text")}


def feature_files():
    """Everything the target `features` builds: what some run or benchmark reads."""
    files = []
    for run in EXPERIMENTS + CHECKPOINTS + BASELINES:
        wildcards = type("Wildcards", (), {"experiment": run})
        if run in EXPERIMENTS:
            files += [
                path for path in training_inputs(wildcards) if "/teachers/" in path
            ]
        for data in {data for needed in DATA_OF.values() for data in needed}:
            wildcards.data = data
            own = data in LABELLED_IMAGES or data in SENTENCE_PAIRS
            needed = (benchmark_data_inputs if own else embedding_inputs)(wildcards)
            files += [path for path in needed if "/teachers/" in path]
    return sorted(set(files))


def image_inputs(student, folder, split):
    """What a student reads of the images in a folder: shards, or the cached features of a frozen tower.

    meta.json stands for the features: it is written with them, and is there also where they stay in parts.
    """
    towers = student.towers
    if towers is None or towers.image.trainable:
        return f"{folder}/shards/{split}"
    return f"{folder}/teachers/image/{towers.image.folder}/{split}/meta.json"


def student_inputs(student, split):
    """The files a student reads of one split: shards or cached features, images and captions alike."""
    files = [*annotation_tables(), image_inputs(student, DATA, split)]
    towers = student.towers
    if (
        towers is not None
        and not towers.text.trainable
        and split in ("train", "val", "test")
    ):
        files.append(f"{DATA}/teachers/text/{towers.text.folder}/{split}/meta.json")
    return files


def training_inputs(wildcards):
    run = CONFIGURATION.run(wildcards.experiment, CONFIGURATION.seeds[0])
    selection = "val" if run.train.select_on == "val" else "test"
    files = student_inputs(run.student, "train") + student_inputs(
        run.student, selection
    )
    if run.teachers is not None:
        files.append(
            f"{DATA}/teachers/image/{run.teachers.image.folder}/train/meta.json"
        )
        files.append(f"{DATA}/teachers/text/{run.teachers.text.folder}/train/meta.json")
    return sorted(set(files))


def embedding_inputs(wildcards):
    if wildcards.data in SPLITS:
        return student_inputs(student_of(wildcards), wildcards.data)
    return [f"{DATA}/annotations/{wildcards.data}.parquet"]


def benchmark_data_inputs(wildcards):
    """What a student reads of a benchmark's own data: its tables, and its images as shards or cached features."""
    folder = f"{BENCHMARK_DATA}/{wildcards.data}"
    if wildcards.data in SENTENCE_PAIRS:
        return [f"{folder}/annotations/sentence_pairs.parquet"]
    return [
        f"{folder}/annotations/images.parquet",
        f"{folder}/annotations/captions.parquet",
        image_inputs(student_of(wildcards), folder, "test"),
    ]


def settings_of(benchmark):
    """A benchmark's section of the configuration, as its job gets it."""
    return as_json(SETTINGS[benchmark]) if benchmark in SETTINGS else "{}"


def benchmark_inputs(benchmark):
    """Embeddings that a benchmark scores; none where it is switched off."""
    return expand(
        f"{RUN}/embeddings/{{data}}",
        data=DATA_OF.get(benchmark, ()),
        allow_missing=True,
    )


def checks_of(benchmark):
    """What a benchmark finds out from the annotations alone, before anything is trained."""
    wanted = benchmark in BENCHMARKS and checks(benchmark)
    return [f"{DATA}/checks/{benchmark}.json"] if wanted else []


def data_folder(wildcards):
    """Where the library finds annotations, shards and teachers."""
    return DATA


def image_folder(wildcards):
    """Where a format puts images that it makes itself."""
    return f"{DATA}/images"


def part_of_features(path):
    """Parts are removed when they have been copied into one file."""
    return temp(path) if CONFIGURATION.extraction.join else path


def stream_of(split):
    """Where the shards of a split are read from, if not from here."""
    if split != "train" or CONFIGURATION.stream is None:
        return ""
    return f"--stream {shlex.quote(as_json(CONFIGURATION.stream))}"


def joined_features(path):
    """The one file that parts are copied into."""
    return {"features": path} if CONFIGURATION.extraction.join else {}


def log_of(rule, name):
    return f"{DATA}/logs/{rule}/{name}.log"


def timing_of(rule, name):
    return f"{DATA}/timings/{rule}/{name}.tsv"
