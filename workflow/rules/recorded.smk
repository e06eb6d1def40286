# What is made is not made again because of how it is made: the parameters and inputs of jobs, recorded as they were.
from ast import literal_eval

from snakemake.io import IOFile

from cusa.annotations.enough_data import unexpected_counts
from cusa.config.captions import conversion_json
from cusa.config.operational import same_result
from cusa.config.training import OPERATIONAL
from cusa.plan.parts import parts_in, parts_there, remove_other_parts
from cusa.plan.reasons import with_reason, without_reason

CONVERSION = conversion_json(CONFIGURATION.dataset, CONFIGURATION.cleaning)


class Recorded(str):
    """A part of a command that Snakemake records as another text, with which the job ran before.

    A parameter that differs from the record is a reason to run a job again; how a result is computed is none.
    """

    def __new__(cls, text, recorded):
        value = super().__new__(cls, text)
        value.recorded = recorded
        return value

    def __repr__(self):
        return repr(self.recorded)


def recorded_params(output, kind=str):
    """The parameters of a type with which an output was made; none if that is not known.

    Functions of parameters take the wildcards alone: Snakemake does not record what depends on inputs or outputs.
    """
    return values_of(workflow.persistence.params(IOFile(output)), kind)


def values_of(params, kind=str):
    """The parameters of a type among those of a record, which are Python literals; `params` may be None."""
    values = map(literal_eval, params or [])
    return [value for value in values if isinstance(value, kind)]


def section_json(text, output, of_train=None, reason=""):
    """A section of the configuration as a parameter. Where only keys without effect differ, it is recorded as it was.

    For `of_train` see `same_result`. A `reason` to run the job again all the same is recorded with the section.
    """
    before = (
        each
        for each in recorded_params(output)
        if same_result(without_reason(each), text, of_train)
    )
    return Recorded(text, recorded=with_reason(next(before, text), reason))


def as_recorded(text, output, beginning):
    """How an output is made, as a parameter: what begins so is recorded as it was, or as empty if it was left out."""
    recorded = recorded_params(output)
    before = (each for each in recorded if each.startswith(beginning))
    return Recorded(text, recorded=next(before, "") if recorded else text)


def gpu_option(output):
    """The option --gpu of a script, if there is a GPU; `output` is a path with wildcards.

    It is recorded as it was: another device is no reason to compute again.
    """
    given = "--gpu" if ON_GPU else ""
    return lambda wildcards: as_recorded(given, output.format(**wildcards), "--gpu")


def leased_gpu(output):
    """The start of a command that leases a GPU, if there is one; `output` is a path with wildcards."""
    given, beginning = lease(ON_GPU), lease(1)
    return lambda wildcards: as_recorded(given, output.format(**wildcards), beginning)


def conversion(wildcards):
    """What the tables are made from, as JSON. A number of images that the tables do not have is a reason to look again."""
    if unexpected_counts(CONFIGURATION.dataset, ANNOTATIONS):
        return CONVERSION
    return section_json(CONVERSION, str(PROBLEMS), reason=CHANGED_IMAGES.conversion)


def shard_settings(wildcards):
    """How shards are written, as JSON, and why they are written again though that is the same."""
    is_benchmarks = hasattr(wildcards, "data")
    folder = str(BENCHMARK_FOLDER.shards("{split}")) if is_benchmarks else SHARDS
    shards = folder.format(**wildcards)
    text, reason = CONFIGURATION.shard_writing.as_json(), changed_images_of(shards)
    return section_json(text, shards, reason=reason)


def settings_of_part(wildcards):
    """How a part of the shards is written, as JSON. It is written again where `join_shards` has a reason."""
    part = SHARD_PART.format(**wildcards)
    return section_json(CONFIGURATION.shard_writing.as_json(), part)


def image_model(output):
    """The image model whose features are extracted, as JSON; `output` is a path with wildcards."""
    return lambda wildcards: section_json(
        PLAN.frozen_image_models[wildcards.model].as_json(),
        output.format(**wildcards),
    )


def stream_of(split, output):
    """The option --stream for the train split, if its shards are read from a URL. It is recorded as it was."""
    option = ""
    if split == "train" and CONFIGURATION.stream is not None:
        option = f"--stream {shlex.quote(CONFIGURATION.stream.as_json())}"
    return as_recorded(option, output, "--stream")


def is_recorded(param, output):
    """Whether an output was made with a parameter."""
    return repr(param) in (workflow.persistence.params(IOFile(output)) or [])


# How many parts each folder is made in, as it was planned.
PLANNED_PARTS = {}


def parts_made(folder, output, asked, is_same):
    """The number of parts in which a folder is made; `output` is the folder, or the file in it that Snakemake knows.

    `asked` is the number that the configuration asks for. Where `output` is there and what it is made of is the same,
    it is the number of before: another one is no reason to make it again. A job on a cluster takes the number from the
    parts that are there, because the Snakemake that has submitted it has planned it.
    """
    if not workflow.is_main_process:
        return parts_there(folder)
    settings = workflow.dag_settings
    is_forced = settings.forcerun or settings.forceall or settings.forcetargets
    names = None
    if is_same and not is_forced and os.path.exists(output):
        names = workflow.persistence.input(IOFile(output))
    PLANNED_PARTS[folder] = asked if names is None else parts_in(names, folder)
    return PLANNED_PARTS[folder]


