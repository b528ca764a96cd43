"""Successive halving over backbones, as a sweeper of Hydra's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

__all__ = ["Screen"]

CANDIDATES = "backbones"
OWN = (CANDIDATES, "budget", "sweep", "+sweep")  # what jobs are not told


class Screen(Sweeper):
    """Trains many backbones a little, the better half longer, and so on.

    In the arguments, ``backbones=a,b,c`` or ``backbones=glob(…)`` are the candidates; ``budget=`` is the
    number of iterations of all of them together, from which the lengths of the rounds follow.

    Args:
        factor: one in so many candidates goes on to the next round, which is so many times as long.
    """

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what Hydra gives."""
        self.budget, self.context = config.budget, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the rounds; what an earlier call has trained in the same folder is not trained again.

        Returns:
            Scores of the last round: candidate -> score.
        """
        from d2timm.errors import ConfigError
        from d2timm.sweep.halving import plan, promoted

        if not importlib.util.find_spec("optuna"):
            raise ConfigError("a screening needs: pip install 'd2timm[screen]'")
        candidates, fixed = self._split(arguments)
        if not isinstance(self.budget, int) or self.budget < 1:
            raise ConfigError("budget=… must be given: iterations of training of all backbones together")
        rounds = plan(len(candidates), self.budget, self.factor).rounds
        scores: dict[str, float] = {}
        for number, end in enumerate(rounds):
            print(f"round {number + 1} of {len(rounds)}: {len(candidates)} backbones until iteration {end}")
            common = [*fixed, f"train.max_iter={rounds[-1]}", f"train.pause_at={end}"]
            scores = self._run(
                [[f"backbone={name}", *common] for name in candidates], candidates, end, number
            )
            if not scores:
                break  # all have failed, and the leaderboard tells why
            candidates = promoted(scores, end, self.factor)
        return scores

    def _split(self, arguments: list[str]) -> tuple[list[str], list[str]]:
        """Candidates, and what is the same for all."""
        from d2timm.errors import ConfigError

        told = [a for a in arguments if a.startswith(f"{CANDIDATES}=")]
        if not told:
            raise ConfigError("backbones=… must be given: names with commas, or 'glob(convnext*)'")
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        (asked,) = parser.parse_overrides([told[-1].replace(CANDIDATES, "backbone", 1)])
        names = list(asked.sweep_string_iterator()) if asked.is_sweep_override() else [str(asked.value())]
        if not names:
            raise ConfigError(f"{told[-1]}: no model has such a name")
        fixed = [a for a in arguments if a.partition("=")[0] not in OWN]
        swept = [o.input_line for o in parser.parse_overrides(fixed) if o.is_sweep_override()]
        if swept:
            raise ConfigError(f"{swept[0]}: a screening is over backbones only")
        if any(a.startswith("train.max_iter=") for a in fixed):
            raise ConfigError("train.max_iter= follows from budget=: leave it out")
        return names, fixed

    def _run(self, jobs: list[list[str]], names: list[str], end: int, number: int) -> dict[str, float]:
        """Run a round; returns the scores of those who came to its end."""
        from d2timm.runs.record import Record

        returns = self.launcher.launch(jobs, initial_job_idx=number * 1000)
        scores = {}
        for name, returned in zip(names, returns, strict=True):
            _ = returned.return_value  # raises what the job raised
            job: Any = returned.hydra_cfg
            record = Record.read(Path(job.hydra.runtime.output_dir))
            score = dict(record.scores).get(end) if record else None
            if score is not None:
                scores[name] = score
        return scores
