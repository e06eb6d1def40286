# Each job writes some of the shards of the train split, if shards.parts is above 1; a small job joins them.
SHARD_PART = f"{SHARDS}.parts/{{part}}-of-{{parts}}"


ruleorder: join_shards > write_shards


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
    priority: PRIORITY["shards"]
    conda:
        "../../envs/data.yaml"
    threads: threads_of_split
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


use rule write_shards as write_shards_part with:
    "A part of the shards of the train split."
    output:
        temp(directory(SHARD_PART)),
    log:
        log_of("write_shards_part", "{split}/{part}-of-{parts}"),
    benchmark:
        timing_of("write_shards_part", "{split}/{part}-of-{parts}")
    wildcard_constraints:
        split="train",
        parts=r"\d+",
    resources:
        script=checking_data(
            "write_shards.py",
            lambda wildcards: f" --part {wildcards.part} --parts {wildcards.parts}",
        ),
        mem_mb=2000,
        runtime=240,
    params:
        settings=settings_of_part,
        annotations=subpath(input[0], parent=True),


rule join_shards:
    "The parts of the train split's shards as one folder."
    input:
        parts_of_shards,
    output:
        directory(SHARDS),
    log:
        log_of("join_shards", "{split}"),
    benchmark:
        timing_of("join_shards", "{split}")
    wildcard_constraints:
        split="train",
    priority: PRIORITY["shards"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/join_shards.py",
        mem_mb=2000,
        runtime=60,
    params:
        settings=shard_settings,
    shell:
        "python {resources.script} --output {output} {input} > {log} 2>&1"


use rule write_shards as write_benchmark_shards with:
    "The labelled images of a benchmark as tar files."
    input:
        ancient_if_moved(str(BENCHMARK_FOLDER.table("images"))),
        ancient_if_moved(str(BENCHMARK_FOLDER.table("captions"))),
    output:
        directory(str(BENCHMARK_FOLDER.shards("{split}"))),
    log:
        f"{BENCHMARK_LOGS}/logs/write_benchmark_shards/{{data}}-{{split}}.log",
    benchmark:
        f"{BENCHMARK_LOGS}/timings/write_benchmark_shards/{{data}}-{{split}}.tsv"
    wildcard_constraints:
        data=one_of(PLAN.labelled_images),
        split="test",
    threads: 8
