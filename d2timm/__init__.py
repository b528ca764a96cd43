"""Every timm model as a detectron2 backbone."""
