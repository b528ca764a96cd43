"""Choose what the new config is based on: the timm model, the recipe and the options of its parts."""

from __future__ import annotations

from typing import NamedTuple

from detectron2.modeling import BACKBONE_REGISTRY
from timm.optim import list_optimizers

from ...backbone.probing import pretrained_cfg
from ...data.own import CUSTOM
from ...data.paths import COCO
from ...errors import ConfigError
from ...utils.checks import suggest
from .account import Account

__all__ = ["CLASSES", "Parts", "choose_parts", "model_name"]

#: Keys that name a class -> the class of d2timm's nodes
CLASSES = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "KRCNNConvDeconvUpsampleHead",
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
}
#: data.name -> names of its training and validation sets in detectron2
DATASETS = {
    COCO: (["coco_2017_train"], ["coco_2017_val"]),
    "coco_2017_keypoints": (["keypoints_coco_2017_train"], ["keypoints_coco_2017_val"]),
    "coco_2017_panoptic": (["coco_2017_train_panoptic_separated"], ["coco_2017_val_panoptic_separated"]),
    "lvis_v1": (["lvis_v1_train"], ["lvis_v1_val"]),
    "cityscapes": (["cityscapes_fine_instance_seg_train"], ["cityscapes_fine_instance_seg_val"]),
    "pascal_voc": (["voc_2007_trainval", "voc_2012_trainval"], ["voc_2007_test"]),
}
#: Meta-architectures for which there is one recipe
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


class Parts(NamedTuple):
    """What the new config is based on.

    Attributes:
        recipe: a file in ``lazy_configs``.
        options: group -> option that replaces the recipe's.
        data: ``data.name``.
        known_data: ``data``, or a published dataset for such a detector where ``data`` is custom.
        finest: stride of the finest output of the backbone that the recipe's neck takes.
    """

    recipe: str
    options: dict[str, str]
    data: str
    known_data: str
    finest: int


def model_name(account: Account) -> str:
    """The current timm name of the model in ``MODEL.BACKBONE.NAME``.

    Raises:
        ConfigError: the value is not ``build_NAME_backbone`` or ``build_NAME_fpn_backbone`` with a timm NAME.
    """
    value = account.old["MODEL.BACKBONE.NAME"]
    account.convert("MODEL.BACKBONE.NAME")
    prefix = f"{account.old.name}: MODEL.BACKBONE.NAME={value}"
    if value in BACKBONE_REGISTRY:
        default = "" if "MODEL.BACKBONE.NAME" in account.old.given else "the default, "
        raise ConfigError(
            f"{prefix} is {default}a backbone of detectron2: name a timm model, such as "
            "--opts MODEL.BACKBONE.NAME build_resnet50_fpn_backbone"
        )
    name = value.removeprefix("build_").removesuffix("_backbone").removesuffix("_fpn")
    try:
        facts = pretrained_cfg(name)
    except ConfigError as error:
        raise ConfigError(f"{prefix}: {error}") from None
    now, tag = str(facts.get("architecture") or name), facts.get("tag")
    if now != name.partition(".")[0]:
        name = f"{now}.{tag}" if tag else now
        account.note("MODEL.BACKBONE.NAME", f"timm has renamed the model to {name}")
    return str(name)


def choose_parts(account: Account) -> Parts:
    """Choose what the new config is based on, and record the keys that determine it.

    Raises:
        ConfigError: d2timm does not have the detector or the optimizer.
    """
    old = account.old
    recipe, options = _choose_detector(account)
    if not old["MODEL.BACKBONE.NAME"].endswith("_fpn_backbone") and recipe not in RECIPES.values():
        options["neck"] = "none"
    if "SOLVER.OPTIMIZER" in account.keys:
        options |= _choose_solver(account)
    for key, ours in CLASSES.items():
        if old[key] in (ours, ""):
            account.convert(key)
        else:
            account.not_converted[key] = f"{ours} replaces it"
    usual = "coco_2017_keypoints" if old["MODEL.KEYPOINT_ON"] else COCO
    if old["MODEL.META_ARCHITECTURE"] in ("PanopticFPN", "SemanticSegmentor"):
        usual = "coco_2017_panoptic"
    data = _choose_dataset(account, usual)
    finest = 8 if old["MODEL.META_ARCHITECTURE"] == "RetinaNet" else 1
    return Parts(recipe, options, data, data if data in DATASETS else usual, finest)


