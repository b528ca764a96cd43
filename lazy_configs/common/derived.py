# What nodes of several groups have in common: all that follows from the backbone and the neck
from detectron2.config import LazyCall as L

from d2timm.backbone import image_format, pixel_mean, pixel_std
from d2timm.modeling.levels import taken_strides


def strides(**finest):
    """Strides of the neck's levels before those of its top block, from the stride ``finest`` on."""
    return L(taken_strides)(
        features="${model.backbone.in_features}",
        remaps="${model.backbone.bottom_up.remaps}",
        strides="${model.backbone.bottom_up.strides}",
        scale_factors="${oc.select:model.backbone.scale_factors,null}",
        **finest,
    )


def levels(**finest):
    """All levels of the neck."""
    return dict(strides=strides(**finest), top_block="${oc.select:model.backbone.top_block,null}")


def images():
    """How images are read and normalised."""
    of = dict(
        model_name="${model.backbone.bottom_up.model_name}",
        in_chans="${model.backbone.bottom_up.in_chans}",
    )
    return dict(
        pixel_mean=L(pixel_mean)(**of),
        pixel_std=L(pixel_std)(**of),
        input_format=L(image_format)(in_chans="${model.backbone.bottom_up.in_chans}"),
    )
