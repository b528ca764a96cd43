# Your own folder in the layout of DOTA, whose boxes are oriented: data.root
from .auto import data, dataloader

data.name = "dota"
