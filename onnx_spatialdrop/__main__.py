"""``python -m onnx_spatialdrop`` is the command line."""

import sys

from onnx_spatialdrop.cli import main

sys.exit(main())
