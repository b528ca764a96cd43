from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01],
        milestones=[8, 11, 12],  # relative to the last one: twelfths of the schedule
    ),
    warmup_length="${data.settings.${data.name}.warmup}",  # share of the schedule
    warmup_method="linear",
    warmup_factor=0.001,
)
