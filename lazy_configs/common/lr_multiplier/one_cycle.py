from detectron2.config import LazyCall as L

from d2timm.engine import one_cycle

lr_multiplier = L(one_cycle)(
    rise=0.3,  # share of the schedule until the learning rate reaches optimizer.lr
    start=1 / 25,  # times optimizer.lr
    end=1 / 25e4,  # times optimizer.lr
)
