"""The peak speed of known GPUs, from their makers' data sheets; the MFU is a training's share of it.

The figures are dense (without 2:4 sparsity), with sums in fp32, in 10^12 floating-point operations a second. A GPU that
is not listed, or a part of one (MIG), has no figure, so its MFU is not known.
"""

from __future__ import annotations

from typing import NamedTuple


class Peak(NamedTuple):
    """10^12 operations a second: of bf16 and fp16 matrix products, of tf32 ones, and of plain fp32; None without."""

    half: float | None
    tf32: float | None
    fp32: float


# The name that torch.cuda.get_device_name gives has all words of a key, in any order; the first key that fits counts.
PEAKS: dict[str, Peak] = {
    "B300": Peak(2250.0, 1125.0, 75.0),
    "GB200": Peak(2500.0, 1250.0, 80.0),
    "B200": Peak(2250.0, 1125.0, 75.0),
    "GH200": Peak(989.4, 494.7, 66.9),
    "H200 NVL": Peak(835.5, 417.7, 60.0),
    "H200": Peak(989.4, 494.7, 66.9),
    "H100 NVL": Peak(835.5, 417.7, 60.0),
    "H100 PCIe": Peak(756.4, 378.2, 51.2),
    "H100": Peak(989.4, 494.7, 66.9),
    "A100": Peak(312.0, 156.0, 19.5),
    "A800": Peak(312.0, 156.0, 19.5),
    "A40": Peak(149.7, 74.8, 37.4),
    "A30": Peak(165.0, 82.0, 10.3),
    "A10G": Peak(70.0, 35.0, 35.0),
    "A10": Peak(125.0, 62.5, 31.2),
    "L40S": Peak(362.0, 183.0, 91.6),
    "L40": Peak(181.0, 90.5, 90.5),
    "L4": Peak(121.0, 60.0, 30.3),
    "RTX 6000 Ada": Peak(364.2, 182.1, 91.1),
    "RTX A6000": Peak(154.8, 77.4, 38.7),
    "RTX 4090": Peak(165.2, 82.6, 82.6),
    "RTX 3090": Peak(71.2, 35.6, 35.6),
    "V100 PCIE": Peak(112.0, None, 14.0),
    "V100": Peak(125.0, None, 15.7),
    "T4": Peak(65.0, None, 8.1),
    "MI325X": Peak(1307.4, 653.7, 163.4),
    "MI300X": Peak(1307.4, 653.7, 163.4),
    "MI250X": Peak(191.5, None, 47.9),  # for one of its two dies, which are two devices in PyTorch
}
TERA = 1e12


def peak_flops(gpu: str, precision: str) -> float | None:
    """The highest number of floating-point operations a second of a GPU by name; None if it is not known.

    `precision` is that of the matrix products: `fp32`, `tf32`, `bf16` or `fp16`. GPUs without bf16 in hardware, or
    without tf32, have no figure for it.
    """
    words = set(gpu.upper().replace("-", " ").split())
    names = [] if "MIG" in words else [name for name in PEAKS if set(name.upper().split()) <= words]
    if not names:
        return None
    peak = PEAKS[names[0]]
    if precision == "bf16" and peak.tf32 is None and not names[0].startswith("MI"):
        return None  # NVIDIA's GPUs before Ampere have neither tf32 nor bf16
    value = {"fp32": peak.fp32, "tf32": peak.tf32, "bf16": peak.half, "fp16": peak.half}[precision]
    return None if value is None else value * TERA
