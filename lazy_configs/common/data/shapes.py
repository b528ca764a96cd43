# The embedded set of drawn shapes, made on first use
from .auto import data, dataloader

data.name = "shapes"
