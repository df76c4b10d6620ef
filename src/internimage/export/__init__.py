"""Networks as files for other runtimes."""

from internimage.export.network import Agreement
from internimage.export.onnx import check_onnx, export_onnx
from internimage.export.openvino import export_openvino
from internimage.export.program import export_package, export_program

__all__ = ["Agreement", "check_onnx", "export_onnx", "export_openvino", "export_package", "export_program"]
