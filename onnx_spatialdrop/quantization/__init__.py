"""int8 models that draw as the float model does: ONNX Runtime's quantiser, calibrated while dropout is on."""

from onnx_spatialdrop.quantization.quantize import quantize_dynamic, quantize_static
from onnx_spatialdrop.quantization.reader import DrawingReader, Reader

__all__ = ["DrawingReader", "Reader", "quantize_dynamic", "quantize_static"]
