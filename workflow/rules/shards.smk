def shard_settings(wildcards):
    """How shards are written, as JSON."""
    is_benchmarks = hasattr(wildcards, "data")
    folder = str(BENCHMARK_FOLDER.shards("{split}")) if is_benchmarks else SHARDS
    return section_json(
        CONFIGURATION.shard_writing.as_json(), folder.format(**wildcards)
    )


rule write_shards:
    "The images of a split as WebDataset tar files, with an index."
    input:
        PLAN.tables(),
    output:
        directory(SHARDS),
    log:
        log_of("write_shards", "{split}"),
    benchmark:
        timing_of("write_shards", "{split}")
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        script=checking_data("write_shards.py"),
        mem_mb=2000,
        runtime=240,
    params:
        settings=shard_settings,
        annotations=subpath(input[0], parent=True),
    shell:
        "python {resources.script} --annotations {params.annotations} --split {wildcards.split}"
        " --settings {params.settings:q} --output {output} --threads {threads} > {log} 2>&1"


use rule write_shards as write_benchmark_shards with:
    "The labelled images of a benchmark as tar files."
    input:
        timeless(str(BENCHMARK_FOLDER.table("images"))),
        timeless(str(BENCHMARK_FOLDER.table("captions"))),
    output:
        directory(str(BENCHMARK_FOLDER.shards("{split}"))),
    log:
        f"{BENCHMARK_LOGS}/logs/write_benchmark_shards/{{data}}-{{split}}.log",
    benchmark:
        f"{BENCHMARK_LOGS}/timings/write_benchmark_shards/{{data}}-{{split}}.tsv"
    wildcard_constraints:
        data=one_of(PLAN.labelled_images),
        split="test",
