from detectron2.config import LazyCall as L

from d2timm.backbone import TimmBackbone

backbone = L(TimmBackbone)(
    model_name="resnet50",
    out_indices=None,  # the features whose strides fit best
    remaps=["res2", "res3", "res4", "res5"],
    strides=[4, 8, 16, 32],
    out_features="${oc.select:..in_features,null}",  # those that the neck takes
    fixed_input_size=None,  # the image's own size wherever the model can
    pretrained="${data.settings.${data.name}.pretrained}",
    checkpoint_path=None,
    in_chans=3,
    drop_path_rate=None,  # the model's own
    output_stride=None,
    grad_checkpointing=False,
    freeze_at=0,  # stages; 1 is the stem
    freeze=[],  # patterns of parameter names
    norm="keep",  # or FrozenBN, SyncBN
    level_norm="resampled",  # layer norm before outputs that are doubled or halved; or all, none
    doubling_norm="LN",  # between two doublings; or BN, SyncBN
    timm_kwargs={},
)
