# The run folder is a parameter, not an output: Snakemake deletes the outputs of a failed job, but state/ must remain so
# that the training can continue. `exec` replaces the shell by the launcher, so that signals reach the launcher. Without
# it, SIGTERM would end the shell, and the training would be killed before it has saved its state. Settings that do not
# change the result are a resource, because a changed parameter makes Snakemake train again.
rule train:
    "One experiment with one seed; it continues where an interrupted training stopped."
    input:
        lambda wildcards: PLAN.training_inputs(wildcards.experiment),
        ready=stored_student_inputs,
    output:
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
        history=f"{RUN}/history.parquet",
    log:
        log_of("train", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("train", "{experiment}/seed{seed}")
    wildcard_constraints:
        experiment=one_of(PLAN.experiments),
    priority: PRIORITY["trainings"]
    conda:
        TORCH_ENVIRONMENT
    threads: threads_of_training
    resources:
        **MACHINES,
        script=f"{SCRIPTS}/train.py{verifying('trainings')}",
        mem_mb=8000,
        runtime=2880,
        operation=lambda wildcards: CONFIGURATION.recipe(
            wildcards.experiment
        ).model_dump_json(include=set(OPERATIONAL)),
        gpu=lambda wildcards: NODES * CONFIGURATION.recipe(wildcards.experiment).gpus,
    params:
        configuration=training_configuration,
        data=data_folder,
        folder=subpath(output.run, parent=True),
        launcher=launcher,
    shell:
        RENDEZVOUS
        + "exec {params.launcher} {resources.script} --data {params.data} --run-folder {params.folder}"
        " --configuration {params.configuration:q} --operation {resources.operation:q} --threads {threads} > {log} 2>&1"


# The weights between those before and after a training, with the best alpha on val.
rule interpolate:
    "The weights between those before and after a training, with the best alpha on val."
    input:
        lambda wildcards: PLAN.interpolation_inputs(wildcards.experiment),
        weights=lambda wildcards: f"{PLAN.interpolated_run(wildcards.experiment, wildcards.seed)}/best.safetensors",
        trained=lambda wildcards: f"{PLAN.interpolated_run(wildcards.experiment, wildcards.seed)}/run.json",
    output:
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
        history=f"{RUN}/history.parquet",
    log:
        log_of("interpolate", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("interpolate", "{experiment}/seed{seed}")
    wildcard_constraints:
        experiment=one_of(PLAN.interpolations),
    conda:
        TORCH_ENVIRONMENT
    threads: 2
    resources:
        script=f"{SCRIPTS}/interpolate.py",
        mem_mb=8000,
        runtime=240,
        operation=lambda wildcards: CONFIGURATION.recipe(
            wildcards.experiment
        ).model_dump_json(include=set(OPERATIONAL)),
        gpu=int(ON_GPU),
    params:
        configuration=training_configuration,
        data=data_folder,
        source=subpath(input.trained, parent=True),
        folder=subpath(output.run, parent=True),
        lease=leased_gpu(f"{RUN}/best.safetensors"),
    shell:
        "exec {params.lease} python {resources.script} --data {params.data} --source {params.source}"
        " --run-folder {params.folder} --configuration {params.configuration:q} --operation {resources.operation:q}"
        " --threads {threads} > {log} 2>&1"


# Published checkpoints become run folders like those of trained runs.
rule import_checkpoint:
    "A published checkpoint as a run."
    input:
        lambda wildcards: CONFIGURATION.active_checkpoints[wildcards.experiment].path,
    output:
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
        history=f"{RUN}/history.parquet",
    log:
        log_of("import_checkpoint", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("import_checkpoint", "{experiment}/seed{seed}")
    wildcard_constraints:
        experiment=one_of(PLAN.checkpoints),
    conda:
        TORCH_ENVIRONMENT
    threads: 1
    resources:
        script=f"{SCRIPTS}/import_checkpoint.py",
        mem_mb=8000,
        runtime=30,
    params:
        student=lambda wildcards: CONFIGURATION.student_of(wildcards.experiment).name,
        dataset=CONFIGURATION.dataset.name,
        # It was once a number of GPUs, on which nothing depends any more; another one would be a reason to import again.
        gpus=lambda wildcards: next(
            iter(JOBS.params(f"{RUN}/best.safetensors".format(**wildcards), int)),
            0,
        ),
        folder=subpath(output.run, parent=True),
    shell:
        "python {resources.script} --file {input:q} --student {params.student:q} --dataset {params.dataset}"
        " --run-folder {params.folder} --seed {wildcards.seed} --gpus {params.gpus} > {log} 2>&1"


# Baselines: students as they are before training, and the teachers.
rule write_baseline:
    "A student before training, or the teachers, as a run."
    input:
        lambda wildcards: PLAN.student_files(wildcards.experiment),
    output:
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
        history=f"{RUN}/history.parquet",
    log:
        log_of("write_baseline", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("write_baseline", "{experiment}/seed{seed}")
    wildcard_constraints:
        experiment=one_of(PLAN.baselines),
    conda:
        TORCH_ENVIRONMENT
    threads: 1
    resources:
        script=f"{SCRIPTS}/write_baseline.py",
        mem_mb=8000,
        runtime=30,
    params:
        configuration=lambda wildcards: JOBS.section(
            CONFIGURATION.run(wildcards.experiment, int(wildcards.seed)).as_json(),
            f"{RUN}/best.safetensors".format(**wildcards),
            of_train=["precision"],  # with which it is embedded
        ),
        folder=subpath(output.run, parent=True),
    shell:
        "python {resources.script} --run-folder {params.folder} --configuration {params.configuration:q} > {log} 2>&1"