def _choose_detector(account: Account) -> tuple[str, dict[str, str]]:
    """The recipe, and the option of its ROI heads if it is not the recipe's own."""
    old = account.old
    arch, heads = old["MODEL.META_ARCHITECTURE"], old["MODEL.ROI_HEADS.NAME"]
    account.convert("MODEL.META_ARCHITECTURE")
    if arch in RECIPES:
        return RECIPES[arch], {}
    if arch != "GeneralizedRCNN":
        known = ", ".join(["GeneralizedRCNN", *RECIPES])
        raise ConfigError(f"MODEL.META_ARCHITECTURE={arch} cannot be converted; d2timm has {known}")
    masks, cascade = old["MODEL.MASK_ON"], heads == "CascadeROIHeads"
    account.convert("MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.ROI_HEADS.NAME")
    if old["MODEL.KEYPOINT_ON"]:
        if not masks and not cascade:
            return "keypoint_rcnn_timm.py", {}
        account.not_converted["MODEL.KEYPOINT_ON"] = "d2timm has keypoints only without masks and cascade"
    if not cascade and heads != "StandardROIHeads":
        account.not_converted["MODEL.ROI_HEADS.NAME"] = "StandardROIHeads replaces it"
        if heads == "Res5ROIHeads":  # its box head is a stage of detectron2's ResNet
            for key in old.values:
                if key.startswith(("MODEL.ROI_BOX_HEAD.NUM_", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION")):
                    account.not_needed[key] = "Res5ROIHeads have another box head"
    if masks:
        return "cascade_mask_rcnn_timm.py" if cascade else "mask_rcnn_timm.py", {}
    return "faster_rcnn_timm.py", {"roi_heads": "cascade_box"} if cascade else {}


def _choose_solver(account: Account) -> dict[str, str]:
    """The options of the optimizer and of the schedule."""
    name, known = account.old["SOLVER.OPTIMIZER"].lower(), list(map(str, list_optimizers()))
    if name not in known:
        raise ConfigError(f"SOLVER.OPTIMIZER={name} is not a timm optimizer: {suggest(name, known)}")
    scheduler = account.old["SOLVER.LR_SCHEDULER_NAME"]
    account.convert("SOLVER.LR_SCHEDULER_NAME")
    if scheduler not in SCHEDULERS:
        account.not_converted["SOLVER.LR_SCHEDULER_NAME"] = "WarmupMultiStepLR replaces it"
    return {
        "optimizer": "sgd" if name == "sgd" else "adamw",
        "lr_multiplier": SCHEDULERS.get(scheduler, "multistep"),
    }


def _choose_dataset(account: Account, usual: str) -> str:
    """``data.name``; ``usual`` if the config names no dataset."""
    train, test = (account.old[f"DATASETS.{split}"] for split in ("TRAIN", "TEST"))
    name = next((name for name, (known, _) in DATASETS.items() if sorted(known) == sorted(train)), None)
    if not train:
        name = usual
        account.note("DATASETS.TRAIN", f"it is empty: {usual} is used")
    if name is None:
        files = "give data.train_json=, data.train_images=, data.val_json= and data.val_images="
        account.not_converted |= dict.fromkeys(("DATASETS.TRAIN", "DATASETS.TEST"), files)
        return CUSTOM
    account.convert("DATASETS.TRAIN", "DATASETS.TEST")
    if test and sorted(test) != sorted(DATASETS[name][1]):
        account.not_converted["DATASETS.TEST"] = (
            f"data.name={name} is evaluated on {', '.join(DATASETS[name][1])}"
        )
    return name
