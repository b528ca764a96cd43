from .choose import choose as choose
