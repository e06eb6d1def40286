rule write_shards:
    input:
        annotation_tables(),
    output:
        directory(f"{DATA}/shards/{{split}}"),
    log:
        log_of("write_shards", "{split}"),
    benchmark:
        timing_of("write_shards", "{split}")
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        script=f"{SCRIPTS}/write_shards.py",
        mem_mb=2000,
        runtime=240,
    params:
        settings=as_json(CONFIGURATION.shards),
        annotations=subpath(input[0], parent=True),
    shell:
        "python {resources.script} --annotations {params.annotations} --split {wildcards.split}"
        " --settings {params.settings:q} --output {output} --threads {threads} > {log} 2>&1"


use rule write_shards as write_benchmark_shards with:
    input:
        f"{BENCHMARK_DATA}/{{data}}/annotations/images.parquet",
        f"{BENCHMARK_DATA}/{{data}}/annotations/captions.parquet",
    output:
        directory(f"{BENCHMARK_DATA}/{{data}}/shards/{{split}}"),
    log:
        f"{BENCHMARK_DATA}/logs/write_benchmark_shards/{{data}}-{{split}}.log",
    benchmark:
        f"{BENCHMARK_DATA}/timings/write_benchmark_shards/{{data}}-{{split}}.tsv"
    wildcard_constraints:
        data="|".join(LABELLED_IMAGES) or "none",
        split="test",
