"""Mesh: a portrait's head as a closed surface, with its photograph and its expressions, for other tools (not in the paper)."""

from export3d.mesh.files import write_head, write_mesh
from export3d.mesh.shapes import shape_offsets
from export3d.mesh.surface import HeadMesh, head_mesh

__all__ = ["HeadMesh", "head_mesh", "shape_offsets", "write_head", "write_mesh"]
