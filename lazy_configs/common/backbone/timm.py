from detectron2.config import LazyCall as L

from d2timm.backbone import TimmBackbone

backbone = L(TimmBackbone)(
    model_name="resnet50",
    out_indices=None,  # None: the features whose strides fit best
    remaps=["res2", "res3", "res4", "res5"],
    strides=[4, 8, 16, 32],
    out_features="${oc.select:..in_features,null}",  # the outputs that the neck takes
    fixed_input_size=None,  # None: the size of the image, if the model accepts any size
    pretrained="${data.settings.${data.name}.pretrained}",
    checkpoint_path=None,
    in_chans=3,
    drop_path_rate=None,  # None: the default of the model
    output_stride=None,
    grad_checkpointing=False,
    freeze_at=0,  # number of frozen stages; the stem is the first
    freeze=[],  # patterns of names of frozen parameters
    norm="keep",  # or FrozenBN, SyncBN, in place of the batch norms of the model
    level_norm="resampled",  # outputs that start with a layer norm: resampled, all or none
    doubling_norm="LN",  # norm between two doublings: LN, BN or SyncBN
    timm_kwargs={},
)
