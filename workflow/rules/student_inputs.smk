# The inputs of students, made once for all trainings: the tokens of captions and, with shards.pixels, decoded images.
# The name of the folder determines the content, so the student is a resource: other changes of it are no reason to
# decode again.
PIXELS = str(PLAN.folder.pixels("{student}", "{split}"))
TOKENS = str(PLAN.folder.tokens("{student}", "{split}"))


rule decode_pixels:
    "The images of a split, decoded once for all trainings of a student."
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
    priority: PRIORITY["features"]
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
    "The captions of train as tokens, once for all trainings of a student."
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
    priority: PRIORITY["features"]
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
