# The optimizer of published detectors with this kind of backbone, see ../priors.py
from .adamw import optimizer

optimizer.opt = "auto"
