from .build import build_model as build_model
from .lazy import get_config as get_config
from .lazy import load as load
from .lazy import save as save
from .overrides import apply_overrides as apply_overrides
