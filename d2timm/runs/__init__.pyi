from .checkpoint import AtomicCheckpointer as AtomicCheckpointer
from .record import Record as Record
from .status import read_runs as read_runs
