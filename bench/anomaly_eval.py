"""How well the anomaly detector finds what was injected into sample estates, beside the plain 25 % rule.

Run it as `python bench/anomaly_eval.py [--seeds N] [--first-seed S]`. The estates are synthetic. A truth counts as
found where a reported anomaly of its service and account overlaps its days; a report counts as right where it overlaps
a truth. Delay is the number of days from the first day of a truth to that of the first report that overlaps it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from cardcage_finops.models import CostAnomaly, DailyCost
from cardcage_finops.sample.estate import daily_series
from cardcage_finops.sample.plan import EstatePlan, plan_estate
from cardcage_finops.sample.world import ACCOUNTS

PLUGIN = Path(__file__).resolve().parent.parent / "plugins" / "cost-anomaly-detector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one detector made of one or several estates."""

    truths: int
    found: int
    reports: int
    right: int
    delays: tuple[int, ...]
    kinds_right: int
    missed: tuple[str, ...] = ()

    @property
    def recall(self) -> float:
        """Found truths to all truths."""
        return self.found / self.truths if self.truths else 1.0

    @property
    def precision(self) -> float:
        """Right reports to all reports."""
        return self.right / self.reports if self.reports else 1.0


def load_detector(**config: Any) -> Any:
    """The shipped detector, imported as its package stands, outside any wall."""
    if str(PLUGIN) not in sys.path:
        sys.path.insert(0, str(PLUGIN))
    detector = importlib.import_module("cost_anomaly_detector").CostAnomalyDetector()
    detector.load(config)
    return detector


def score(plan: EstatePlan, reports: list[CostAnomaly]) -> Score:
    """Compare reports with what was injected."""
    right: set[int] = set()
    delays: list[int] = []
    missed: list[str] = []
    kinds_right = 0
    for truth in plan.anomalies:
        first, last = plan.day(truth.first_day).isoformat(), plan.day(truth.last_day).isoformat()
        account = ACCOUNTS[truth.account][0]
        hits = [
            index
            for index, one in enumerate(reports)
            if (one.service, one.account) == (truth.service, account)
            and one.first_day <= last
            and one.last_day >= first
        ]
        right.update(hits)
        if hits:
            kinds_right += any(reports[index].kind == truth.kind for index in hits)
            begun = min(reports[index].first_day for index in hits)
            delays.append(next(day for day in range(plan.days) if plan.day(day).isoformat() == begun) - truth.first_day)
        else:
            missed.append(f"seed {plan.seed}: {truth.kind} of {truth.magnitude:.0%} in {truth.service} from {first}")
    return Score(
        truths=len(plan.anomalies),
        found=len(delays),
        reports=len(reports),
        right=len(right),
        delays=tuple(delays),
        kinds_right=kinds_right,
        missed=tuple(missed),
    )


def together(scores: list[Score]) -> Score:
    """One score over several estates."""
    return Score(
        truths=sum(one.truths for one in scores),
        found=sum(one.found for one in scores),
        reports=sum(one.reports for one in scores),
        right=sum(one.right for one in scores),
        delays=tuple(delay for one in scores for delay in one.delays),
        kinds_right=sum(one.kinds_right for one in scores),
        missed=tuple(text for one in scores for text in one.missed),
    )


def evaluate(seeds: range, *, days: int = 90, resources: int = 150) -> dict[str, Score]:
    """The score of each detector over these seeds."""
    detectors = {
        "25 % rule": load_detector(method="daily_rule", min_impact=0),
        "25 % rule, at least 10 USD": load_detector(method="daily_rule"),
        "robust": load_detector(),
    }
    scores: dict[str, list[Score]] = {name: [] for name in detectors}
    for seed in seeds:
        plan = plan_estate(seed=seed, days=days, resources=resources)
        series: list[DailyCost] = daily_series(plan)
        for name, detector in detectors.items():
            scores[name].append(score(plan, detector.detect(series)))
    return {name: together(found) for name, found in scores.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--missed", action="store_true", help="list the truths that the robust detector missed")
    arguments = parser.parse_args()
    found = evaluate(range(arguments.first_seed, arguments.first_seed + arguments.seeds))
    heads = f"{'recall':>8}{'precision':>11}{'reports':>9}{'truths':>8}{'delay, days':>13}{'kind right':>12}"
    print(f"{'detector':<28}{heads}")
    for name, one in found.items():
        delay = mean(one.delays) if one.delays else 0.0
        print(
            f"{name:<28}{one.recall:>8.3f}{one.precision:>11.3f}{one.reports:>9}{one.truths:>8}{delay:>13.1f}{one.kinds_right:>12}"
        )
    if arguments.missed:
        print(*found["robust"].missed, sep="\n")


if __name__ == "__main__":
    main()
