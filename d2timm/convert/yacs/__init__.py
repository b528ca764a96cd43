"""Configs of detectron2_timm to LazyConfig files."""
