"""A sweeper of Hydra that screens backbones by successive halving."""

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
OWN_KEYS = (CANDIDATES, "budget", "sweep", "+sweep")  # overrides that are not passed on to jobs


class Screen(Sweeper):
    """Trains many backbones briefly, the better half for longer, and so on.

    Two overrides are its input: ``backbones=a,b,c`` or ``backbones=glob(…)`` names the candidates, and
    ``budget=`` is the number of iterations of all of them together, from which the rounds are planned.

    Args:
        factor: one in ``factor`` candidates continues in the next round, which ends ``factor`` times as late.
    """

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Receive the context and the config from Hydra."""
        self.budget, self.context = config.budget, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the rounds; rounds that an earlier call finished in the same folder are not trained again.

        Returns:
            Candidate -> score of the last round.
        """
        from d2timm.errors import ConfigError
        from d2timm.sweep.halving import plan_rounds, promote

        if not importlib.util.find_spec("optuna"):
            raise ConfigError("a screening needs: pip install 'd2timm[screen]'")
        candidates, fixed = self._split(arguments)
        if not isinstance(self.budget, int) or self.budget < 1:
            raise ConfigError(f"budget={self.budget}: give the training iterations of all backbones together")
        rounds = plan_rounds(len(candidates), self.budget, self.factor).rounds
        scores: dict[str, float] = {}
        for number, end in enumerate(rounds):
            print(f"round {number + 1} of {len(rounds)}: {len(candidates)} backbones until iteration {end}")
            common = [*fixed, f"train.max_iter={rounds[-1]}", f"train.pause_at={end}"]
            jobs = [[f"backbone={name}", *common] for name in candidates]
            scores = self._run(jobs, candidates, end, number)
            if not scores:
                break  # all runs failed; the leaderboard shows their reasons
            candidates = promote(scores, end, self.factor)
        return scores

    def _split(self, arguments: list[str]) -> tuple[list[str], list[str]]:
        """Separate the candidates from the overrides that all jobs share."""
        from d2timm.errors import ConfigError

        selections = [argument for argument in arguments if argument.startswith(f"{CANDIDATES}=")]
        if not selections:
            raise ConfigError("backbones= is missing: give names separated by commas, or 'glob(convnext*)'")
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        (selection,) = parser.parse_overrides([selections[-1].replace(CANDIDATES, "backbone", 1)])
        if selection.is_sweep_override():
            names = list(selection.sweep_string_iterator())
        else:
            names = [str(selection.value())]
        if not names:
            raise ConfigError(f"{selections[-1]}: no model has a name like this")
        fixed = [argument for argument in arguments if argument.partition("=")[0] not in OWN_KEYS]
        swept = [o.input_line for o in parser.parse_overrides(fixed) if o.is_sweep_override()]
        if swept:
            raise ConfigError(f"{swept[0]}: a screening compares backbones only; give one value")
        if any(argument.startswith("train.max_iter=") for argument in fixed):
            raise ConfigError("train.max_iter follows from budget=: leave it out")
        return names, fixed

    def _run(self, jobs: list[list[str]], names: list[str], end: int, number: int) -> dict[str, float]:
        """Run a round; returns the scores of the candidates that reached its end."""
        from d2timm.runs.record import Record

        returns = self.launcher.launch(jobs, initial_job_idx=number * 1000)
        scores = {}
        for name, returned in zip(names, returns, strict=True):
            _ = returned.return_value  # raises the job's error
            job: Any = returned.hydra_cfg
            record = Record.read(Path(job.hydra.runtime.output_dir))
            score = dict(record.scores).get(end) if record else None
            if score is not None:
                scores[name] = score
        return scores
