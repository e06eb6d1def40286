# Each job extracts one part of the train split, if extraction.parts is above 1; a small job joins or lists the parts.
PART = f"{IMAGE_FEATURES}.parts/{{part}}-of-{{parts}}"
JOINED = CONFIGURATION.extraction.join


ruleorder: join_image_features > extract_image_features


# The digest of a Python file that an image model is loaded from: a changed file is a reason to extract again. It is no
# input, because the command names the input, and no parameter where there is no such file: either would be a reason to
# extract again what was extracted by an earlier release.
IMAGE_CODE = (
    {"code": lambda wildcards: PLAN.code_of_image_model(wildcards.model)}
    if any(model.python_files for model in PLAN.frozen_image_models.values())
    else {}
)


rule extract_image_features:
    "The features of a frozen image model for a split."
    input:
        SHARDS,
    output:
        features=f"{IMAGE_FEATURES}/features.npy",
        meta=f"{IMAGE_FEATURES}/meta.json",
    log:
        log_of("extract_image_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_image_features", "{model}/{split}")
    priority: PRIORITY["images"]
    conda:
        TORCH_ENVIRONMENT
    threads: threads_of_split
    resources:
        script=checking_data(
            f"extract_image_features.py{verifying('extraction', 'trainings')}"
        ),
        mem_mb=4000,
        runtime=480,
        gpu=int(ON_GPU),
    params:
        **IMAGE_CODE,
        model=image_model(f"{IMAGE_FEATURES}/meta.json"),
        folder=subpath(output.features, parent=True),
        gpu=gpu_option(f"{IMAGE_FEATURES}/meta.json"),
        lease=leased_gpu(f"{IMAGE_FEATURES}/meta.json"),
        part="",
        stream=lambda wildcards: stream_of(
            wildcards.split, f"{IMAGE_FEATURES}/meta.json".format(**wildcards)
        ),
    shell:
        "exec {params.lease} python {resources.script} --shards {input} --model {params.model:q}"
        " --output {params.folder} --threads {threads} {params.gpu} {params.part} {params.stream} > {log} 2>&1"


use rule extract_image_features as extract_image_part with:
    "The features of a frozen image model for a part of the train split."
    output:
        features=part_of_features(f"{PART}/features.npy"),
        meta=part_of_features(f"{PART}/meta.json"),
    log:
        log_of("extract_image_part", "{model}/{split}/{part}-of-{parts}"),
    benchmark:
        timing_of("extract_image_part", "{model}/{split}/{part}-of-{parts}")
    wildcard_constraints:
        split="train",
        parts=r"\d+",
    params:
        **IMAGE_CODE,
        model=image_model(f"{PART}/meta.json"),
        folder=subpath(output.features, parent=True),
        gpu=gpu_option(f"{PART}/meta.json"),
        lease=leased_gpu(f"{PART}/meta.json"),
        part=lambda wildcards: f"--part {wildcards.part} --parts {wildcards.parts}",
        stream=lambda wildcards: stream_of(
            "train", f"{PART}/meta.json".format(**wildcards)
        ),


rule join_image_features:
    "The parts of the image features of train, joined or listed."
    input:
        features=parts_of_features("features.npy"),
        meta=parts_of_features("meta.json"),
    output:
        **({"features": f"{IMAGE_FEATURES}/features.npy"} if JOINED else {}),
        meta=f"{IMAGE_FEATURES}/meta.json",
    log:
        log_of("join_image_features", "{model}/{split}"),
    benchmark:
        timing_of("join_image_features", "{model}/{split}")
    wildcard_constraints:
        split="train",
    priority: PRIORITY["images"]
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        script=f"{SCRIPTS}/join_image_features.py",
        mem_mb=1000,
        runtime=60,
    params:
        folder=subpath(output.meta, parent=True),
        parts=parts_of_features(),
        list="" if JOINED else "--list",
    shell:
        "python {resources.script} --output {params.folder} {params.list} {params.parts} > {log} 2>&1"


BENCHMARK_FEATURES = str(BENCHMARK_FOLDER.features("image", "{model}", "{split}"))


