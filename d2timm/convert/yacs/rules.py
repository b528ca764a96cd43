"""The table of rules: which keys of the old format make which key of d2timm's config tree, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["CARRIED", "LEAVE", "NOT_CONVERTED", "NOT_NEEDED", "RULES", "TOGETHER", "Quotient", "Rule"]

LEAVE = object()  # a rule returns it where the recipe's value is right


class Quotient(NamedTuple):
    """A fraction that is written as ``part / whole``, for readability."""

    part: int
    whole: int


class Rule(NamedTuple):
    """Old keys, and the new key whose value they determine.

    A rule does not apply where the new tree has no place for the new key: its detector lacks that part.

    Attributes:
        old: keys of the old config, separated by blanks.
        new: key of the new tree; ``{data}`` stands for ``data.name``.
        translate: computes the new value from the old values; it may return ``LEAVE``.
        optional: whether d2timm's nodes omit the new key, and so leave it to the default of the class.
        derived: whether d2timm derives the value from the data or the neck. It is not written then, and any
            other value than the derived one is reported as not converted.
    """

    old: str
    new: str
    translate: Callable[..., Any] = lambda value: value
    optional: bool = False
    derived: bool = False


def _section(old: str, new: str, same: str = "", optional: bool = False, **renamed: str) -> tuple[Rule, ...]:
    """Rules that move keys from one section to another.

    Args:
        old: the old section.
        new: the new section.
        same: keys whose new name is the old one in lower case, separated by blanks.
        optional: as in ``Rule``.
        renamed: old key -> new key.
    """
    names = {key: key.lower() for key in same.split()} | renamed
    return tuple(Rule(f"{old}.{key}", f"{new}.{name}", optional=optional) for key, name in names.items())


def _repeat(number: int, width: int) -> list[int]:
    return [width] * number


def _pair(train: Any, test: Any) -> list[Any]:
    return [train, test]


def _round(value: float) -> float:
    """Remove rounding errors."""
    return float(f"{value:.12g}")


# ---- the detector

FPN, RPN, HEADS, RETINA = "MODEL.FPN", "MODEL.RPN", "MODEL.ROI_HEADS", "MODEL.RETINANET"
BOX, MASK, KEYPOINT = (f"MODEL.ROI_{head}_HEAD" for head in ("BOX", "MASK", "KEYPOINT"))
ANCHORS, CASCADE = "MODEL.ANCHOR_GENERATOR", "MODEL.ROI_BOX_CASCADE_HEAD"
SEMANTIC, COMBINE, CONFIG = "MODEL.SEM_SEG_HEAD", "MODEL.PANOPTIC_FPN.COMBINE", "MODEL.BACKBONE.CONFIG"
PROPOSALS, ROI = "model.proposal_generator", "model.roi_heads"
MATCHER = {"IOU_THRESHOLDS": "thresholds", "IOU_LABELS": "labels"}


def _anchors(owner: str) -> tuple[Rule, ...]:
    def ratios(values: list[Any]) -> Any:
        return values[0] if len(values) == 1 else values  # a list of one entry is for all levels

    generator = f"{owner}.anchor_generator"
    return (
        *_section(ANCHORS, generator, "SIZES OFFSET"),
        Rule(f"{ANCHORS}.ASPECT_RATIOS", f"{generator}.aspect_ratios", ratios),
    )


def _pooler(head: str, pooler: str) -> tuple[Rule, ...]:
    new = f"{ROI}.{pooler}"
    return (
        *_section(head, new, "POOLER_TYPE", POOLER_RESOLUTION="output_size"),
        Rule(f"{head}.POOLER_SAMPLING_RATIO", f"{new}.sampling_ratio"),
    )


def _predictor_input(convs: int, conv_dim: int, fcs: int, resolution: int, channels: int) -> Any:
    """Input of the box predictor if the box head has no fully connected layer: a feature map."""
    if fcs:
        return LEAVE
    shape = {"channels": conv_dim if convs else channels, "height": resolution, "width": resolution}
    return {"_target_": "detectron2.layers.ShapeSpec", **shape}


def _box_head(head: str, predictor: str) -> tuple[Rule, ...]:
    """Rules of the box head, or of the first one of a cascade, which the later stages repeat."""
    sizes = [f"{BOX}.{key}" for key in ("NUM_CONV", "CONV_DIM", "NUM_FC", "POOLER_RESOLUTION")]
    weight = f"{predictor}.loss_weight"
    return (
        Rule(f"{BOX}.NUM_CONV {BOX}.CONV_DIM", f"{head}.conv_dims", _repeat),
        Rule(f"{BOX}.NUM_FC {BOX}.FC_DIM", f"{head}.fc_dims", _repeat),
        Rule(f"{BOX}.NORM", f"{head}.conv_norm"),
        Rule(" ".join([*sizes, f"{FPN}.OUT_CHANNELS"]), f"{predictor}.input_shape", _predictor_input),
        *_section(
            HEADS, predictor, SCORE_THRESH_TEST="test_score_thresh", NMS_THRESH_TEST="test_nms_thresh"
        ),
        *_section(BOX, predictor, "SMOOTH_L1_BETA"),
        *_section(BOX, predictor, "BBOX_REG_LOSS_TYPE USE_SIGMOID_CE", optional=True)[::-1],
        Rule(f"{BOX}.BBOX_REG_LOSS_WEIGHT", weight, lambda value: {"loss_box_reg": value}, optional=True),
    )
