# Large-scale jitter of ViTDet: flipped first, and padded by the detector alone, with the mean
from .lsj import augmentation

augmentation.insert(0, augmentation.pop())
augmentation[2].pad = False
