"""A cohort's contract with its data: Great Expectations suites written from the cohort file.

Called by the validate stage. Counts and column names leave this package, a patient's value or id
never, except for the stay ids of the quarantine.
"""

from ogsrl.contracts.contract import Contract
from ogsrl.contracts.rules import Rule
from ogsrl.contracts.verdict import RuleResult, Verdict

__all__ = ["Contract", "Rule", "RuleResult", "Verdict"]
