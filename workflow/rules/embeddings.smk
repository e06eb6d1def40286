rule embed:
    input:
        embedding_inputs,
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
    output:
        directory(f"{RUN}/embeddings/{{data}}"),
    params:
        data=DATA,
        folder=RUN,
    log:
        log_of("embed", "{experiment}/seed{seed}/{data}"),
    benchmark:
        timing_of("embed", "{experiment}/seed{seed}/{data}")
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=int(ON_GPU),
    conda:
        "../../envs/torch.yaml"
    shell:
        "python {SCRIPTS}/embed.py --data {params.data} --run-folder {params.folder} --benchmark-data {wildcards.data}"
        " --output {output} --threads {threads} > {log} 2>&1"
