# Images that changed since they were read. They are inputs of no rule, because Snakemake would ask for each of a
# million files in each job. A changed image becomes a part of a recorded parameter of the job that read it.
from itertools import repeat

from cusa.config.operational import same_result
from cusa.plan import ChangedImages, find_changed_images
from cusa.plan.reasons import without_reason
from cusa.plan.recorded_jobs import values_of
from cusa.shards.image_files import record_image_files


def is_converted_anyway():
    """Whether the data set will be read again for another reason than its images, so that it may name other images."""
    if is_data_set_changed() or unexpected_counts(CONFIGURATION.dataset, ANNOTATIONS):
        return True
    # Snakemake opens its records after the rules are read.
    params = read_record(records().get(str(PROBLEMS))).get("params")
    recorded = [without_reason(each) for each in values_of(params, str)]
    return bool(recorded) and not any(map(same_result, recorded, repeat(CONVERSION)))


CHANGED_IMAGES = ChangedImages()
if workflow.is_main_process:
    try:
        CHANGED_IMAGES = find_changed_images(PLAN, is_converted_anyway())
    except CusaError as error:
        stop(error)
    for sentence in CHANGED_IMAGES.sentences():
        logger.info(sentence)


def changed_images_of(shards):
    """Why the shards in a folder are written again; empty if their images are what they were.

    Shards of an earlier release have no record of their images. It is written here, because Snakemake calls this
    function also if there is nothing to do. Before, it is not known whether this is a dry run.
    """
    is_watching = CONFIGURATION.shards.watch_images and workflow.is_main_process
    if is_watching and not workflow.dryrun:
        record_image_files(shards)
    return CHANGED_IMAGES.shards.get(shards, "")
