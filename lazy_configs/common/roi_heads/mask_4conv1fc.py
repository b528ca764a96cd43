# The heads of ViTDet and of detectron2's new baselines: a box head of four convolutions and one linear layer,
# and norms in both heads
from .mask import roi_heads

roi_heads.box_head.conv_dims = [256, 256, 256, 256]
roi_heads.box_head.fc_dims = [1024]
# The norm of ViTDet; the new baselines have naiveSyncBN_N, for large batches on several GPUs
roi_heads.box_head.conv_norm = "LN"
roi_heads.mask_head.conv_norm = "LN"
