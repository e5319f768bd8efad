"""Training on several processes: DDP, FSDP, DeepSpeed, collectives and ranks."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DDP": "erv.distributed.ddp:Replicas",
        "DeepSpeed": "erv.distributed.deepspeed:Zero",
        "FSDP": "erv.distributed.fsdp:Shards",
    },
)
