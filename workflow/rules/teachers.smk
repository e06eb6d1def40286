rule extract_image_features:
    input:
        f"{DATA}/shards/{{split}}",
    output:
        features=f"{DATA}/teachers/image/{{model}}/{{split}}/features.npy",
        meta=f"{DATA}/teachers/image/{{model}}/{{split}}/meta.json",
    log:
        log_of("extract_image_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_image_features", "{model}/{split}")
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=480,
        gpu=int(ON_GPU),
    params:
        script=f"{SCRIPTS}/extract_image_features.py",
        model=lambda wildcards: json.dumps(
            FROZEN["image"][wildcards.model], sort_keys=True
        ),
        folder=subpath(output.features, parent=True),
        gpu="--gpu" if ON_GPU else "",
    shell:
        "python {params.script} --shards {input} --model {params.model:q}"
        " --output {params.folder} --threads {threads} {params.gpu} > {log} 2>&1"


rule extract_text_features:
    input:
        annotation_tables(),
    output:
        features=f"{DATA}/teachers/text/{{model}}/{{split}}/features.npy",
        meta=f"{DATA}/teachers/text/{{model}}/{{split}}/meta.json",
    log:
        log_of("extract_text_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_text_features", "{model}/{split}")
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=int(ON_GPU),
    params:
        script=f"{SCRIPTS}/extract_text_features.py",
        model=lambda wildcards: json.dumps(
            FROZEN["text"][wildcards.model], sort_keys=True
        ),
        annotations=subpath(input[0], parent=True),
        folder=subpath(output.features, parent=True),
        gpu="--gpu" if ON_GPU else "",
    shell:
        "python {params.script} --annotations {params.annotations} --split {wildcards.split}"
        " --model {params.model:q} --output {params.folder} --threads {threads} {params.gpu} > {log} 2>&1"
