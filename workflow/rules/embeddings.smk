rule embed:
    input:
        lambda wildcards: PLAN.embedding_inputs(wildcards.experiment, wildcards.data),
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
    output:
        directory(f"{RUN}/embeddings/{{data}}"),
    log:
        log_of("embed", "{experiment}/seed{seed}/{data}"),
    benchmark:
        timing_of("embed", "{experiment}/seed{seed}/{data}")
    wildcard_constraints:
        data=one_of([*PLAN.splits, *PLAN.text_tables]),
    conda:
        TORCH_ENVIRONMENT
    threads: 2
    resources:
        script=f"{SCRIPTS}/embed.py",
        mem_mb=4000,
        runtime=120,
        gpu=int(ON_GPU),
    params:
        data=data_folder,
        what="{data}",
        folder=subpath(input.run, parent=True),
        lease=lease(ON_GPU),
    shell:
        "exec {params.lease} python {resources.script} --data {params.data} --run-folder {params.folder} --benchmark-data {params.what}"
        " --output {output} --threads {threads} > {log} 2>&1"


# The benchmarks' own data, which all data sets share.
use rule embed as embed_benchmark_data with:
    input:
        timeless(
            lambda wildcards: PLAN.embedding_inputs(
                wildcards.experiment, wildcards.data
            )
        ),
        weights=timeless(f"{RUN}/best.safetensors"),
        run=timeless(f"{RUN}/run.json"),
    output:
        directory(f"{RUN}/embeddings/{{data}}"),
    log:
        log_of("embed_benchmark_data", "{experiment}/seed{seed}/{data}"),
    benchmark:
        timing_of("embed_benchmark_data", "{experiment}/seed{seed}/{data}")
    wildcard_constraints:
        data=one_of([*PLAN.labelled_images, *PLAN.sentence_pairs]),
    params:
        data=lambda wildcards: BENCHMARK_DATA.format(data=wildcards.data),
        what=lambda wildcards: (
            "test" if wildcards.data in PLAN.labelled_images else "sentence_pairs"
        ),
        folder=subpath(input.run, parent=True),
        lease=lease(ON_GPU),
