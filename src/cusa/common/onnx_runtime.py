"""Imports onnxruntime with its telemetry switched off; from version 1.32 on, it is on by default."""

from __future__ import annotations

import os
from types import ModuleType


def import_onnxruntime() -> ModuleType:
    """The module onnxruntime, which sends nothing and stores no identifier of the device.

    Whoever wants its telemetry sets the environment variable ORT_DISABLE_TELEMETRY to 0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads the variable once, when it is imported
    import onnxruntime

    if os.environ["ORT_DISABLE_TELEMETRY"] != "0":
        onnxruntime.disable_telemetry_events()  # if other code has imported it before
    module: ModuleType = onnxruntime
    return module
