"""Composite backbones: a lead network that a second, assisting one helps at every stage."""

from internimage.model.composite.network import CompositeInternImage

__all__ = ["CompositeInternImage"]
