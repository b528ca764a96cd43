"""Convert yaml configs of detectron2_timm into LazyConfig files."""
