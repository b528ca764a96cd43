"""Published detection checkpoints to weights for d2timm's detectors."""
