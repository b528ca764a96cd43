from .attention import draw_attention as draw_attention
from .feature_maps import draw_feature_maps as draw_feature_maps
from .visualizer import DetectionVisualizer as DetectionVisualizer
from .visualizer import draw as draw
