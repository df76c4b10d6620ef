"""DCNv3, the operator: the equation (reference.py), its sampling pattern (geometry.py), its registration (op.py)."""

from internimage.ops.dcnv3.geometry import DCNv3Geometry
from internimage.ops.dcnv3.op import dcnv3, explain_dcnv3
from internimage.ops.dcnv3.reference import Normalize, dcnv3_reference, sampling_positions_xy

__all__ = ["DCNv3Geometry", "Normalize", "dcnv3", "dcnv3_reference", "explain_dcnv3", "sampling_positions_xy"]
