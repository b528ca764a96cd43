# SGD with momentum as in detectron2's recipes, whose learning rate is 0.02 for 16 images per step
from .adamw import optimizer

optimizer.opt = "sgd"
optimizer.weight_decay = 1e-4
optimizer.momentum = 0.9
optimizer.nesterov = False
