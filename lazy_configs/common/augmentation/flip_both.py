# Flipped upside down as well, for pictures that have no top: of a microscope, from the air
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .flip import augmentation

augmentation.append(L(T.RandomFlip)(horizontal=False, vertical=True))
