"""Necks, ROI heads and detectors that detectron2 lacks, and values that follow from the levels of a neck."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
