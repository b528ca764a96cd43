# Large-scale jitter as in ViTDet: flip first, and leave padding to the detector, which pads with the mean
from .lsj import augmentation

augmentation.insert(0, augmentation.pop())
augmentation[2].pad = False
