rule extract_image_features:
    input:
        f"{DATA}/shards/{{split}}",
    output:
        features=f"{DATA}/teachers/image/{{model}}/{{split}}/features.npy",
        meta=f"{DATA}/teachers/image/{{model}}/{{split}}/meta.json",
    params:
        model=lambda wildcards: json.dumps(FROZEN["image"][wildcards.model], sort_keys=True),
        folder=lambda wildcards, output: os.path.dirname(output.features),
        gpu="--gpu" if ON_GPU else "",
    log:
        log_of("extract_image_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_image_features", "{model}/{split}")
    threads: 8
    resources:
        mem_mb=4000,
        runtime=480,
        gpu=int(ON_GPU),
    conda:
        "../../envs/torch.yaml"
    shell:
        "python {SCRIPTS}/extract_image_features.py --shards {input} --model {params.model:q}"
        " --output {params.folder} --threads {threads} {params.gpu} > {log} 2>&1"


rule extract_text_features:
    input:
        annotation_tables(),
    output:
        features=f"{DATA}/teachers/text/{{model}}/{{split}}/features.npy",
        meta=f"{DATA}/teachers/text/{{model}}/{{split}}/meta.json",
    params:
        model=lambda wildcards: json.dumps(FROZEN["text"][wildcards.model], sort_keys=True),
        annotations=f"{DATA}/annotations",
        folder=lambda wildcards, output: os.path.dirname(output.features),
        gpu="--gpu" if ON_GPU else "",
    log:
        log_of("extract_text_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_text_features", "{model}/{split}")
    threads: 8
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=int(ON_GPU),
    conda:
        "../../envs/torch.yaml"
    shell:
        "python {SCRIPTS}/extract_text_features.py --annotations {params.annotations} --split {wildcards.split}"
        " --model {params.model:q} --output {params.folder} --threads {threads} {params.gpu} > {log} 2>&1"
