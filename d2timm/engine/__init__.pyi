from .optim import create_optimizer as create_optimizer
from .optim import param_groups as param_groups
from .run import start as start
from .schedules import one_cycle as one_cycle
from .training import train as train
from .validation import evaluate as evaluate
