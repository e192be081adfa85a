"""Export Keras 3 models with their spatial dropout as SpatialDropout nodes. Keras is imported when it is called."""

from onnx_spatialdrop.export.keras.exporter import export

__all__ = ["export"]
