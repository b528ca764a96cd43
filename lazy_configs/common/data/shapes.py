# The embedded dataset of drawn shapes, generated on first use
from .auto import data, dataloader

data.name = "shapes"
