# Values that nodes of several groups derive from the backbone and the neck
from detectron2.config import LazyCall as L

from d2timm.backbone import image_format, pixel_mean, pixel_std
from d2timm.modeling.levels import taken_strides


def strides(**finest):
    """Strides >= ``finest`` of the neck's levels, without the levels of its top block."""
    return L(taken_strides)(
        features="${model.backbone.in_features}",
        remaps="${model.backbone.bottom_up.remaps}",
        strides="${model.backbone.bottom_up.strides}",
        scale_factors="${oc.select:model.backbone.scale_factors,null}",
        **finest,
    )


def levels(**finest):
    """Arguments that stand for all levels of the neck."""
    return dict(strides=strides(**finest), top_block="${oc.select:model.backbone.top_block,null}")


def images():
    """Arguments for reading and normalising images as the timm model expects them."""
    timm_model = dict(
        model_name="${model.backbone.bottom_up.model_name}",
        in_chans="${model.backbone.bottom_up.in_chans}",
    )
    return dict(
        pixel_mean=L(pixel_mean)(**timm_model),
        pixel_std=L(pixel_std)(**timm_model),
        input_format=L(image_format)(in_chans="${model.backbone.bottom_up.in_chans}"),
    )
