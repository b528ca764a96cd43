# For detectors that have none: nothing is put into the tree
roi_heads = None
