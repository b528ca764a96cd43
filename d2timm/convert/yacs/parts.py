"""Which of our recipes and nodes an old config is a change of."""

from __future__ import annotations

from dataclasses import dataclass

from timm.optim import list_optimizers

from ...data.catalog import CUSTOM
from ...data.paths import COCO
from ...errors import ConfigError
from ...utils.checks import suggest
from .account import Account
from .read import Old

__all__ = ["CLASSES", "Parts", "choose_parts"]

#: Keys that name a class -> the one that our nodes have
CLASSES = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "KRCNNConvDeconvUpsampleHead",
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
}
#: data.name -> names that detectron2 gives its training and validation sets
SETS = {
    COCO: (["coco_2017_train"], ["coco_2017_val"]),
    "coco_2017_keypoints": (["keypoints_coco_2017_train"], ["keypoints_coco_2017_val"]),
    "coco_2017_panoptic": (["coco_2017_train_panoptic_separated"], ["coco_2017_val_panoptic_separated"]),
    "lvis_v1": (["lvis_v1_train"], ["lvis_v1_val"]),
    "cityscapes": (["cityscapes_fine_instance_seg_train"], ["cityscapes_fine_instance_seg_val"]),
    "pascal_voc": (["voc_2007_trainval", "voc_2012_trainval"], ["voc_2007_test"]),
}
#: Detectors without choices of their own
RECIPES = {
    "RetinaNet": "retinanet_timm.py",
    "PanopticFPN": "panoptic_fpn_timm.py",
    "SemanticSegmentor": "semantic_fpn_timm.py",
}
SCHEDULERS = {
    "WarmupMultiStepLR": "multistep",
    "WarmupStepWithFixedGammaLR": "multistep",
    "WarmupCosineLR": "cosine",
}


@dataclass(frozen=True)
class Parts:
    """What the new file begins with.

    Attributes:
        recipe: a file of ``lazy_configs``.
        neck: option that takes the place of the recipe's neck; None: none does.
        roi_heads: option that takes the place of the recipe's; None: none does.
        optimizer: option.
        lr_multiplier: option.
        data: ``data.name``.
        known_data: a published set for such a detector, ``data`` itself if it is one.
    """

    recipe: str
    neck: str | None
    roi_heads: str | None
    optimizer: str
    lr_multiplier: str
    data: str
    known_data: str

    @property
    def finest(self) -> int:
        """The stride from which on the recipe's neck takes outputs of the backbone."""
        return 8 if self.recipe == RECIPES["RetinaNet"] else 1


def choose_parts(account: Account) -> Parts:
    """Choose what an old config is a change of, and account for the keys that say so.

    Raises:
        ConfigError: a detector or an optimizer that we do not have.
    """
    old = account.old
    recipe, roi_heads = _detector(account)
    pyramid = old["MODEL.BACKBONE.NAME"].endswith("_fpn_backbone")
    neck = None if pyramid or recipe in RECIPES.values() else "none"
    for key, ours in CLASSES.items():
        if old[key] in (ours, ""):
            account.convert(key)
        else:
            account.lost[key] = f"{ours} stands in"
    usual = _usual_set(account.old)
    data = _data(account, usual)
    known = data if data in SETS else usual
    return Parts(recipe, neck, roi_heads, _optimizer(account), _scheduler(account), data, known)


def _detector(account: Account) -> tuple[str, str | None]:
    """A recipe, and the option of ROI heads that it is to have instead of its own."""
    old = account.old
    arch, heads = old["MODEL.META_ARCHITECTURE"], old["MODEL.ROI_HEADS.NAME"]
    account.convert("MODEL.META_ARCHITECTURE")
    if arch in RECIPES:
        return RECIPES[arch], None
    if arch != "GeneralizedRCNN":
        known = ", ".join(["GeneralizedRCNN", *RECIPES])
        raise ConfigError(f"MODEL.META_ARCHITECTURE={arch}: there are {known}")
    masks, cascade = old["MODEL.MASK_ON"], heads == "CascadeROIHeads"
    account.convert("MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.ROI_HEADS.NAME")
    if old["MODEL.KEYPOINT_ON"]:
        if not masks and not cascade:
            return "keypoint_rcnn_timm.py", None
        account.lost["MODEL.KEYPOINT_ON"] = "there are keypoints without masks and cascade only"
    if not cascade and heads != "StandardROIHeads":
        account.lost["MODEL.ROI_HEADS.NAME"] = "StandardROIHeads stand in"
        if heads == "Res5ROIHeads":  # whose box head is a stage of detectron2's ResNet
            for key in old.values:
                if key.startswith(("MODEL.ROI_BOX_HEAD.NUM_", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION")):
                    account.needless[key] = "Res5ROIHeads have another head"
    if cascade:
        return ("cascade_mask_rcnn_timm.py", None) if masks else ("faster_rcnn_timm.py", "cascade_box")
    return "mask_rcnn_timm.py" if masks else "faster_rcnn_timm.py", None


def _optimizer(account: Account) -> str:
    name, known = account.old["SOLVER.OPTIMIZER"].lower(), list(map(str, list_optimizers()))
    if name not in known:
        raise ConfigError(f"SOLVER.OPTIMIZER={name} is not an optimizer of timm: {suggest(name, known)}")
    return "sgd" if name == "sgd" else "adamw"


def _scheduler(account: Account) -> str:
    name = account.old["SOLVER.LR_SCHEDULER_NAME"]
    if name not in SCHEDULERS:
        account.lost["SOLVER.LR_SCHEDULER_NAME"] = "steps stand in"
    account.convert("SOLVER.LR_SCHEDULER_NAME")
    return SCHEDULERS.get(name, "multistep")


def _usual_set(old: Old) -> str:
    """The published set that such a detector is trained on."""
    if old["MODEL.META_ARCHITECTURE"] in ("PanopticFPN", "SemanticSegmentor"):
        return "coco_2017_panoptic"
    return "coco_2017_keypoints" if old["MODEL.KEYPOINT_ON"] else COCO


def _data(account: Account, usual: str) -> str:
    train, test = (account.old[f"DATASETS.{split}"] for split in ("TRAIN", "TEST"))
    name = next((name for name, (known, _) in SETS.items() if sorted(known) == sorted(train)), None)
    if not train:
        name = usual
        account.note("DATASETS.TRAIN", f"it names no set: {usual} stands in")
    if name is None:
        account.lost["DATASETS.TRAIN"] = (
            "give data.train_json=, data.train_images=, data.val_json= and data.val_images="
        )
        account.lost["DATASETS.TEST"] = "as DATASETS.TRAIN"
        return CUSTOM
    account.convert("DATASETS.TRAIN", "DATASETS.TEST")
    if test and sorted(test) != sorted(SETS[name][1]):
        account.lost["DATASETS.TEST"] = f"data.name={name} is evaluated on {', '.join(SETS[name][1])}"
    return name
