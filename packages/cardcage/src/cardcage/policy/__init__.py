"""What an operator lays down: levels and rules that judge each instance before it starts. Pure."""

from cardcage.policy.decision import Applied, Denial, PolicyDecision, judge
from cardcage.policy.levels import LEVELS
from cardcage.policy.model import Approval, Conditions, Effects, Level, LimitCondition, Policy, Rule
from cardcage.policy.parse import level_named, parse_policy, policy_faults
from cardcage.policy.subject import Subject, subject_of

__all__ = [
    "LEVELS",
    "Applied",
    "Approval",
    "Conditions",
    "Denial",
    "Effects",
    "Level",
    "LimitCondition",
    "Policy",
    "PolicyDecision",
    "Rule",
    "Subject",
    "judge",
    "level_named",
    "parse_policy",
    "policy_faults",
    "subject_of",
]
