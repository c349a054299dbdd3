"""Writing ONNX files, in floating point and in int8: named layers, no trace of the machine."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from artifactnet.exporters.graph import MODEL, quiet_logger
from artifactnet.inference.backends.metadata import INPUT
from artifactnet.inference.backends.onnx import import_onnxruntime
from artifactnet.inference.backends.session import import_runtime, runtime_errors
from artifactnet.types import ArtifactNetError, UInt8Array

LIMIT = 2**31 - 2**20  # bytes that a protobuf message can hold, less some for the graph
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # operators that int8 makes faster
_SCOPES = "pkg.torch.onnx.name_scopes"
_PIP = "pip install 'onnx>=1.16' 'onnxscript>=0.2' (or 'artifactnet[onnx]')"


def _onnx() -> ModuleType:
    return import_runtime("onnx", "writing ONNX needs the onnx package", _PIP)


def onnx_bytes(
    program: torch.export.ExportedProgram, outputs: tuple[str, ...], metadata: Mapping[str, str]
) -> bytes:
    """An exported program as the content of an ``.onnx`` file.

    Nodes with the weights of a layer carry its name (``backbone.net.stem.conv``), so that layers
    can be named in any format.

    Args:
        program: of `graph.export_program`.
        outputs: names of its outputs, in order.
        metadata: strings for the file.

    Raises:
        ArtifactNetError: onnx or onnxscript is missing, the model is too large for the format,
            or ONNX lacks an operator.
    """
    onnx = _onnx()
    if find_spec("onnxscript") is None:
        raise ArtifactNetError(f"writing ONNX needs the onnxscript package: {_PIP}")
    size = sum(x.numel() * x.element_size() for x in program.state_dict.values())
    if size > LIMIT:
        raise ArtifactNetError(
            f"the weights take {size / 2**30:.1f} GB, and an ONNX file holds less than 2; export "
            "to .pt2 instead"
        )
    # its advice is to programmers
    with runtime_errors("the model has no ONNX form"), quiet_logger("torch.onnx"):
        converted = torch.onnx.export(program, (), dynamo=True, verbose=False)
    assert converted is not None
    proto = converted.model_proto
    _name_values(proto.graph, outputs)
    _name_batch(proto.graph)
    _name_layers(proto.graph)
    _remove_origin(proto)
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def layers_of(content: bytes) -> dict[str, list[str]]:
    """Node names by layer with constant weights, of the content that `onnx_bytes` made."""
    graph = _onnx().load_from_string(content).graph
    constants = {tensor.name for tensor in graph.initializer}
    layers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in WEIGHTED and constants.intersection(node.input[1:2]):
            layers.setdefault(node.name.partition("#")[0], []).append(node.name)
    return layers


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same file with this metadata instead of its own."""
    onnx = _onnx()
    proto = onnx.load_from_string(content)
    onnx.helper.set_model_props(proto, dict(metadata))
    return bytes(proto.SerializeToString())


def quantize_onnx(
    content: bytes, folder: Path, batches: Sequence[UInt8Array], keep: Sequence[str]
) -> bytes:
    """Static int8 of the weighted layers, in the QDQ form that every runtime reads.

    Weights have a scale per channel, activations one per tensor, from the smallest and largest
    calibration value. Weights use seven bits: on processors without VNNI the sum of two products
    of eight bits saturates, and the file must mean the same everywhere.

    Args:
        content: of an ``.onnx`` file in floating point.
        folder: for intermediate files.
        batches: calibration frames, (B, H, W, 3) uint8 each.
        keep: layers to keep in floating point.

    Raises:
        ArtifactNetError: onnxruntime is missing, or its quantiser refuses the model.
    """
    import_onnxruntime()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
        shape_inference,
    )

    remaining = iter(batches)

    class Reader(CalibrationDataReader):
        """Calibration batches, one by one."""

        def get_next(self) -> dict[str, UInt8Array] | None:
            """The next batch; None after the last."""
            batch = next(remaining, None)
            return None if batch is None else {INPUT: batch}

    layers = layers_of(content)
    nodes = [name for layer, names in layers.items() if layer not in keep for name in names]
    source, ready, target = (folder / name for name in ("float.onnx", "ready.onnx", "int8.onnx"))
    onnx = _onnx()
    with_shapes = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    source.write_bytes(with_shapes.SerializeToString())
    # its advice goes to the root logger
    with runtime_errors("the model cannot be quantised"), quiet_logger(None):
        shape_inference.quant_pre_process(
            source, ready, skip_optimization=True, skip_symbolic_shape=True
        )
        quantize_static(
            ready,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
    return target.read_bytes()


def _name_values(graph: Any, outputs: tuple[str, ...]) -> None:
    """Name input and outputs; the converter's own renaming clashes with inner values."""
    names = (INPUT, *outputs)
    ends = [graph.input[0].name, *(value.name for value in graph.output)]
    new = {name: f"{name}_inside" for name in names} | dict(zip(ends, names, strict=True))
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = new.get(value.name, value.name)


def _name_batch(graph: Any) -> None:
    """Call the free dimension ``batch`` instead of the tracer's symbol."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = dimension.dim_param.replace(symbol, "batch")


def _name_layers(graph: Any) -> None:
    """Name weighted nodes after their layer, ``#2`` where it is used again, others by number."""
    taken: dict[str, int] = {}
    constants = {tensor.name for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        layer = ""
        if node.op_type in WEIGHTED and constants.intersection(node.input[1:2]):
            layer = _layer(node)
        if not layer:
            node.name = f"{node.op_type}_{number}"
            continue
        taken[layer] = taken.get(layer, 0) + 1
        node.name = layer if taken[layer] == 1 else f"{layer}#{taken[layer]}"


def _layer(node: Any) -> str:
    """Name of the model's layer that a node computes, or ""."""
    prefix = f"{MODEL}."
    weight = node.input[1]
    if weight.startswith(prefix) and weight.endswith(".weight"):
        return str(weight[len(prefix) : -len(".weight")])
    # a transposed weight lost its name; the innermost module that was running has not
    scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "[]")
    inside = [scope for scope in ast.literal_eval(scopes) if scope.startswith(prefix)]
    return inside[-1][len(prefix) :] if inside else ""


def _remove_origin(proto: Any) -> None:
    """Remove source files and paths of the exporting machine."""
    graph = proto.graph
    proto.doc_string = ""
    values = (*graph.value_info, *graph.input, *graph.output)
    for part in (graph, *graph.node, *graph.initializer, *values):
        part.doc_string = ""
        del part.metadata_props[:]
