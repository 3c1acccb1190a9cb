"""Great Expectations, the one judge: rules and a frame in, counts and failing rows out.

Called by `contract`. What GX returns never leaves this module: only counts and row positions do,
because its results and its exceptions carry the values that failed. Nothing is sent anywhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.contracts.rules import Rule

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.data_context.abstract_data_context import (
        AbstractDataContext,
    )
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation

#: Columns with gaps that are judged as one frame.
_TOGETHER = 3
_COUNTS = {
    "result_format": "BASIC",
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
}
_POSITIONS = {
    "result_format": "COMPLETE",
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
    "return_unexpected_index_query": False,
}


@dataclass(frozen=True)
class Judged:
    """What GX said of one rule: how many values it saw, and the rows that break it."""

    rule: Rule
    checked: int
    rows: npt.NDArray[np.int64]
    could_judge: bool = True


def quiet_context() -> AbstractDataContext:
    """An ephemeral GX context that reports to nobody and draws no progress bar."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    os.environ.setdefault("DO_NOT_TRACK", "1")
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # it logs values
    import great_expectations as gx  # noqa: PLC0415 - takes three seconds, so only when judging
    from great_expectations.data_context.types.base import (  # noqa: PLC0415 - the same
        ProgressBarsConfig,
    )

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def expectation(rule: Rule) -> Expectation:
    """The rule as GX says it."""
    from great_expectations.expectations.core.expect_column_values_to_be_between import (  # noqa: PLC0415 - see quiet_context
        ExpectColumnValuesToBeBetween,
    )
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import (  # noqa: PLC0415 - see quiet_context
        ExpectColumnValuesToBeInSet,
    )
    from great_expectations.expectations.core.expect_column_values_to_not_be_null import (  # noqa: PLC0415 - see quiet_context
        ExpectColumnValuesToNotBeNull,
    )

    severity = "critical" if rule.severity == "error" else "warning"
    common: dict[str, Any] = {
        "column": rule.measure,
        "severity": severity,
        "meta": {"rule": rule.key},
        "notes": f"{rule.key}: must not be {rule.finding}" if rule.level == "rows" else rule.key,
    }
    if rule.required:
        return ExpectColumnValuesToNotBeNull(**common)
    if rule.levels:
        return ExpectColumnValuesToBeInSet(value_set=list(rule.levels), **common)
    return ExpectColumnValuesToBeBetween(min_value=rule.low, max_value=rule.high, **common)


def _groups(frame: pd.DataFrame, measures: list[str]) -> list[list[str]]:
    """Measures to judge together: GX copies the whole frame for each column that has gaps."""
    gaps = [name for name in measures if frame[name].hasnans]
    whole = [name for name in measures if name not in set(gaps)]
    groups = [gaps[i : i + _TOGETHER] for i in range(0, len(gaps), _TOGETHER)]
    return [whole, *groups] if whole else groups


class Judge:
    """Judges frames; one for a whole check, since a GX context takes a while to make."""

    def __init__(self) -> None:
        self._context = quiet_context()
        self._source = self._context.data_sources.add_pandas("frames")
        self._definitions: dict[str, BatchDefinition[Any]] = {}

    def judge(self, rules: Iterable[Rule], frame: pd.DataFrame) -> list[Judged]:
        """Judge one frame by the rules whose measure it has, in their order."""
        wanted = [rule for rule in rules if rule.measure in frame]
        judged: dict[str, Judged] = {}
        for names in _groups(frame, list(dict.fromkeys(rule.measure for rule in wanted))):
            group = [rule for rule in wanted if rule.measure in names]
            judged.update(self._judge_group(group, frame[names]))
        return [judged[rule.key] for rule in wanted]

    def _judge_group(self, rules: Sequence[Rule], frame: pd.DataFrame) -> dict[str, Judged]:
        batch = self._batch(rules[0].level, frame)
        counted = self._validate(batch, rules, _COUNTS)
        judged = {}
        for rule in rules:
            result = counted[rule.key]
            checked = int(result.result.get("element_count") or 0)
            could_judge = "unexpected_count" in result.result
            rows = np.zeros(0, np.int64)
            if not result.success and could_judge:
                found = self._validate(batch, [rule], _POSITIONS)[rule.key]
                rows = np.asarray(found.result.get("unexpected_index_list") or [], np.int64)
            judged[rule.key] = Judged(rule, checked, rows, could_judge)
        return judged

    def _batch(self, level: str, frame: pd.DataFrame) -> Batch:
        if level not in self._definitions:
            asset = self._source.add_dataframe_asset(level)
            self._definitions[level] = asset.add_batch_definition_whole_dataframe(level)
        batch: Batch = self._definitions[level].get_batch(batch_parameters={"dataframe": frame})
        return batch

    @staticmethod
    def _validate(
        batch: Batch, rules: Sequence[Rule], result_format: dict[str, Any]
    ) -> dict[str, ExpectationValidationResult]:
        from great_expectations import ExpectationSuite  # noqa: PLC0415 - see quiet_context

        suite = ExpectationSuite(
            name=rules[0].level, expectations=[expectation(rule) for rule in rules]
        )
        outcome = batch.validate(suite, result_format=result_format)
        return {_key(result): result for result in outcome.results}


def _key(result: ExpectationValidationResult) -> str:
    config = result.expectation_config
    assert config is not None  # GX fills it in for every result of a suite
    return str(config.meta["rule"])
