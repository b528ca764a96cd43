# SGD with momentum as detectron2's own recipes have it; their learning rate is 0.02 for steps of 16 images
from .adamw import optimizer

optimizer.opt = "sgd"
optimizer.weight_decay = 1e-4
optimizer.momentum = 0.9
optimizer.nesterov = False
