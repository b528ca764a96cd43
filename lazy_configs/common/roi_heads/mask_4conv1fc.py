# The heads of ViTDet and of detectron2's new baselines: four convolutions and one layer for boxes, and norms
from .mask import roi_heads

roi_heads.box_head.conv_dims = [256, 256, 256, 256]
roi_heads.box_head.fc_dims = [1024]
# As in ViTDet; naiveSyncBN_N is that of the new baselines, for large batches on several GPUs
roi_heads.box_head.conv_norm = "LN"
roi_heads.mask_head.conv_norm = "LN"
