"""Weights, gradients and optimizer states are shared out over the processes: ``--trainer.strategy fsdp2``.

Outside a forward pass every parameter is a `DTensor` of which this process holds a part. What is written to disk is
whole, one file as from one process; what is read from there is shared out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from internimage.model.backbone import Block
from internimage.model.heads import ClipHead, ConvHead
from internimage.model.layers import Downsample

FSDP2 = "fsdp2"
_TIMEOUT = timedelta(minutes=10)
# Gathered one at a time; the rest of a network is one more part, which is there during the whole forward pass.
_PARTS = (Block, Downsample, ClipHead, ConvHead)
_PRECISIONS = ("32-true", "bf16-mixed")


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2: each basic block, downsampling layer and classification head is a part, what is left of the network too.

    In ``bf16-mixed`` autocast rounds as with DDP: parts are gathered, gradients summed and steps taken in float32.

    Args:
        timeout: how long processes wait for one another.
        process_group_backend: by default NCCL on GPUs and gloo on CPUs.
    """

    def __init__(self, timeout: timedelta | None = _TIMEOUT, process_group_backend: str | None = None) -> None:
        super().__init__(
            save_distributed_checkpoint=False, process_group_backend=process_group_backend, timeout=timeout
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """A task's own rules for a changed optimizer hold first."""
        return True

    def setup_environment(self) -> None:
        """All processes share the data, none of them a layer."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Share the network out; the optimizer then sees the parts alone."""
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        if self._layer_sync:
            self.model = self._layer_sync.apply(self.model)
        self.shard(cast(Any, self.lightning_module).network)
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def shard(self, network: nn.Module) -> None:
        """Share out a network that every process holds whole; all begin with that of the first."""
        for tensor in chain(network.parameters(), network.buffers()):
            own = tensor.detach().to(self.root_device)
            distributed.broadcast(own, 0)
            tensor.data.copy_(own)
        mesh = self.device_mesh["data_parallel"]
        for module in [*(each for each in network.modules() if isinstance(each, _PARTS)), network]:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        # Detectors and segmenters learn by it.
        if hasattr(network, "losses"):
            register_fsdp_forward_method(network, "losses")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Running statistics are those of the first process, as with DDP."""
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():
            distributed.broadcast(buffer, 0)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """In parts; `save_checkpoint` gathers."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """In parts; `save_checkpoint` gathers."""
        return getattr(optimizer, "_optimizer", optimizer).state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """One whole file, by the first process; all others take part in gathering it."""
        whole = _gathered(checkpoint, keep=self.is_global_zero)
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(whole, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """A whole file, whose weights are shared out; those of another network stay as they are."""
        assert self.lightning_module is not None
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)
        own = self.lightning_module.state_dict()
        # The second one holds the raw weights where the first holds their moving average.
        for key in {"state_dict", "current_model_state"} & checkpoint.keys():
            checkpoint[key] = {name: _like(own.get(name), value) for name, value in checkpoint[key].items()}
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """After `load_checkpoint` and the task's own look at it."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Moments are shared out as their parameters are."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            state = {
                number: {key: _like(parameter, value) for key, value in saved["state"][number].items()}
                for number, parameter in zip(numbers, parameters, strict=False)
                if number in saved["state"]
            }
            optimizer.load_state_dict({**saved, "state": state})


def check_strategy(trainer: Trainer) -> None:
    """Raise ``ValueError`` where the trainer's settings don't go together with how its processes share their work."""
    strategy, precision = trainer.strategy, trainer.precision
    if isinstance(strategy, ShardedStrategy) and precision not in _PRECISIONS:
        raise ValueError(
            f"trainer.strategy {FSDP2} takes trainer.precision {' or '.join(_PRECISIONS)}, got {precision}; "
            "change that, or take trainer.strategy ddp"
        )
    if isinstance(strategy, DeepSpeedStrategy):
        callbacks: list[Any] = cast(Any, trainer).callbacks
        for setting, is_set in (
            ("--ema", any(isinstance(each, WeightAveraging) for each in callbacks)),
            ("--skip_bad_steps", any(getattr(each, "skip", False) for each in callbacks)),
        ):
            if is_set:
                raise ValueError(
                    f"{setting} needs weights and gradients that DeepSpeed keeps to itself; leave it out (ema: null in "
                    f"a recipe), or take trainer.strategy {FSDP2}"
                )


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextmanager
def unsharded(module: LightningModule) -> Iterator[None]:
    """While it lasts, every process holds the network whole, so that one alone can use it; all must enter."""
    parts = [each for each in module.modules() if isinstance(each, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.set_reshard_after_forward(True, recurse=False)
        part.reshard()


def reshard(module: LightningModule) -> None:
    """Let every process hold its parts alone, also where an error has cut a forward pass short."""
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.reshard()


def _gathered(value: Any, *, keep: bool) -> Any:
    """The same value with whole tensors on the CPU in place of parts; None for them where they are not kept."""
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, dict):
        return type(value)((key, _gathered(each, keep=keep)) for key, each in value.items())
    if isinstance(value, list):
        return [_gathered(each, keep=keep) for each in value]
    return value


def _like(own: Any, value: Any) -> Any:
    """This process's part of a whole tensor, where its own is one of the same shape."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or own.shape != value.shape:
        return value
    # Every process has read the file: nothing is sent.
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


if FSDP2 not in StrategyRegistry:
    StrategyRegistry.register(FSDP2, ShardedStrategy, description="weights and optimizer states shared out")
