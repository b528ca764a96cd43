# For detectors without ROI heads: the tree has no key roi_heads
roi_heads = None