def remove_left_parts():
    """Remove parts of tables and shards that an interrupted run with another number of parts has left."""
    for folder in (ANNOTATIONS, SHARDS.format(split="train")):
        if folder in PLANNED_PARTS:
            remove_other_parts(folder, PLANNED_PARTS[folder])


def is_newer(path, output):
    """Whether a file is newer than an output; False where one of them is not there."""
    try:
        return os.path.getmtime(path) > os.path.getmtime(output)
    except OSError:
        return False


def none_is_newer(paths, output):
    """Whether an output is there, and no file is newer."""
    return os.path.exists(output) and not any(is_newer(path, output) for path in paths)


def parts_of_files(wildcards):
    """The folders of the parts; none if the job `convert` reads all files itself."""
    asked = getattr(CONFIGURATION.dataset, "parts", 1)
    is_same = (
        is_recorded(conversion(wildcards), str(PROBLEMS)) and not is_data_set_changed()
    )
    number = parts_made(ANNOTATIONS, str(PROBLEMS), asked, is_same)
    return expand(FILES_PART, part=range(number), parts=number) if number > 1 else []


def parts_of_shards(wildcards):
    """The folders of the parts; if there is one part, a path that no rule makes, so that Snakemake takes the next rule."""
    folder, asked = SHARDS.format(**wildcards), CONFIGURATION.shards.parts
    is_same = is_recorded(shard_settings(wildcards), folder) and none_is_newer(
        PLAN.tables(), f"{folder}/shards.json"
    )
    number = parts_made(folder, folder, asked, is_same)
    if number == 1:
        return [f"{folder}.whole"]
    return expand(SHARD_PART, split="train", part=range(number), parts=number)


def parts_of(model):
    """The number of parts in which the features of train are extracted."""
    folder = IMAGE_FEATURES.format(model=model, split="train")
    asked = CONFIGURATION.extraction.parts
    if f"{folder}/features.npy" in lost_features(PLAN):
        return asked
    meta = f"{folder}/meta.json"
    return parts_made(
        folder, meta, asked, none_is_newer([SHARDS.format(split="train")], meta)
    )


def parts_of_features(*name):
    """A function of the wildcards: the folders of all parts of a model's features, or the paths of a file in each.

    Where the features are made as a whole, it is a path that no rule makes, so that Snakemake takes the next rule.
    """

    def paths(wildcards):
        number = parts_of(wildcards.model)
        if number == 1:
            return [f"{IMAGE_FEATURES}.whole".format(**wildcards)]
        return expand(
            os.path.join(PART, *name),
            model=wildcards.model,
            split="train",
            part=range(number),
            parts=number,
        )

    return paths


def training_configuration(wildcards):
    """What the result of a training depends on, as JSON."""
    run = CONFIGURATION.run(wildcards.experiment, int(wildcards.seed))
    text = run.as_json(without={"train": set(OPERATIONAL)})
    return section_json(text, f"{RUN}/best.safetensors".format(**wildcards))


def made_ready(wildcards):
    """The tokens and pixels that a training finds ready.

    The result does not depend on them, so a run that was trained without them is not trained again because of them:
    Snakemake takes another set of inputs for a reason, so such a run keeps its set.
    """
    files = STUDENT_INPUTS.files(wildcards.experiment)
    if not workflow.is_main_process:
        return [file for file in files if os.path.isfile(file)]
    weights = IOFile(f"{RUN}/best.safetensors".format(**wildcards))
    if not os.path.isfile(weights):
        return files
    recorded = workflow.persistence.input(weights)
    if recorded is None:
        return []
    is_same = is_recorded(training_configuration(wildcards), weights)
    return [file for file in files if file in recorded or not is_same]


def earlier_trials(wildcards):
    """The trials that a trial waits for: of one that is there, those that it has waited for."""
    output = f"{STUDY}/trials/{wildcards.trial}/trial.json"
    if workflow.is_main_process and os.path.isfile(output):
        recorded = workflow.persistence.input(IOFile(output))
        if recorded is not None:
            return [file for file in recorded if os.path.basename(file) == "trial.json"]
    return SWEEP.earlier(wildcards.trial)


def shares_of_gallery(wildcards):
    """A file for each job that embeds a part of a gallery."""
    folder, run = (path.format(**wildcards) for path in (GALLERY, RUN))
    inputs = [f"{run}/run.json", f"{run}/best.safetensors", *SEARCH.own_gallery_files]
    meta = f"{folder}/meta.json"
    parts = parts_made(folder, meta, SEARCH.parts, none_is_newer(inputs, meta))
    return expand(f"{folder}.shares/{{part}}-of-{parts}", part=range(parts))
