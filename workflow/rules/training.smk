# The run folder is a parameter, not an output: Snakemake deletes the outputs of a failed job, and state/ must survive
# to be continued. `exec` makes torchrun the job's own process, so that signals reach it.
rule train:
    input:
        training_inputs,
    output:
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
        history=f"{RUN}/history.parquet",
    log:
        log_of("train", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("train", "{experiment}/seed{seed}")
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=2880,
        gpu=lambda wildcards: CONFIGURATION.recipe(wildcards.experiment).gpus,
    params:
        script=f"{SCRIPTS}/train.py",
        configuration=lambda wildcards: as_json(
            CONFIGURATION.run(wildcards.experiment, int(wildcards.seed))
        ),
        data=data_folder,
        folder=subpath(output.run, parent=True),
        processes=lambda wildcards: CONFIGURATION.recipe(wildcards.experiment).processes,
    shell:
        "exec torchrun --standalone --nproc-per-node {params.processes} {params.script} --data {params.data}"
        " --run-folder {params.folder} --configuration {params.configuration:q} --threads {threads} > {log} 2>&1"
