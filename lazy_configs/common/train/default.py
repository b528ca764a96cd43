import torch

_gpu = torch.cuda.is_available()

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter="${data.settings.${data.name}.max_iter}",
    epochs=None,  # the length in epochs instead of max_iter
    accumulate=1,  # batches whose gradients make a step; an iteration is a step
    reference_batch_size=None,  # images a step that optimizer.lr is meant for: scaled to this run's
    amp=dict(enabled=_gpu, precision="fp16"),  # automatic mixed precision; bf16 on newer GPUs and the CPU
    ema=dict(
        enabled=False,  # evaluate an exponential moving average of the weights
        decay=0.999,  # a step
        warmup=True,  # the decay rises to that from 0
    ),
    ddp=dict(
        broadcast_buffers=False,
        find_unused_parameters=False,
        fp16_compression=False,
    ),
    checkpointer=dict(period="${data.settings.${data.name}.checkpoint_period}", max_to_keep=3),
    eval_period="${data.settings.${data.name}.eval_period}",  # 0: at the end only
    eval_epochs=None,  # epochs instead of eval_period
    early_stop=0,  # end after so many evaluations in a row without a better score; 0: never
    log_period=20,
    tta=dict(
        enabled=False,  # evaluate also with test-time augmentation at the end
        scales=[0.75, 1.0, 1.25],  # of the size that images are evaluated at
        flip=True,
    ),
    writers=[],  # services that follow the run: wandb, mlflow
    metric=None,  # that runs are compared by, as task/metric; None: the main one of what the detector finds
    pause_at=None,  # end after this iteration of the schedule; --resume goes on
    stop_below_median=0,  # end if below the median of at least so many finished runs beside this one
    threads=None,  # of each process; None: all cores of the machine, divided among its processes
    device="cuda" if _gpu else "cpu",
    seed=0,
    cudnn_benchmark=False,
)
