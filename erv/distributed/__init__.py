"""Training in several processes: strategies, what each holds of the weights, collectives, ranks and signals."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DDP": "erv.distributed.ddp",
        "DeepSpeed": "erv.distributed.deepspeed",
        "FSDP": "erv.distributed.fsdp",
    },
)
