# In all rules, values of the user are parameters given by a function: in a text, Snakemake takes braces for wildcards.
# The rules of this file run before others that could run, because they find most problems of data.


# Each job reads some of the files, if dataset.parts is above 1.
FILES_PART = f"{ANNOTATIONS}.parts/{{part}}-of-{{parts}}"


rule read_part:
    "A part of the data set's files."
    input:
        [users_file(path) for path in PLAN.dataset_files],
    output:
        temp(directory(FILES_PART)),
    log:
        log_of("read_part", "{part}-of-{parts}"),
    benchmark:
        timing_of("read_part", "{part}-of-{parts}")
    wildcard_constraints:
        parts=r"\d+",
    priority: PRIORITY["tables"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/read_part.py",
        mem_mb=3000,
        runtime=240,
    params:
        dataset=lambda wildcards: JOBS.section(
            CONVERSION, FILES_PART.format(**wildcards)
        ),
        images=lambda wildcards: str(PLAN.folder.images),
    shell:
        "python {resources.script} --dataset {params.dataset:q} --images {params.images}"
        " --part {wildcards.part} --parts {wildcards.parts} --output {output} > {log} 2>&1"


rule convert:
    "The data set's files and images, checked and written as tables."
    input:
        [users_file(path) for path in PLAN.dataset_files],
        parts=parts_of_files,
    output:
        expand(f"{ANNOTATIONS}/{{split}}.json", split=["train", "val", "test"]),
        PLAN.tables(*PLAN.extra_tables),
        problems=f"{ANNOTATIONS}/problems.json",
        images=(
            [directory(str(PLAN.folder.images))]
            if CONFIGURATION.dataset.makes_images
            else []
        ),
    log:
        log_of("convert", "convert"),
    benchmark:
        timing_of("convert", "convert")
    priority: PRIORITY["tables"]
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        script=lambda wildcards, input: " ".join(
            [
                f"{SCRIPTS}/convert.py",
                *(["--parts", *input.parts] if input.parts else []),
            ]
        ),
        mem_mb=3000,
        runtime=60,
    params:
        dataset=conversion,
        folder=subpath(output.problems, parent=True),
        images=lambda wildcards: str(PLAN.folder.images),
    shell:
        "python {resources.script} --dataset {params.dataset:q} --images {params.images}"
        " --output {params.folder} --threads {threads} > {log} 2>&1"


# The benchmarks' own data. The folders of the archives are parameters, not inputs, because their modification times say
# nothing about their content. Data that cannot be read stop the workflow before anything is trained: hence the priority.
rule convert_labelled_images:
    "The labelled images of a benchmark, as tables."
    output:
        images=str(BENCHMARK_FOLDER.table("images")),
        captions=str(BENCHMARK_FOLDER.table("captions")),
    log:
        f"{BENCHMARK_LOGS}/logs/convert_labelled_images/{{data}}.log",
    benchmark:
        f"{BENCHMARK_LOGS}/timings/convert_labelled_images/{{data}}.tsv"
    wildcard_constraints:
        data=one_of(PLAN.labelled_images),
    priority: PRIORITY["tables"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/convert_benchmark_data.py",
        mem_mb=2000,
        runtime=60,
    params:
        source=lambda wildcards: PLAN.labelled_images[wildcards.data],
        folder=subpath(output.images, parent=True),
    shell:
        "python {resources.script} images {wildcards.data} --source {params.source:q}"
        " --output {params.folder} > {log} 2>&1"


rule convert_sentence_pairs:
    "The sentence pairs of a benchmark, as a table."
    output:
        pairs=str(BENCHMARK_FOLDER.table("sentence_pairs")),
    log:
        f"{BENCHMARK_LOGS}/logs/convert_sentence_pairs/{{data}}.log",
    benchmark:
        f"{BENCHMARK_LOGS}/timings/convert_sentence_pairs/{{data}}.tsv"
    wildcard_constraints:
        data=one_of(PLAN.sentence_pairs),
    priority: PRIORITY["tables"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/convert_benchmark_data.py",
        mem_mb=2000,
        runtime=60,
    params:
        source=lambda wildcards: PLAN.sentence_pairs[wildcards.data],
        folder=subpath(output.pairs, parent=True),
    shell:
        "python {resources.script} sentences {wildcards.data} --source {params.source:q}"
        " --output {params.folder} > {log} 2>&1"
