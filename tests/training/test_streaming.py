"""Shards on real servers: HTTP from the standard library, S3 from moto, read with curl."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from cusa.common.distinct import of_pairs
from cusa.common.files import read_json
from cusa.config.configuration import load
from cusa.config.experiments import RunConfiguration
from cusa.config.section import validate
from cusa.config.shards import Stream
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.shards.reading import ShardReader, read_shards
from cusa.shards.writing import write_split
from cusa.student.student import build_student
from cusa.teachers.extraction import extract_image_features
from cusa.training.distributed import Group
from cusa.training.loading import open_loader, open_stream, open_training_pairs
from cusa.training.loop import train
from cusa.training.sampling import PairSampler
from cusa.training.state import Progress
from cusa.training.streaming import StreamedPairs


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def local(shapes_data, tmp_path_factory, tiny_configuration) -> DatasetFolder:
    """The shapes with eight shards of four images."""
    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path_factory.mktemp("elsewhere") / "data")))
    settings = load(tiny_configuration).shards.model_copy(update={"samples_per_shard": 4})
    write_split(folder.annotations, "train", folder.shards("train"), settings)
    return folder


@pytest.fixture(scope="module")
def far(local, tmp_path_factory) -> DatasetFolder:
    """The same data without the train split's tars."""
    folder = DatasetFolder(Path(shutil.copytree(local.root, tmp_path_factory.mktemp("far") / "data")))
    for tar in folder.shards("train").glob("*.tar"):
        tar.unlink()
    return folder


@pytest.fixture(scope="module")
def http_url(local) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(local.shards("train")))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/shard-{{shard}}.tar"
        server.shutdown()


