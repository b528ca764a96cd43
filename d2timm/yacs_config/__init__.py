"""Configs of detectron2_timm (https://github.com/iKrishneel/detectron2_timm) as LazyConfig files.

    old.yaml -> read -> parts, rules, backbone -> convert -> new.py

``read`` gives every value and its default, ``parts`` chooses our nodes, ``backbone`` and ``rules`` say what
each old key is in our tree, ``account`` keeps what has become of it, and ``convert`` writes the file.
"""

from __future__ import annotations

from .convert import Converted, convert, write

__all__ = ["Converted", "convert", "write"]
