# The inputs of students, made once for all trainings: the tokens of captions and, with shards.pixels, decoded images.
# The name of the folder determines the content, so the student is a resource: other changes of it are no reason to
# decode again.
PIXELS = str(PLAN.folder.pixels("{student}", "{split}"))
TOKENS = str(PLAN.folder.tokens("{student}", "{split}"))
# Each job tokenises some of the captions, if shards.parts is above 1; a small job joins them.
TOKENS_PART = f"{TOKENS}.parts/{{part}}-of-{{parts}}"


ruleorder: join_tokens > tokenise_captions


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
    priority: PRIORITY["images"]
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
    priority: PRIORITY["texts"]
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


use rule tokenise_captions as tokenise_captions_part with:
    "A part of the captions of train as tokens."
    output:
        meta=temp(directory(TOKENS_PART)),
    log:
        log_of("tokenise_captions_part", "{student}/{split}/{part}-of-{parts}"),
    benchmark:
        timing_of("tokenise_captions_part", "{student}/{split}/{part}-of-{parts}")
    wildcard_constraints:
        student=one_of(map(re.escape, STUDENT_INPUTS.students_of_tokens)),
        split="train",
        parts=r"\d+",
    resources:
        script=lambda wildcards: f"{SCRIPTS}/tokenise_captions.py"
        + student_option(STUDENT_INPUTS.students_of_tokens[wildcards.student])
        + f" --part {wildcards.part} --parts {wildcards.parts}",
        mem_mb=4000,
        runtime=240,
    params:
        data=data_folder,
        folder=TOKENS_PART,


rule join_tokens:
    "The parts of the captions' tokens as one folder."
    input:
        parts_of_tokens,
    output:
        ids=f"{TOKENS}/ids.npy",
        ends=f"{TOKENS}/ends.npy",
        meta=f"{TOKENS}/meta.json",
    log:
        log_of("join_tokens", "{student}/{split}"),
    benchmark:
        timing_of("join_tokens", "{student}/{split}")
    wildcard_constraints:
        student=one_of(map(re.escape, STUDENT_INPUTS.students_of_tokens)),
        split="train",
    priority: PRIORITY["texts"]
    conda:
        TORCH_ENVIRONMENT
    threads: 1
    resources:
        script=f"{SCRIPTS}/join_tokens.py",
        mem_mb=2000,
        runtime=60,
    params:
        data=data_folder,
        folder=subpath(output.meta, parent=True),
    shell:
        "python {resources.script} --data {params.data} --output {params.folder} {input} > {log} 2>&1"
