import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
)

from d2timm.data.catalog import dataset_dicts, dataset_name, is_given
from d2timm.data.places import found
from d2timm.evaluate import CocoEvaluator, coco_tasks

_settings = "${data.settings.${data.name}"  # the chosen set's, with a key and two brackets behind it
_masks = "${oc.select:model.roi_heads.mask_in_features,null}"

data = dict(
    # auto: the files below if they are given, else COCO 2017 if it is there, else the embedded shapes
    name="auto",
    # files in COCO format and the folders of their images
    train_json=None,
    train_images=None,
    val_json=None,
    val_images=None,
    # what goes with a set: image sides and warm-up are those of the field, schedules fit the size
    settings=dict(
        shapes=dict(
            pretrained=False,
            train_short_edges=[160],
            test_short_edge=160,
            max_size=160,
            batch_size=2,
            rois_per_image=32,
            detections_per_image=20,
            max_iter=150,
            lr=1e-3,
            warmup=0.1,
            eval_period=0,  # at the end only
            checkpoint_period=50,
            workers=0,  # images of 160 pixels are read faster than they are handed over
        ),
        coco_2017=dict(
            pretrained=True,
            train_short_edges=[640, 672, 704, 736, 768, 800],
            test_short_edge=800,
            max_size=1333,
            batch_size=16,
            rois_per_image=512,
            detections_per_image=100,
            max_iter=90000,  # 12 epochs, "1x"
            lr=1e-4,
            warmup=0.01,
            eval_period=5000,
            checkpoint_period=5000,
            workers=4,
        ),
        custom=dict(
            pretrained=True,
            train_short_edges=[640, 672, 704, 736, 768, 800],
            test_short_edge=800,
            max_size=1333,
            batch_size=4,
            rois_per_image=256,
            detections_per_image=100,
            max_iter=5000,
            lr=1e-4,
            warmup=0.05,
            eval_period=500,
            checkpoint_period=500,
            workers=2,
        ),
        auto="${." + found() + "}",
    ),
)

dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(dataset_dicts)(data="${data}", split="train"),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=_settings + ".train_short_edges}",
                    max_size=_settings + ".max_size}",
                    sample_style="choice",
                ),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="${model.input_format}",
            use_instance_mask=L(is_given)(value=_masks),
        ),
        total_batch_size=_settings + ".batch_size}",
        num_workers=_settings + ".workers}",
    ),
    test=L(build_detection_test_loader)(
        dataset=L(dataset_dicts)(data="${data}", split="val"),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=_settings + ".test_short_edge}",
                    max_size=_settings + ".max_size}",
                ),
            ],
            image_format="${model.input_format}",
        ),
        num_workers=_settings + ".workers}",
    ),
    evaluator=L(CocoEvaluator)(
        dataset_name=L(dataset_name)(data="${data}", split="val"),
        tasks=L(coco_tasks)(masks=_masks),
        output_dir="${train.output_dir}/inference",
    ),
)
