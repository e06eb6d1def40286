# The search over settings: one job per trial, then the table of the trials and the best of them as an overlay. What all
# trials share is in the name of the sweep's folder. So the configuration can be a resource, whose change is no reason
# to train again.
STUDY = str(SWEEP.study.folder) if SWEEP.study else f"{DATA}/sweep/none"


rule run_trial:
    "One trial of a sweep, with all of its seeds."
    input:
        SWEEP.inputs(),
        earlier=ancient(earlier_trials),
    output:
        f"{STUDY}/trials/{{trial}}/trial.json",
    log:
        log_of("run_trial", f"{os.path.basename(STUDY)}/{{trial}}"),
    benchmark:
        timing_of("run_trial", f"{os.path.basename(STUDY)}/{{trial}}")
    wildcard_constraints:
        trial=one_of(SWEEP.points),
    conda:
        TORCH_ENVIRONMENT
    threads: 8
    resources:
        **MACHINES,
        script=f"{SCRIPTS}/run_trial.py",
        mem_mb=8000,
        runtime=2880,
        configuration=lambda wildcards: SWEEP.configuration_json(),
        gpu=NODES * SWEEP.recipe.gpus,
    params:
        point=lambda wildcards: SWEEP.point_json(wildcards.trial),
        data=data_folder,
        study=lambda wildcards: STUDY,
        launcher=lambda wildcards: as_launched(
            SWEEP.recipe, f"{STUDY}/trials/{wildcards.trial}/trial.json"
        ),
    shell:
        RENDEZVOUS
        + "exec {params.launcher} {resources.script} --data {params.data} --study {params.study} --trial {wildcards.trial}"
        " --point {params.point:q} --configuration {resources.configuration:q} --threads {threads} > {log} 2>&1"


rule summarise_sweep:
    "The table of a sweep's trials, and the best of them as an overlay."
    input:
        SWEEP.results(),
    output:
        table=f"{STUDY}/trials.parquet",
        markdown=report(
            f"{STUDY}/trials.md", caption="../report/sweep.rst", category="Results"
        ),
        best=f"{STUDY}/best.yaml",
    log:
        log_of("summarise_sweep", os.path.basename(STUDY)),
    benchmark:
        timing_of("summarise_sweep", os.path.basename(STUDY))
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/summarise_sweep.py",
        mem_mb=1000,
        runtime=10,
    params:
        study=subpath(output.best, parent=True),
        trials=list(SWEEP.points),
    shell:
        "python {resources.script} --study {params.study} {params.trials} > {log} 2>&1"
