"""``python -m d2timm``: the command ``d2timm``."""

import sys

from .cli import main

sys.exit(main())
