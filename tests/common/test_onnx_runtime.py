"""onnxruntime reports nothing to its makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnxruntime_stores_no_identifier_of_the_device(tmp_path):
    code = (
        "import sys, numpy, onnx; from onnx import TensorProto, helper;"
        "from cusa.common.onnx_runtime import import_onnxruntime; onnxruntime = import_onnxruntime();"
        "value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]);"
        "graph = helper.make_graph([helper.make_node('Abs', ['x'], ['y'])], 'g', [value('x')], [value('y')]);"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8);"
        "session = onnxruntime.InferenceSession(model.SerializeToString());"
        "print(session.run(None, {'x': numpy.array([-1], dtype=numpy.float32)})[0][0])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1.0"
    assert [path for path in Path(tmp_path).rglob("*") if path.is_file()] == []
