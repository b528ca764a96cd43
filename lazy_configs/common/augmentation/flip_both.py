# Flip vertically as well, for images without an up direction, such as microscopy or aerial images
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .flip import augmentation

augmentation.append(L(T.RandomFlip)(horizontal=False, vertical=True))
