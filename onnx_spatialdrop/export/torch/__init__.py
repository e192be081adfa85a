"""Export torch modules with their spatial dropout as SpatialDropout nodes. torch is imported when it is called."""

from onnx_spatialdrop.export.torch.exporter import export, exporting, translation_table

__all__ = ["export", "exporting", "translation_table"]
