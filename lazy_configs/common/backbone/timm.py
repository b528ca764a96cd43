from detectron2.config import LazyCall as L

from d2timm.backbone import TimmBackbone

backbone = L(TimmBackbone)(
    model_name="resnet50",
    out_indices=None,  # the features whose strides fit best
    remaps=["res2", "res3", "res4", "res5"],
    strides=[4, 8, 16, 32],
    fixed_input_size=None,  # the image's own size wherever the model can
    pretrained="${data.settings.${data.name}.pretrained}",
    checkpoint_path=None,
    freeze_at=0,
    timm_kwargs={},
)
