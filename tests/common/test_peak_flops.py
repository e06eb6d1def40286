"""The highest speeds of GPUs by the names that PyTorch gives them."""

from __future__ import annotations

import pytest

from cusa.common.peak_flops import PEAKS, peak_flops


@pytest.mark.parametrize(
    ("gpu", "precision", "expected"),
    [
        ("NVIDIA H200", "bf16", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7e12),
        ("NVIDIA H100 PCIe", "fp16", 756.4e12),
        ("NVIDIA H100 NVL", "bf16", 835.5e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA A10G", "fp16", 70e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA GeForce RTX 4090", "fp32", 82.6e12),
        ("Tesla V100-SXM2-32GB", "fp16", 125e12),
        ("Tesla V100-PCIE-16GB", "fp16", 112e12),
        ("Tesla T4", "fp32", 8.1e12),
        ("AMD Instinct MI300X", "bf16", 1307.4e12),
    ],
)
def test_known_gpus_have_the_figure_of_their_data_sheet(gpu, precision, expected):
    assert peak_flops(gpu, precision) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gpu", "precision"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16"),  # a part of a GPU
        ("Tesla V100-SXM2-32GB", "bf16"),  # no hardware for it
        ("Tesla T4", "tf32"),
        ("Quadro P4000", "fp32"),  # not listed
        ("NVIDIA GeForce RTX 40901", "fp32"),  # a name is a whole word
    ],
)
def test_what_is_not_known_has_no_figure(gpu, precision):
    assert peak_flops(gpu, precision) is None


def test_half_precision_is_never_slower():
    for peak in PEAKS.values():
        speeds = [value for value in (peak.fp32, peak.tf32, peak.half) if value is not None]
        assert speeds == sorted(speeds)
