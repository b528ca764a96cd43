from detectron2.config import LazyCall as L

from d2timm.engine import one_cycle

lr_multiplier = L(one_cycle)(
    rise=0.3,  # part of the schedule until optimizer.lr is reached
    start=1 / 25,  # of optimizer.lr
    end=1 / 25e4,
)
