import torch

_gpu = torch.cuda.is_available()

train = dict(
    output_dir="./output",
    init_checkpoint="",
    init_heads=None,  # a detector whose neck and heads this one starts from: weights, or the folder of a run
    fit_laterals=0,  # first iterations in which only what init_heads has not filled is trained
    max_iter="${data.settings.${data.name}.max_iter}",
    epochs=None,  # length in epochs, instead of max_iter
    budget_hours=None,  # length in hours of training on this machine, instead of max_iter
    recipe=None,  # auto: settings that fit the kind of backbone, see common/priors.py; or the name of one
    accumulate=1,  # batches per step of the optimizer, which counts as one iteration
    reference_batch_size=None,  # images per step for which optimizer.lr is meant, and from which it is scaled
    amp=dict(enabled=_gpu, precision="fp16"),  # automatic mixed precision; bf16 on recent GPUs and the CPU
    tune="auto",  # measure what is faster on this machine; off; or the folder of a run that has measured it
    channels_last=None,  # memory format NHWC of all maps; None: as tuned, else NCHW
    compile=None,  # compile backbone and neck by torch.compile; None: as tuned, else not
    fused=None,  # update all parameters in one kernel; None: where the optimizer can
    ema=dict(
        enabled=False,  # evaluate an exponential moving average of the weights
        decay=0.999,  # per step
        warmup=True,  # increase the decay from 0
    ),
    ddp=dict(
        broadcast_buffers=False,
        find_unused_parameters=False,
        fp16_compression=False,  # exchange gradients in fp16, half of the volume
        bf16_compression=False,  # or in bf16, which has the range of float32
    ),
    shard=False,  # divide weights and state of the optimizer among the processes: for models that do not fit
    checkpointer=dict(period="${data.settings.${data.name}.checkpoint_period}", max_to_keep=3),
    eval_period="${data.settings.${data.name}.eval_period}",  # 0: only at the end
    eval_epochs=None,  # period in epochs, instead of eval_period
    on_nan=dict(  # if a loss is not finite
        skip=0,  # leave out up to this many steps; then
        go_back=0,  # go back to the last checkpoint up to this many times, each time
        lr_factor=0.5,  # with a learning rate that is lower by this factor
    ),
    split_on_oom=False,  # divide a batch that does not fit into the memory of the GPU into two
    early_stop=0,  # stop after this many successive evaluations without a better score; 0: never
    log_period=20,
    tta=dict(
        enabled=False,  # at the end, evaluate with test-time augmentation as well
        scales=[0.75, 1.0, 1.25],  # times the image size of the evaluation
        flip=True,
    ),
    writers=[],  # tracking services: wandb, mlflow
    metric=None,  # task/metric by which runs are compared; None: the main metric of the detector's tasks
    pause_at=None,  # stop after this iteration, or this share, of the schedule; --resume continues
    cool_down=0.0,  # at a pause, train on with a falling rate for this share of iterations, and evaluate that
    stop_below_median=0,  # stop if below the median of at least this many finished runs in the parent folder
    threads=None,  # threads per process; None: the cores of the machine divided by its processes
    device="cuda" if _gpu else "cpu",
    seed=0,
    cudnn_benchmark=False,
)
