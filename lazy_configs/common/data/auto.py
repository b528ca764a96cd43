import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from d2timm.data import (
    Mapper,
    build_test_loader,
    build_train_loader,
    dataset_dicts,
    evaluators,
    keypoint_names,
    mask_format,
)
from d2timm.data.formats import folder_formats
from d2timm.data.paths import default_dataset
from d2timm.modeling import detector_tasks, takes_partial_masks

from ..augmentation.flip import augmentation as _augmentation

_settings = "${data.settings.${data.name}"  # of the selected dataset; append a key and the closing brackets

# Settings of the datasets: usual image sizes and warm-up, schedules that fit the size of the dataset
_coco = dict(
    pretrained=True,
    train_short_edges=[640, 672, 704, 736, 768, 800],
    test_short_edge=800,
    max_size=1333,
    crop_size=1024,  # side of large-scale jitter
    batch_size=16,
    rois_per_image=512,
    detections_per_image=100,
    max_iter=90000,  # 12 epochs, "1x"
    lr=1e-4,
    warmup=0.01,
    eval_period=5000,
    checkpoint_period=5000,
    workers="auto",  # processes that read images, by the cores of this machine; or their number
    repeat_threshold=0.0,  # classes in a smaller share of the images are sampled more often
)
_own = {
    **_coco,
    "crop_size": 800,
    "batch_size": 4,
    "rois_per_image": 256,
    "max_iter": 5000,
    "warmup": 0.05,
    "eval_period": 500,
    "checkpoint_period": 500,
}

data = dict(
    # auto: the files below if they are set, else COCO 2017 if it is found, else the embedded shapes
    name="auto",
    # files in COCO format and the folders of their images, or lists of several
    train_json=None,
    train_images=None,
    val_json=None,
    val_images=None,
    root=None,  # the folder of a dataset in any format; name=auto recognizes it
    val_share=None,  # 0 to 1: hold out this share of the training images for validation
    val_seed=0,  # of the images that val_share holds out
    on_error="skip",  # samples that cannot be used are left out and counted; stop: they are an error
    images_outside=False,  # whether annotations may name images outside of these folders
    max_pixels=2**30,  # larger images are not read
    draft_jpegs=False,  # read JPEGs that are scaled down by more than 2 at a part of their size, in less time
    labels=None,  # class names that a run has recorded, so that opening it needs no dataset
    # the tasks of the detector, which determine the annotations that it needs and its evaluators
    tasks=L(detector_tasks)(
        model="${model._target_}",
        roi_heads="${oc.select:model.roi_heads._target_,null}",
        mask_in_features="${oc.select:model.roi_heads.mask_in_features,null}",
        keypoint_in_features="${oc.select:model.roi_heads.keypoint_in_features,null}",
    ),
    settings=dict(
        shapes=dict(
            pretrained=False,
            train_short_edges=[160],
            test_short_edge=160,
            max_size=160,
            crop_size=160,
            batch_size=2,
            rois_per_image=32,
            detections_per_image=20,
            max_iter=150,
            lr=1e-3,
            warmup=0.1,
            eval_period=0,  # only at the end
            checkpoint_period=50,
            workers=0,  # small images are read faster than worker processes transfer them
            repeat_threshold=0.0,
        ),
        coco_2017=_coco,
        coco_2017_keypoints=_coco,
        coco_2017_panoptic=_coco,
        lvis_v1={
            **_coco,
            "detections_per_image": 300,
            "max_iter": 75000,  # 12 epochs
            "repeat_threshold": 0.001,
        },
        cityscapes={
            **_coco,
            "train_short_edges": [800, 832, 864, 896, 928, 960, 992, 1024],
            "test_short_edge": 1024,
            "max_size": 2048,
            "batch_size": 8,
            "max_iter": 24000,  # 64 epochs
            "eval_period": 2000,
            "checkpoint_period": 2000,
        },
        pascal_voc={
            **_coco,
            "train_short_edges": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
            "max_iter": 18000,  # 17 epochs
            "eval_period": 2000,
            "checkpoint_period": 2000,
        },
        custom=_own,
        **dict.fromkeys(folder_formats(), _own),
        auto="${." + default_dataset() + "}",
    ),
)

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(dataset_dicts)(data="${data}", split="train"),
        mapper=L(Mapper)(
            is_train=True,
            tasks="${data.tasks}",
            augmentations=_augmentation,
            image_format="${model.input_format}",
            keypoint_names=L(keypoint_names)(data="${data}"),
            instance_mask_format=L(mask_format)(
                points="${oc.select:model.roi_heads.mask_head.train_num_points,null}"
            ),
            tight_boxes=True,  # fit boxes to the masks of objects that a crop has cut
            # keep objects without a mask for the box head, if the mask head leaves them out
            partial_masks=L(takes_partial_masks)(roi_heads="${oc.select:model.roi_heads._target_,null}"),
            max_pixels="${data.max_pixels}",
            draft_jpegs="${data.draft_jpegs}",
        ),
        total_batch_size=_settings + ".batch_size}",
        num_workers=_settings + ".workers}",
        repeat_threshold=_settings + ".repeat_threshold}",
        on_error="${data.on_error}",
        seed="${oc.select:train.seed,null}",
    ),
    test=L(build_test_loader)(
        dataset=L(dataset_dicts)(data="${data}", split="val"),
        mapper=L(Mapper)(
            is_train=False,
            tasks="${data.tasks}",
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=_settings + ".test_short_edge}",
                    max_size=_settings + ".max_size}",
                ),
            ],
            image_format="${model.input_format}",
            max_pixels="${data.max_pixels}",
            draft_jpegs="${data.draft_jpegs}",
        ),
        batch_size=1,  # images that are detected in together
        num_workers=_settings + ".workers}",
        on_error="${data.on_error}",
    ),
    evaluator=L(evaluators)(data="${data}", split="val", output_dir="${train.output_dir}/inference"),
)
