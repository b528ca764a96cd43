from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import LinearParamScheduler

from .cosine import lr_multiplier

lr_multiplier.scheduler = L(LinearParamScheduler)(start_value=1.0, end_value=0.0)  # end_value=1: constant
