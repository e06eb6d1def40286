rule convert:
    input:
        list(CONFIGURATION.dataset.files.values()),
    output:
        expand(f"{DATA}/annotations/{{split}}.json", split=["train", "val", "test"]),
        annotation_tables(*TABLES),
        problems=f"{DATA}/annotations/problems.json",
        images=(
            [directory(f"{DATA}/images")]
            if CONFIGURATION.dataset.format == "openmoji"
            else []
        ),
    log:
        log_of("convert", "convert"),
    benchmark:
        timing_of("convert", "convert")
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        script=f"{SCRIPTS}/convert.py",
        mem_mb=2000,
        runtime=60,
    params:
        dataset=as_json(CONFIGURATION.dataset),
        folder=subpath(output.problems, parent=True),
        images=image_folder,
    shell:
        "python {resources.script} --dataset {params.dataset:q} --images {params.images}"
        " --output {params.folder} --threads {threads} > {log} 2>&1"


# What benchmarks score besides the data set itself. The archives' folders are parameters: their times mean nothing.
rule convert_labelled_images:
    output:
        images=f"{BENCHMARK_DATA}/{{data}}/annotations/images.parquet",
        captions=f"{BENCHMARK_DATA}/{{data}}/annotations/captions.parquet",
    log:
        f"{BENCHMARK_DATA}/logs/convert_labelled_images/{{data}}.log",
    benchmark:
        f"{BENCHMARK_DATA}/timings/convert_labelled_images/{{data}}.tsv"
    wildcard_constraints:
        data="|".join(LABELLED_IMAGES) or "none",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/convert_benchmark_data.py",
        mem_mb=2000,
        runtime=60,
    params:
        source=lambda wildcards: LABELLED_IMAGES[wildcards.data],
        folder=subpath(output.images, parent=True),
    shell:
        "python {resources.script} images {wildcards.data} --source {params.source:q}"
        " --output {params.folder} > {log} 2>&1"


rule convert_sentence_pairs:
    output:
        pairs=f"{BENCHMARK_DATA}/{{data}}/annotations/sentence_pairs.parquet",
    log:
        f"{BENCHMARK_DATA}/logs/convert_sentence_pairs/{{data}}.log",
    benchmark:
        f"{BENCHMARK_DATA}/timings/convert_sentence_pairs/{{data}}.tsv"
    wildcard_constraints:
        data="|".join(SENTENCE_PAIRS) or "none",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/convert_benchmark_data.py",
        mem_mb=2000,
        runtime=60,
    params:
        source=lambda wildcards: SENTENCE_PAIRS[wildcards.data],
        folder=subpath(output.pairs, parent=True),
    shell:
        "python {resources.script} sentences {wildcards.data} --source {params.source:q}"
        " --output {params.folder} > {log} 2>&1"