use rule extract_image_features as extract_benchmark_features with:
    "The features of a frozen image model for a benchmark's images."
    input:
        ancient_if_moved(str(BENCHMARK_FOLDER.shards("{split}"))),
    output:
        features=f"{BENCHMARK_FEATURES}/features.npy",
        meta=f"{BENCHMARK_FEATURES}/meta.json",
    log:
        f"{BENCHMARK_LOGS}/logs/extract_benchmark_features/{{data}}/{{model}}-{{split}}.log",
    benchmark:
        f"{BENCHMARK_LOGS}/timings/extract_benchmark_features/{{data}}/{{model}}-{{split}}.tsv"
    wildcard_constraints:
        data=one_of(PLAN.labelled_images),
        split="test",
    params:
        **IMAGE_CODE,
        model=image_model(f"{BENCHMARK_FEATURES}/meta.json"),
        folder=subpath(output.features, parent=True),
        gpu=gpu_option(f"{BENCHMARK_FEATURES}/meta.json"),
        lease=leased_gpu(f"{BENCHMARK_FEATURES}/meta.json"),
        part="",
        stream="",


rule extract_text_features:
    "The features of a frozen text model for the captions of a split."
    input:
        PLAN.tables(),
        code=lambda wildcards: PLAN.frozen_text_models[wildcards.model].python_files,
    output:
        features=f"{TEXT_FEATURES}/features.npy",
        meta=f"{TEXT_FEATURES}/meta.json",
    log:
        log_of("extract_text_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_text_features", "{model}/{split}")
    priority: PRIORITY["texts"]
    conda:
        TORCH_ENVIRONMENT
    threads: side_by_side(8)
    resources:
        script=checking_data("extract_text_features.py"),
        mem_mb=4000,
        runtime=240,
        gpu=int(ON_GPU),
    params:
        model=lambda wildcards: JOBS.section(
            PLAN.frozen_text_models[wildcards.model].as_json(),
            f"{TEXT_FEATURES}/meta.json".format(**wildcards),
        ),
        annotations=subpath(input[0], parent=True),
        folder=subpath(output.features, parent=True),
        gpu=gpu_option(f"{TEXT_FEATURES}/meta.json"),
        lease=leased_gpu(f"{TEXT_FEATURES}/meta.json"),
    shell:
        "exec {params.lease} python {resources.script} --annotations {params.annotations} --split {wildcards.split}"
        " --model {params.model:q} --output {params.folder} --threads {threads} {params.gpu} > {log} 2>&1"


# The texts of benchmarks other than captions, once for all runs with the same frozen tower.
use rule extract_text_features as extract_table_features with:
    "The features of a frozen text model for texts that are not captions."
    input:
        ancient_if_moved(str(PLAN.folder.table("{split}"))),
        code=lambda wildcards: PLAN.frozen_text_models[wildcards.model].python_files,
    output:
        features=f"{TEXT_FEATURES}/features.npy",
        meta=f"{TEXT_FEATURES}/meta.json",
    log:
        log_of("extract_table_features", "{model}/{split}"),
    benchmark:
        timing_of("extract_table_features", "{model}/{split}")
    wildcard_constraints:
        split=one_of(PLAN.text_tables),


PAIR_FEATURES = str(BENCHMARK_FOLDER.features("text", "{model}", "{split}"))


use rule extract_text_features as extract_benchmark_texts with:
    "The features of a frozen text model for a benchmark's sentence pairs."
    input:
        ancient_if_moved(str(BENCHMARK_FOLDER.table("{split}"))),
        code=lambda wildcards: PLAN.frozen_text_models[wildcards.model].python_files,
    output:
        features=f"{PAIR_FEATURES}/features.npy",
        meta=f"{PAIR_FEATURES}/meta.json",
    log:
        f"{BENCHMARK_LOGS}/logs/extract_benchmark_texts/{{data}}/{{model}}-{{split}}.log",
    benchmark:
        f"{BENCHMARK_LOGS}/timings/extract_benchmark_texts/{{data}}/{{model}}-{{split}}.tsv"
    wildcard_constraints:
        data=one_of(PLAN.sentence_pairs),
        split="sentence_pairs",
