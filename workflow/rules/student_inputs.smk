# What students read, made once for all trainings: the tokens of captions and, with shards.pixels, decoded images. The
# name of the folder determines the content, so the student is a resource: other changes of it are no reason to decode
# again.
import re

from snakemake.io import IOFile

PIXELS = str(PLAN.folder.pixels("{student}", "{split}"))
TOKENS = str(PLAN.folder.tokens("{student}", "{split}"))


def student_option(student):
    """The argument --student of a script; empty for whole pictures, which belong to no student."""
    return "" if student is None else f" --student {shlex.quote(student.as_json())}"


rule decode_pixels:
    input:
        shards=SHARDS,
        code=lambda wildcards: STUDENT_INPUTS.code_of_pixels(wildcards.student),
    output:
        pixels=f"{PIXELS}/pixels.npy",
        meta=f"{PIXELS}/meta.json",
    log:
        log_of("decode_pixels", "{student}/{split}"),
    benchmark:
        timing_of("decode_pixels", "{student}/{split}")
    wildcard_constraints:
        student=one_of(map(re.escape, STUDENT_INPUTS.students_of_pixels)),
    conda:
        TORCH_ENVIRONMENT
    threads: 8
    resources:
        script=lambda wildcards: f"{SCRIPTS}/decode_pixels.py"
        + student_option(STUDENT_INPUTS.students_of_pixels[wildcards.student]),
        mem_mb=4000,
        runtime=480,
    params:
        folder=subpath(output.meta, parent=True),
    shell:
        "python {resources.script} --shards {input.shards} --output {params.folder} --threads {threads} > {log} 2>&1"


rule tokenise_captions:
    input:
        PLAN.tables(),
        code=lambda wildcards: STUDENT_INPUTS.students_of_tokens[
            wildcards.student
        ].python_files,
    output:
        ids=f"{TOKENS}/ids.npy",
        ends=f"{TOKENS}/ends.npy",
        meta=f"{TOKENS}/meta.json",
    log:
        log_of("tokenise_captions", "{student}/{split}"),
    benchmark:
        timing_of("tokenise_captions", "{student}/{split}")
    wildcard_constraints:
        student=one_of(map(re.escape, STUDENT_INPUTS.students_of_tokens)),
    conda:
        TORCH_ENVIRONMENT
    threads: 8
    resources:
        script=lambda wildcards: f"{SCRIPTS}/tokenise_captions.py"
        + student_option(STUDENT_INPUTS.students_of_tokens[wildcards.student]),
        mem_mb=4000,
        runtime=240,
    params:
        data=data_folder,
        folder=subpath(output.meta, parent=True),
    shell:
        "python {resources.script} --data {params.data} --split {wildcards.split} --output {params.folder}"
        " --threads {threads} > {log} 2>&1"


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
    recorded, params = workflow.persistence.input(weights), workflow.persistence.params(
        weights
    )
    if recorded is None:
        return []
    is_same = repr(training_configuration(wildcards)) in (params or [])
    return [file for file in files if file in recorded or not is_same]
