from detectron2.config import LazyCall as L

from d2timm.engine import create_optimizer, param_groups

optimizer = L(create_optimizer)(
    params=L(param_groups)(  # the trainer adds the argument model
        weight_decay="${..weight_decay}",
        lr="${..lr}",
        layer_decay=1.0,  # < 1: the learning rate decreases from the heads to the stem
        num_layers=None,  # layers with different rates; None: all layers that timm distinguishes
        backbone_factor=1.0,  # of the learning rate of the backbone
        decay_biases=False,  # True: weight decay for all except norms and parameters that the model exempts
    ),
    opt="adamw",  # one of timm.optim.list_optimizers()
    lr="${data.settings.${data.name}.lr}",
    weight_decay=0.05,
    clip_norm=1.0,
    fused="${oc.select:train.fused,null}",
    betas=None,  # None: the default of the optimizer, (0.9, 0.999) for AdamW
)
