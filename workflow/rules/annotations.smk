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
        mem_mb=2000,
        runtime=60,
    params:
        script=f"{SCRIPTS}/convert.py",
        dataset=as_json(CONFIGURATION.dataset),
        folder=subpath(output.problems, parent=True),
        images=image_folder,
    shell:
        "python {params.script} --dataset {params.dataset:q} --images {params.images}"
        " --output {params.folder} --threads {threads} > {log} 2>&1"
