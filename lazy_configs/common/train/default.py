import torch

_gpu = torch.cuda.is_available()

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter="${data.settings.${data.name}.max_iter}",
    amp=dict(enabled=_gpu),  # automatic mixed precision
    ddp=dict(
        broadcast_buffers=False,
        find_unused_parameters=False,
        fp16_compression=False,
    ),
    checkpointer=dict(period="${data.settings.${data.name}.checkpoint_period}", max_to_keep=3),
    eval_period="${data.settings.${data.name}.eval_period}",  # 0: at the end only
    log_period=20,
    metric="bbox/AP",  # that runs are compared by
    pause_at=None,  # end after this iteration of the schedule; --resume goes on
    stop_below_median=0,  # end if below the median of at least so many finished runs beside this one
    threads=None,  # of each process; None: all cores of the machine, divided among its processes
    device="cuda" if _gpu else "cpu",
    seed=0,
    cudnn_benchmark=False,
)
