# The run folder is a parameter, not an output: Snakemake deletes the outputs of a failed job, and state/ must survive
# to be continued. `exec` makes torchrun the job's own process, so that signals reach it.
rule train:
    input:
        training_inputs,
    output:
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
        history=f"{RUN}/history.parquet",
    params:
        configuration=lambda wildcards: as_json(
            CONFIGURATION.run(wildcards.experiment, int(wildcards.seed))
        ),
        data=DATA,
        folder=RUN,
        processes=CONFIGURATION.train.processes,
    log:
        log_of("train", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("train", "{experiment}/seed{seed}")
    threads: 8
    resources:
        mem_mb=8000,
        runtime=2880,
        gpu=CONFIGURATION.train.gpus,
    conda:
        "../../envs/torch.yaml"
    shell:
        "exec torchrun --standalone --nproc-per-node {params.processes} {SCRIPTS}/train.py --data {params.data}"
        " --run-folder {params.folder} --configuration {params.configuration:q} --threads {threads} > {log} 2>&1"
