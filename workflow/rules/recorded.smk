# Parameters and inputs of jobs that do not change results: the record keeps their old text, so jobs do not run again.
from snakemake.io import IOFile

from cusa.annotations.enough_data import unexpected_counts
from cusa.common.times import none_is_newer
from cusa.config.captions import conversion_json
from cusa.config.training import OPERATIONAL
from cusa.plan.parts import PlannedParts
from cusa.plan.recorded_jobs import Recorded, RecordedJobs

CONVERSION = conversion_json(CONFIGURATION.dataset, CONFIGURATION.cleaning)

# Functions of parameters take only the wildcards: Snakemake does not record parameters that depend on inputs or
# outputs.
JOBS = RecordedJobs(
    lambda output: workflow.persistence.params(IOFile(output)),
    lambda output: workflow.persistence.input(IOFile(output)),
)
PARTS = PlannedParts(JOBS, not workflow.is_main_process, is_forced)


def gpu_option(output):
    """The option --gpu of a script, if there is a GPU; `output` is a path with wildcards.

    The record keeps its old text: another device is no reason to compute again.
    """
    given = "--gpu" if ON_GPU else ""
    return lambda wildcards: JOBS.option(given, output.format(**wildcards), "--gpu")


def leased_gpu(output):
    """The start of a command that leases a GPU, if there is one; `output` is a path with wildcards."""
    given, beginning = lease(ON_GPU), lease(1)
    return lambda wildcards: JOBS.option(given, output.format(**wildcards), beginning)


def conversion(wildcards):
    """The settings of the conversion, as JSON. It runs again if the tables have unexpected numbers of images."""
    if unexpected_counts(CONFIGURATION.dataset, ANNOTATIONS):
        return CONVERSION
    return JOBS.section(CONVERSION, str(PROBLEMS), reason=CHANGED_IMAGES.conversion)


def parts_of_files(wildcards):
    """The folders of the parts; none if the job `convert` reads all files itself."""
    asked = getattr(CONFIGURATION.dataset, "parts", 1)
    is_same = (
        JOBS.made_with(conversion(wildcards), str(PROBLEMS))
        and not is_data_set_changed()
    )
    number = PARTS.number(ANNOTATIONS, str(PROBLEMS), asked, is_same)
    return expand(FILES_PART, part=range(number), parts=number) if number > 1 else []


def shard_settings(wildcards):
    """The settings for writing shards, as JSON, with the reason to write them again if images have changed."""
    is_benchmarks = hasattr(wildcards, "data")
    folder = str(BENCHMARK_FOLDER.shards("{split}")) if is_benchmarks else SHARDS
    shards = folder.format(**wildcards)
    text, reason = CONFIGURATION.shard_writing.as_json(), changed_images_of(shards)
    return JOBS.section(text, shards, reason=reason)


def settings_of_part(wildcards):
    """The settings for writing a part of the shards, as JSON. It is written again if `join_shards` has a reason."""
    part = SHARD_PART.format(**wildcards)
    return JOBS.section(CONFIGURATION.shard_writing.as_json(), part)


def parts_of_shards(wildcards):
    """The folders of the parts; if there is one part, a path that no rule makes, so that Snakemake takes the next rule."""
    folder, asked = SHARDS.format(**wildcards), CONFIGURATION.shards.parts
    is_same = JOBS.made_with(shard_settings(wildcards), folder) and none_is_newer(
        PLAN.tables(), f"{folder}/shards.json"
    )
    number = PARTS.number(folder, folder, asked, is_same)
    if number == 1:
        return [f"{folder}.whole"]
    return expand(SHARD_PART, split="train", part=range(number), parts=number)


def parts_of_tokens(wildcards):
    """The folders of the parts; if there is one part, a path that no rule makes, so that Snakemake takes the next rule."""
    folder, asked = TOKENS.format(**wildcards), CONFIGURATION.shards.parts
    code = STUDENT_INPUTS.students_of_tokens[wildcards.student].python_files
    meta = f"{folder}/meta.json"
    is_same = none_is_newer([*PLAN.tables(), *code], meta)
    number = PARTS.number(folder, meta, asked, is_same)
    if number == 1:
        return [f"{folder}.whole"]
    return expand(TOKENS_PART, **wildcards, part=range(number), parts=number)


def image_model(output):
    """The image model whose features are extracted, as JSON; `output` is a path with wildcards."""
    return lambda wildcards: JOBS.section(
        PLAN.frozen_image_models[wildcards.model].as_json(),
        output.format(**wildcards),
    )


def stream_of(split, output):
    """The option --stream for the train split, if its shards are read from a URL. The record keeps its old text."""
    option = ""
    if split == "train" and CONFIGURATION.stream is not None:
        option = f"--stream {shlex.quote(CONFIGURATION.stream.as_json())}"
    return JOBS.option(option, output, "--stream")


def parts_of(model):
    """The number of parts in which the features of train are extracted."""
    folder = IMAGE_FEATURES.format(model=model, split="train")
    asked = CONFIGURATION.extraction.parts
    if f"{folder}/features.npy" in lost_features(PLAN):
        return asked
    meta = f"{folder}/meta.json"
    return PARTS.number(
        folder, meta, asked, none_is_newer([SHARDS.format(split="train")], meta)
    )


def parts_of_features(*name):
    """A function of the wildcards: the folders of all parts of a model's features, or the paths of a file in each.

    If the features are made in one part, it is a path that no rule makes, so Snakemake takes the next rule.
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
    """The settings that the result of a training depends on, as JSON."""
    run = CONFIGURATION.run(wildcards.experiment, int(wildcards.seed))
    text = run.as_json(without={"train": set(OPERATIONAL)})
    return JOBS.section(text, f"{RUN}/best.safetensors".format(**wildcards))


def stored_student_inputs(wildcards):
    """The stored tokens and pixels that a training reads."""
    if not workflow.is_main_process:
        files = STUDENT_INPUTS.files(wildcards.experiment)
        return [file for file in files if os.path.isfile(file)]
    weights = f"{RUN}/best.safetensors".format(**wildcards)
    is_same = JOBS.made_with(training_configuration(wildcards), weights)
    return STUDENT_INPUTS.files_of_run(wildcards.experiment, weights, JOBS, is_same)


def earlier_trials(wildcards):
    """The results of other trials that a trial waits for."""
    if not workflow.is_main_process:
        return SWEEP.earlier(wildcards.trial)
    return SWEEP.waited_for(wildcards.trial, JOBS)


def shares_of_gallery(wildcards):
    """A file for each job that embeds a part of a gallery."""
    folder, run = (path.format(**wildcards) for path in (GALLERY, RUN))
    inputs = [f"{run}/run.json", f"{run}/best.safetensors", *SEARCH.own_gallery_files]
    meta = f"{folder}/meta.json"
    parts = PARTS.number(folder, meta, SEARCH.parts, none_is_newer(inputs, meta))
    return expand(f"{folder}.shares/{{part}}-of-{parts}", part=range(parts))
