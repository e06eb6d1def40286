rule embed:
    input:
        embedding_inputs,
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
    output:
        directory(f"{RUN}/embeddings/{{data}}"),
    log:
        log_of("embed", "{experiment}/seed{seed}/{data}"),
    benchmark:
        timing_of("embed", "{experiment}/seed{seed}/{data}")
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=int(ON_GPU),
    params:
        script=f"{SCRIPTS}/embed.py",
        data=data_folder,
        folder=subpath(input.run, parent=True),
    shell:
        "python {params.script} --data {params.data} --run-folder {params.folder} --benchmark-data {wildcards.data}"
        " --output {output} --threads {threads} > {log} 2>&1"
