"""Detectors of detectron2 that do not say how images are read, taught to.

Its R-CNNs and RetinaNet have ``input_format``, which loaders, pictures and ``visualize_training`` ask for.
"""

from __future__ import annotations

from typing import Any

from detectron2.modeling import meta_arch
from detectron2.modeling.meta_arch import fcos

__all__ = ["FCOS", "SemanticSegmentor"]


class FCOS(fcos.FCOS):
    """detectron2's FCOS (Tian et al., ICCV 2019, https://arxiv.org/abs/1904.01355).

    Args:
        input_format: how images are read, such as ``RGB``.
        arguments: those of detectron2's class.
    """

    def __init__(self, *, input_format: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.input_format = input_format


class SemanticSegmentor(meta_arch.SemanticSegmentor):
    """detectron2's semantic segmentor: a backbone and a head that gives the classes of all pixels.

    Args:
        input_format: how images are read, such as ``RGB``.
        arguments: those of detectron2's class.
    """

    def __init__(self, *, input_format: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.input_format = input_format
