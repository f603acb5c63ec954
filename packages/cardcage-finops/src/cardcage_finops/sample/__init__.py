"""Labelled synthetic estates: a FOCUS 1.2 bill, its metrics, and the truth about both. All of it is made up."""

from cardcage_finops.sample.generator import SampleFiles, generate, iter_sample_progress
from cardcage_finops.sample.plan import EstatePlan, plan_estate

__all__ = ["EstatePlan", "SampleFiles", "generate", "iter_sample_progress", "plan_estate"]
