from .weights.convert import convert_weights as convert_weights
from .yacs.convert import convert_config as convert_config
