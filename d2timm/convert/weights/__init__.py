"""Convert published detection checkpoints into weights for d2timm's detectors."""
