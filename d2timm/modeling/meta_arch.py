"""Detectors of detectron2 with the attribute ``input_format``, which they lack there.

detectron2's R-CNNs and RetinaNet have it; data loaders, visualization and ``visualize_training`` read it.
"""

from __future__ import annotations

from typing import Any

from detectron2.modeling import meta_arch
from detectron2.modeling.meta_arch import fcos

from ..utils.targets import config_target

__all__ = ["FCOS", "SemanticSegmentor"]


@config_target
class FCOS(fcos.FCOS):
    """detectron2's FCOS (Tian et al., ICCV 2019, https://arxiv.org/abs/1904.01355).

    Args:
        input_format: channel order in which images are read, such as ``RGB``.
        arguments: arguments of detectron2's class.
    """

    def __init__(self, *, input_format: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.input_format = input_format


@config_target
class SemanticSegmentor(meta_arch.SemanticSegmentor):
    """detectron2's semantic segmentor: a backbone and a head that predicts the class of each pixel.

    Args:
        input_format: channel order in which images are read, such as ``RGB``.
        arguments: arguments of detectron2's class.
    """

    def __init__(self, *, input_format: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.input_format = input_format