@pytest.fixture(scope="module")
def s3_url(local, tmp_path_factory) -> Iterator[str]:
    """An S3-compatible server with the shards in a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="bucket")
    for tar in local.shards("train").glob("*.tar"):
        client.upload_file(str(tar), "bucket", f"shapes/{tar.name}")
    signed = "curl --silent --fail --aws-sigv4 aws:amz:us-east-1:s3 --user test:test"
    yield f"pipe:{signed} {endpoint}/bucket/shapes/shard-{{shard}}.tar"
    server.stop()


@pytest.fixture(params=["http", "s3"])
def url(request) -> str:
    return request.getfixturevalue(f"{request.param}_url")


def streaming(tiny_configuration, url: str, buffer: int = 20, **settings) -> RunConfiguration:
    recipe = {**tiny_configuration["train"], **settings}
    mapping = {**tiny_configuration, "train": recipe, "stream": {"url": url, "shuffle_buffer": buffer}}
    return load(mapping).run("cusa", 23)


def test_streamed_images_equal_those_of_local_shards(local, far, url):
    here, there = ShardReader(local.shards("train")), ShardReader(far.shards("train"))
    found = list(read_shards(Stream(url=url), there, [6, 1]))
    assert [image.position for image in found] == [24, 25, 26, 27, 4, 5, 6, 7]
    for image in found:
        assert image.encoded == here.encoded(image.position)


def test_features_of_streamed_images_are_the_same(local, far, url, tiny_configuration, tmp_path):
    """Whole, and in parts that end where shards end."""
    settings = load(tiny_configuration).teachers.image
    # Extracted here, because the number of threads, which other tests may have changed, moves the last digit.
    extract_image_features(local.shards("train"), settings, tmp_path / "local", threads=2)
    expected = np.load(tmp_path / "local/features.npy")
    stream, shards = Stream(url=url), far.shards("train")
    extract_image_features(shards, settings, tmp_path / "whole", threads=2, stream=stream)
    assert np.array_equal(np.load(tmp_path / "whole/features.npy"), expected)
    for part in range(3):
        extract_image_features(shards, settings, tmp_path / f"{part}", part=part, parts=3, stream=stream)
    joined = np.concatenate([np.load(tmp_path / f"{part}/features.npy") for part in range(3)])
    np.testing.assert_allclose(joined, expected, rtol=1e-2)


def test_a_run_is_trained_on_streamed_shards(far, url, tiny_configuration, tmp_path):
    run = streaming(tiny_configuration, url, epochs=2)
    train(run, far, tmp_path)
    about = read_json(tmp_path / "run.json")
    assert about["epochs"] == 2
    assert about["configuration"]["stream"]["url"] == url


def pairs_of(run: RunConfiguration, folder: DatasetFolder, batches: int, group: Group, epoch=0, step=0) -> list:
    student = build_student(run.student, run.losses)
    pairs = open_training_pairs(student, run, folder)
    streamed = open_stream(student, run, folder, pairs, group)
    streamed.start_at(epoch, step)
    sampler = PairSampler(len(pairs), run.train.batch_size, run.seed, group.rank, group.world_size)
    loader = open_loader(streamed, sampler, Progress(epoch, step), run.train, torch.device("cpu"))
    return list(islice(loader, batches))


def test_batches_are_those_of_local_reading(local, far, http_url, tiny_configuration):
    """Each pair has its own pixels and teacher features, in any order."""
    run = streaming(tiny_configuration, http_url)
    (batch,) = pairs_of(run, far, 1, Group())
    student = build_student(run.student, run.losses)
    pairs = open_training_pairs(student, run, local)
    pixels, features = batch.by_pair().images, of_pairs(batch.teacher_image, batch.teacher_image_rows)
    for place, image in enumerate(batch.image_ids.tolist()):
        assert torch.equal(pixels[place], pairs.images[np.array([image])][0])
        assert np.array_equal(features[place].numpy(), pairs.teacher_image[np.array([image])][0])
        captions = np.flatnonzero(pairs.image_of_caption == image)
        texts = [pairs.teacher_text[captions[[number]]][0] for number in range(len(captions))]
        assert any(np.array_equal(batch.teacher_text[place].numpy(), text) for text in texts)


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (2, 2)])
def test_an_epoch_is_nearly_every_pair_once(far, http_url, tiny_configuration, processes, workers):
    """Nearly: each reader has its own shards, and some pairs stay in the buffer."""
    run = streaming(tiny_configuration, http_url, buffer=1, batch_size=4, workers=workers)
    seen: Counter[int] = Counter()
    for rank in range(processes):
        for batch in pairs_of(run, far, 16 // processes, Group(processes, rank)):
            seen.update(batch.image_ids.tolist())
    assert sum(seen.values()) == 64
    assert len(seen) == 32
    assert set(seen.values()) == {2}  # two captions an image


def test_captions_of_a_streamed_image_share_a_batch(far, http_url, tiny_configuration):
    """The stream reads images; with `captions_per_image` their captions follow each other."""
    run = streaming(tiny_configuration, http_url, captions_per_image="all")
    batches = pairs_of(run, far, 8, Group())
    assert [len(batch.images) for batch in batches] == [4] * 8  # two captions an image, eight pairs a batch
    seen = Counter(image for batch in batches for image in batch.image_ids.tolist())
    assert set(seen.values()) <= {2, 4}
    texts = [tuple(text) for batch in batches for text in batch.teacher_text.tolist()]
    assert len(set(texts)) > 32  # both captions of an image
    alone = streaming(tiny_configuration, http_url, captions_per_image=1)
    assert max(len(batch.images) for batch in pairs_of(alone, far, 8, Group())) > 4


def test_seed_epoch_and_step_give_the_order(far, http_url, tiny_configuration):
    run = streaming(tiny_configuration, http_url)

    def order(**where) -> list[int]:
        return [image for batch in pairs_of(run, far, 4, Group(), **where) for image in batch.image_ids.tolist()]

    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(step=2)


def test_a_reader_that_runs_out_starts_over(far, http_url, tiny_configuration):
    """So no process waits for another, however unequal their shards are."""
    run = streaming(tiny_configuration, http_url)
    assert len(pairs_of(run, far, 30, Group(3, 2))) == 30


def test_more_readers_than_shards_are_refused(far, http_url, tiny_configuration):
    run = streaming(tiny_configuration, http_url, workers=5)
    with pytest.raises(ConfigurationError, match=r"8 shards cannot be shared out to 10 readers \(2 processes x 5"):
        pairs_of(run, far, 1, Group(2, 0))


def test_shards_that_cannot_be_read_are_reported(far, http_url, tmp_path):
    reader = ShardReader(far.shards("train"))
    for url in (http_url.replace("shard-", "nothing-"), "pipe:false {shard}", f"{tmp_path}/{{shard}}.tar"):
        with pytest.raises(DataError, match=r"could not be read as shard 0 of .*check stream.url"):
            list(read_shards(Stream(url=url), reader, [0]))
    (tmp_path / "tars").mkdir()
    shutil.copy(far.shards("train") / "index.parquet", tmp_path)
    subprocess.run(
        f"curl -s {http_url.format(shard='000003')} | head -c 5120 > {tmp_path}/000000.tar", shell=True, check=True
    )
    with pytest.raises(DataError, match=r"(has \d images, but .* lists 4 for it|could not be read)"):
        list(read_shards(Stream(url=f"{tmp_path}/{{shard}}.tar"), reader, [0]))


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("cat {tar}; exit 3", "exit status 3 after 4 of 4 images"),
        ("head -c 5120 {tar}; exit 3", "exit status 3 after [12] of 4 images"),
        ("head -c 700 {tar}; sleep 0.2; exit 22", "exit status 22 after 0 of 4 images"),
        ("exit 22", "exit status 22 after 0 of 4 images"),
        ("no-such-program {tar}", r"exit status 127 \(no such command\) after 0 of 4 images"),
        ("/etc/passwd {tar}", r"exit status 126 \(a file that cannot be run\) after 0 of 4 images"),
        ("cat {tar}; kill -9 $$", r"exit status 137 \(killed by SIGKILL\) after 4 of 4 images"),
        ("exec sh -c 'kill -15 $$'; cat {tar}", r"exit status 143 \(killed by SIGTERM\) after 0 of 4 images"),
    ],
)
def test_a_command_that_fails_is_named_with_its_exit_status(local, command, status):
    """Also after some or all of its images: a training never goes on with fewer data."""
    url = "pipe:" + command.replace("{tar}", f"{local.shards('train')}/shard-{{shard}}.tar") + " # {shard}"
    url = url if url.count("{shard}") == 1 else url.removesuffix(" # {shard}")
    with pytest.raises(DataError) as caught:
        list(read_shards(Stream(url=url), ShardReader(local.shards("train")), [3]))
    message = str(caught.value)
    assert re.search(rf"the command `{re.escape(url.replace('{shard}', '000003')[5:])}` ended with {status}\)", message)
    assert "\n" not in message


def test_curl_that_fails_is_named_with_its_exit_status(far, http_url):
    url = http_url.replace("shard-", "nothing-")
    with pytest.raises(DataError, match=r"the command `curl .*/nothing-000000.tar` ended with exit status 22 after 0"):
        list(read_shards(Stream(url=url), ShardReader(far.shards("train")), [0]))


def test_a_pipeline_whose_first_command_fails_gives_too_few_images(local):
    """A shell tells the status of the last command only; the images are counted as well."""
    tar = f"{local.shards('train')}/shard-{{shard}}.tar"
    for command in (f"(head -c 5120 {tar}; exit 3) | cat", f"(cat {tar}; exit 3) | head -c 5120"):
        with pytest.raises(DataError, match=r"(has \d images, but .* lists 4 for it|could not be read as shard 3)"):
            list(read_shards(Stream(url=f"pipe:{command}"), ShardReader(local.shards("train")), [3]))


def test_a_command_ends_when_nobody_reads_on(local, tmp_path):
    tar = f"{local.shards('train')}/shard-{{shard}}.tar"
    url = f"pipe:echo $$ > {tmp_path}/process; cat {tar}; exec sleep 60"
    images = read_shards(Stream(url=url), ShardReader(local.shards("train")), [3])
    next(images)
    images.close()
    assert not Path(f"/proc/{(tmp_path / 'process').read_text().strip()}").exists()


def test_a_url_without_a_place_for_the_shard_is_refused():
    with pytest.raises(ConfigurationError, match=r"`url`.*does not have \{shard\} once"):
        validate(Stream, {"url": "http://example.org/all.tar"})


def test_frozen_towers_read_features_that_are_here(far, http_url, tiny_configuration, tiny_vision, tiny_sentences):
    towers = {
        side: {"name": str(name), "trainable": False}
        for side, name in (("image", tiny_vision), ("text", tiny_sentences))
    }
    student = {"name": None, "towers": {**towers, "dimension": 12}}
    run = streaming({**tiny_configuration, "student": student}, http_url)
    assert StreamedPairs is not None
    from cusa.student.inputs import frozen_dimensions

    built = build_student(run.student, run.losses, frozen_dimensions(run.student, far, "train"))
    assert open_stream(built, run, far, open_training_pairs(built, run, far), Group()) is None
