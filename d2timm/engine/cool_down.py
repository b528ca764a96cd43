"""``train.cool_down``: the annealed weights of a run that pauses, by which it is compared with others."""

from __future__ import annotations

import logging

from detectron2.engine import HookBase

from .hooks import AverageWeights

__all__ = ["CoolDown"]

logger = logging.getLogger(__name__)


class CoolDown(HookBase):
    """Trains on after the last step before a pause, which is saved, while the learning rate falls to zero.

    The evaluation that follows sees these weights. A run that continues does so from the saved step, as if
    there had been no cool-down. With a constant rate before it, its weights are about as good as those of a
    complete schedule of that length (Hägele et al., https://arxiv.org/abs/2405.18392).

    Register it before the hook that evaluates, and after the one that saves.

    Args:
        iterations: of the cool-down; 0: there is none.
        average: the hook that averages the weights; None: they are not averaged.
    """

    def __init__(self, iterations: int, average: AverageWeights | None) -> None:
        self.iterations, self.average = iterations, average

    def after_train(self) -> None:
        """Train on if all iterations before the pause are trained."""
        trainer = self.trainer
        if not self.iterations or trainer.iter < trainer.max_iter:
            return
        logger.info("The learning rate falls to zero in %d more iterations.", self.iterations)
        groups = trainer.optimizer.param_groups
        rates, end = [group["lr"] for group in groups], trainer.iter
        for step in range(self.iterations):
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * (1 - step / self.iterations)
            trainer.iter = trainer.max_iter + step
            trainer.run_step()
            if self.average:
                self.average.after_step()
        trainer.read_losses()  # the evaluated weights are finite
        trainer.iter = end
