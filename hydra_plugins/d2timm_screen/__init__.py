"""A sweeper of Hydra that screens backbones by successive halving."""

from __future__ import annotations

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
HOURS, SECONDS = "budget_hours", "seconds"
OWN_KEYS = (CANDIDATES, "budget", HOURS, "sweep", "+sweep")  # overrides that are not passed on to jobs


class Screen(Sweeper):
    """Trains many backbones briefly, the better half for longer, and so on.

    Two overrides are its input: ``backbones=a,b,c`` or ``backbones=glob(…)`` names the candidates, and
    ``budget=``, iterations, or ``budget_hours=``, hours of training, is for all of them together; the rounds
    are planned from it. In rounds of hours all backbones train for the same time, not the same iterations.

    Args:
        factor: one in ``factor`` candidates continues in the next round, which ends ``factor`` times as late.
        cool_down: at the end of a round, the learning rate falls to zero in this share of the training so
            far; the scores after it are compared, and the next round continues from before it.
    """

    def __init__(self, factor: int = 2, cool_down: float = 0.2) -> None:
        self.factor, self.cool_down = factor, cool_down

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Receive the context and the config from Hydra."""
        self.budget, self.hours, self.context = config.budget, config.budget_hours, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the rounds; rounds that an earlier call finished in the same folder are not trained again.

        Returns:
            Candidate -> score of the last round.
        """
        from d2timm.sweep.halving import plan_rounds, promote

        candidates, fixed = self._split(arguments)
        budget, unit = self._budget()
        rounds = plan_rounds(len(candidates), budget, self.factor, self.cool_down, unit).rounds
        scores: dict[str, float] = {}
        for number, end in enumerate(rounds):
            pause: float | None
            print(f"round {number + 1} of {len(rounds)}: {len(candidates)} backbones until {end} {unit}")
            if unit == SECONDS:
                length, pause = f"train.budget_hours={rounds[-1] / 3600}", end / rounds[-1]
            else:
                length, pause = f"train.max_iter={rounds[-1]}", end
            pause = None if end == rounds[-1] else pause
            at = "null" if pause is None else str(pause)
            common = [*fixed, length, f"train.pause_at={at}", f"train.cool_down={self.cool_down}"]
            jobs = [[f"backbone={name}", *common] for name in candidates]
            scores = self._run(jobs, candidates, pause, number)
            if not scores:
                break  # all runs failed; the leaderboard shows their reasons
            candidates = [*promote(scores, self.factor)]
        return scores

    def _budget(self) -> tuple[int, str]:
        """The budget of all candidates together, and its unit."""
        from d2timm.errors import ConfigError

        if self.hours is not None and self.budget is not None:
            raise ConfigError(f"budget={self.budget} and {HOURS}={self.hours}: leave one of them out")
        if isinstance(self.hours, int | float) and self.hours > 0:
            return int(3600 * self.hours), SECONDS
        if self.hours is not None or not isinstance(self.budget, int) or self.budget < 1:
            raise ConfigError(
                f"budget={self.budget} {HOURS}={self.hours}: give the training iterations of all backbones "
                f"together as budget=, or their hours as {HOURS}="
            )
        return self.budget, "iterations"

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
        for key in ("train.max_iter", "train.budget_hours"):
            if any(argument.startswith(f"{key}=") for argument in fixed):
                raise ConfigError(f"{key} follows from the budget: leave it out")
        return names, fixed

    def _run(
        self, jobs: list[list[str]], names: list[str], pause: float | None, number: int
    ) -> dict[str, float]:
        """Run a round; returns the scores of the candidates that reached its end."""
        from d2timm.config.train_options import last_iteration
        from d2timm.runs.record import Record

        returns = self.launcher.launch(jobs, initial_job_idx=number * 1000)
        scores = {}
        for name, returned in zip(names, returns, strict=True):
            _ = returned.return_value  # raises the job's error
            job: Any = returned.hydra_cfg
            record = Record.read(Path(job.hydra.runtime.output_dir))
            if record is None or record.status != "done":
                continue
            score = dict(record.scores).get(last_iteration(pause, record.max_iter))
            if score is not None:
                scores[name] = score
        return scores
