# One job embeds what each benchmark of the data set may score: the test split, and the tables and variants of its format.
# It is the same whatever benchmarks are switched on, so that a benchmark that is added embeds nothing of this again.
EMBEDDED_TOGETHER = PLAN.embedded_together


rule embed:
    "A run's embeddings of the test split, and of the tables and variants of the data set."
    input:
        lambda wildcards: PLAN.inputs_of_embedding(
            wildcards.experiment, EMBEDDED_TOGETHER
        ),
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
    output:
        [directory(f"{RUN}/embeddings/{data}") for data in EMBEDDED_TOGETHER],
    log:
        log_of("embed", "{experiment}/seed{seed}"),
    benchmark:
        timing_of("embed", "{experiment}/seed{seed}")
    conda:
        TORCH_ENVIRONMENT
    threads: side_by_side(2)
    resources:
        script=f"{SCRIPTS}/embed.py{DEVICE}",
        mem_mb=4000,
        runtime=120,
        gpu=int(ON_GPU),
    params:
        data=data_folder,
        what=" ".join(EMBEDDED_TOGETHER),
        folder=subpath(input.run, parent=True),
        lease=leased_gpu(f"{RUN}/embeddings/{EMBEDDED_TOGETHER[0]}"),
    shell:
        "exec {params.lease} python {resources.script} --data {params.data} --run-folder {params.folder} --benchmark-data {params.what}"
        " --output {output} --threads {threads} > {log} 2>&1"


# The other splits, for galleries and for the linear probe, and the texts that a benchmark writes for itself.
use rule embed as embed_more with:
    "A run's embeddings of another split, or of texts that a benchmark writes."
    input:
        ancient_if_moved(
            lambda wildcards: PLAN.inputs_of_embedding(
                wildcards.experiment, [wildcards.data]
            )
        ),
        weights=ancient_if_moved(f"{RUN}/best.safetensors"),
        run=ancient_if_moved(f"{RUN}/run.json"),
    output:
        directory(f"{RUN}/embeddings/{{data}}"),
    log:
        log_of("embed_more", "{experiment}/seed{seed}/{data}"),
    benchmark:
        timing_of("embed_more", "{experiment}/seed{seed}/{data}")
    wildcard_constraints:
        data=one_of(
            [
                data
                for data in [*PLAN.splits, *PLAN.text_tables]
                if data not in EMBEDDED_TOGETHER
            ]
        ),
    params:
        data=data_folder,
        what="{data}",
        folder=subpath(input.run, parent=True),
        lease=leased_gpu(f"{RUN}/embeddings/{{data}}"),


# The benchmarks' own data, which all data sets share.
use rule embed as embed_benchmark_data with:
    "A run's embeddings of a benchmark's own data."
    input:
        ancient_if_moved(
            lambda wildcards: PLAN.inputs_of_embedding(
                wildcards.experiment, [wildcards.data]
            )
        ),
        weights=ancient_if_moved(f"{RUN}/best.safetensors"),
        run=ancient_if_moved(f"{RUN}/run.json"),
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
        lease=leased_gpu(f"{RUN}/embeddings/{{data}}"),
