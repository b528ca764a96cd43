# Resize the short side of an image to one of several lengths, and flip horizontally
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import ListConfig

augmentation = ListConfig(
    [
        L(T.ResizeShortestEdge)(
            short_edge_length="${data.settings.${data.name}.train_short_edges}",
            max_size="${data.settings.${data.name}.max_size}",
            sample_style="choice",
        ),
        L(T.RandomFlip)(horizontal=True),
    ],
    flags={"allow_objects": True},
)
