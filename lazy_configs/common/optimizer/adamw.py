from detectron2.config import LazyCall as L

from d2timm.engine import create_optimizer, param_groups

optimizer = L(create_optimizer)(
    params=L(param_groups)(  # and the model, when there is one
        weight_decay="${..weight_decay}",
        lr="${..lr}",
        layer_decay=1.0,  # below 1: the learning rate decays from the heads down to the stem
        num_layers=None,  # that differ in it; all layers that timm tells apart
        decay_biases=False,  # True: weight decay for all but norms and what the model exempts
    ),
    opt="adamw",  # any of timm.optim.list_optimizers()
    lr="${data.settings.${data.name}.lr}",
    weight_decay=0.05,
    clip_norm=1.0,
    betas=None,  # the optimizer's own: 0.9 and 0.999 of AdamW
)
