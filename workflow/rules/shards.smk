rule write_shards:
    input:
        annotation_tables(),
    output:
        directory(f"{DATA}/shards/{{split}}"),
    params:
        settings=as_json(CONFIGURATION.shards),
        annotations=f"{DATA}/annotations",
    log:
        log_of("write_shards", "{split}"),
    benchmark:
        timing_of("write_shards", "{split}")
    threads: 8
    resources:
        mem_mb=2000,
        runtime=240,
    conda:
        "../../envs/data.yaml"
    shell:
        "python {SCRIPTS}/write_shards.py --annotations {params.annotations} --split {wildcards.split}"
        " --settings {params.settings:q} --output {output} --threads {threads} > {log} 2>&1"
