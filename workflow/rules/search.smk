# Galleries, which a model embeds, and their indexes, which name the model that embeds the queries.
GALLERY = f"{RUN}/gallery/{{gallery}}"
UNFINISHED = f"{GALLERY}.unfinished"
INDEX = f"{RUN}/search/{{gallery}}"


# The pictures of the data set are embedded and stored already, so their gallery takes seconds and no GPU.
rule collect_gallery:
    "The pictures of the data set, as a gallery to search in."
    input:
        lambda wildcards: SEARCH.split_gallery_inputs(
            wildcards.experiment, wildcards.seed, wildcards.gallery
        ),
        run=f"{RUN}/run.json",
    output:
        embeddings=f"{GALLERY}/embeddings.npy",
        table=f"{GALLERY}/items.parquet",
        meta=f"{GALLERY}/meta.json",
    log:
        log_of("collect_gallery", "{experiment}/seed{seed}/{gallery}"),
    benchmark:
        timing_of("collect_gallery", "{experiment}/seed{seed}/{gallery}")
    wildcard_constraints:
        experiment=one_of(SEARCH.across_modalities),
        gallery=one_of(SEARCH.galleries),
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/collect_gallery.py",
        mem_mb=4000,
        runtime=30,
    params:
        run=subpath(input.run, parent=True),
        gallery=subpath(output.meta, parent=True),
        splits=lambda wildcards: SEARCH.galleries[wildcards.gallery],
        head=SEARCH.gallery_head,
    shell:
        "python {resources.script} --run-folder {params.run} --head {params.head} --output {params.gallery} {params.splits}"
        " > {log} 2>&1"


# Pictures that the workflow has not read. They are a parameter, because the time of a folder does not show changes of
# its content. The jobs collect their shares in a folder that is not an output: Snakemake deletes the outputs of a failed
# job, but the finished embeddings must remain, so that the job can continue.
rule embed_gallery:
    "A part of the pictures of your own, embedded by a run."
    input:
        lambda wildcards: PLAN.student_files(wildcards.experiment),
        SEARCH.own_gallery_files,
        weights=f"{RUN}/best.safetensors",
        run=f"{RUN}/run.json",
    output:
        temp(touch(f"{GALLERY}.shares/{{part}}-of-{{parts}}")),
    log:
        log_of("embed_gallery", "{experiment}/seed{seed}/{gallery}/{part}-of-{parts}"),
    benchmark:
        timing_of(
            "embed_gallery", "{experiment}/seed{seed}/{gallery}/{part}-of-{parts}"
        )
    wildcard_constraints:
        experiment=one_of(SEARCH.across_modalities),
        gallery=one_of(SEARCH.own_galleries),
        parts=r"\d+",
    conda:
        "../../envs/search.yaml"
    threads: 8
    resources:
        script=f"{SCRIPTS}/embed_gallery.py",
        mem_mb=8000,
        runtime=1440,
        gpu=int(ON_GPU),
    params:
        place=lambda wildcards: SEARCH.own_gallery,
        run=subpath(input.run, parent=True),
        head=SEARCH.gallery_head,
        unfinished=lambda wildcards: UNFINISHED.format(**wildcards),
        parts=lambda wildcards: int(wildcards.parts),
        gpu=gpu_option(f"{GALLERY}.shares/{{part}}-of-{{parts}}"),
        lease=leased_gpu(f"{GALLERY}.shares/{{part}}-of-{{parts}}"),
    shell:
        "exec {params.lease} python {resources.script} --run-folder {params.run} --items {params.place:q}"
        " --head {params.head} --unfinished {params.unfinished} --part {wildcards.part} --parts {params.parts}"
        " --threads {threads} {params.gpu} > {log} 2>&1"


rule join_gallery:
    "The embedded parts of a gallery, joined."
    input:
        shares_of_gallery,
    output:
        embeddings=f"{GALLERY}/embeddings.npy",
        table=f"{GALLERY}/items.parquet",
        meta=f"{GALLERY}/meta.json",
    log:
        log_of("join_gallery", "{experiment}/seed{seed}/{gallery}"),
    benchmark:
        timing_of("join_gallery", "{experiment}/seed{seed}/{gallery}")
    wildcard_constraints:
        gallery=one_of(SEARCH.own_galleries),
    conda:
        "../../envs/search.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/join_gallery.py",
        mem_mb=4000,
        runtime=60,
    params:
        unfinished=lambda wildcards: UNFINISHED.format(**wildcards),
        gallery=subpath(output.meta, parent=True),
    shell:
        "python {resources.script} --unfinished {params.unfinished} --output {params.gallery} > {log} 2>&1"


# The old index can be searched until the new one is complete, and a running server then opens the new one. meta.json
# names the files of a version. It is not an output, because Snakemake deletes outputs before a job. The outputs are links
# to the files of the newest version, for other programs.
rule build_index:
    "The index of a gallery, by faiss, and the items that are there twice."
    input:
        lambda wildcards: SEARCH.query_model_files(wildcards.experiment, wildcards.seed),
        meta=f"{GALLERY}/meta.json",
    output:
        index=f"{INDEX}/index.faiss",
        duplicates=f"{INDEX}/duplicates.parquet",
    log:
        log_of("build_index", "{experiment}/seed{seed}/{gallery}"),
    benchmark:
        timing_of("build_index", "{experiment}/seed{seed}/{gallery}")
    wildcard_constraints:
        experiment=one_of(SEARCH.across_modalities),
        gallery=one_of([*SEARCH.galleries, *SEARCH.own_galleries]),
    conda:
        "../../envs/search.yaml"
    threads: lambda wildcards: 8 if wildcards.gallery in SEARCH.own_galleries else side_by_side(8)
    resources:
        script=f"{SCRIPTS}/build_index.py",
        mem_mb=8000,
        runtime=240,
    params:
        gallery=subpath(input.meta, parent=True),
        index=subpath(output.index, parent=True),
        model=lambda wildcards: SEARCH.query_model(wildcards.experiment, wildcards.seed),
        settings=SEARCH.index_json,
    shell:
        "python {resources.script} --gallery {params.gallery} --model {params.model} --settings {params.settings:q}"
        " --output {params.index} --threads {threads} > {log} 2>&1"
