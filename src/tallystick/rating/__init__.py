"""Rating: a fact and the rate cards of its time give its cost and its credits. Pure.

Owns how tokens, tool calls and runtime become USD/9 and CREDIT/6, and which attempts of a
run are charged. Never reads a store or a clock. Keeps nothing but compiled rate cards.
Time: the version in force at `occurred_at`.
"""

from tallystick.rating.cards import CostCard, CreditCard, RateCardVersion
from tallystick.rating.charges import ChargePolicy, RunLine, RunTargetPlan, plan_run_target
from tallystick.rating.checks import check_card
from tallystick.rating.rater import RATED_COLUMNS, RATED_TYPES, CallRates, Rated, Rater

__all__ = [
    "RATED_COLUMNS",
    "RATED_TYPES",
    "CallRates",
    "ChargePolicy",
    "CostCard",
    "CreditCard",
    "RateCardVersion",
    "Rated",
    "Rater",
    "RunLine",
    "RunTargetPlan",
    "check_card",
    "plan_run_target",
]
