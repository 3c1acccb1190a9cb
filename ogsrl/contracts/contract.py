"""A cohort's contract: stream a table once, judge it, say what holds and which stays to leave out.

Called by the validate stage and by whoever holds a table. Rules come from `rules`, measures from
`structure`, `stays` and `summaries`, verdicts from `judge`; this module only joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.contracts.judge import Judge, Judged
from ogsrl.contracts.row_rules import row_rules
from ogsrl.contracts.rules import (
    Rule,
    cohort_rules,
    column_rules,
    site_rules,
    stay_rules,
)
from ogsrl.contracts.sample import Sample, Tally
from ogsrl.contracts.stays import StayBook, text_hashes
from ogsrl.contracts.structure import Ints, Layout, judged_rows
from ogsrl.contracts.summaries import column_summary, column_types, drift_summary, site_summary
from ogsrl.contracts.verdict import Count, RuleResult, Verdict, summary_results
from ogsrl.spec import Cohort, parse_expression

Parts = pd.DataFrame | Iterable[pd.DataFrame] | Callable[[], Iterable[pd.DataFrame]]
_KEYS = ("patient_id", "stay_id", "step", "hours")
_DRIFT_STAYS = 4_000


class Contract:
    """The contract that a cohort file makes with every table of the cohort."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort

    def check(
        self,
        parts: Parts,
        *,
        reference: Parts | None = None,
        others: Mapping[str, Iterable[pd.Series]] | None = None,
        max_quarantine_share: float = 0.05,
    ) -> Verdict:
        """Judge a whole table.

        Args:
            parts: The table, or parts of whole stays in order, or what gives them.
            reference: The table of a reference cohort, for drift.
            others: Patient ids of cohorts that must share no patient with this one, in parts.
            max_quarantine_share: Largest share of stays that may be left out.
        """
        run = _Run(self.cohort, reference, others or {})
        for part in _frames(parts):
            run.add(part)
        return run.verdict(max_quarantine_share)


def _frames(parts: Parts) -> Iterator[pd.DataFrame]:
    if isinstance(parts, pd.DataFrame):
        yield parts
    else:
        yield from parts() if callable(parts) else parts


class _Run:
    """One table being judged."""

    def __init__(
        self,
        cohort: Cohort,
        reference: Parts | None,
        others: Mapping[str, Iterable[pd.Series]],
    ) -> None:
        self.cohort = cohort
        self.judge = Judge()
        self.row_rules = list(row_rules(cohort))
        self.stay_rules = list(stay_rules(others))
        self.counts = {rule.key: Count(rule) for rule in self.row_rules}
        self.book = StayBook(cohort, others)
        self.tally = Tally(cohort)
        self.sample = Sample(self.tally.columns)
        self.pooled: Sample | None = None
        self.reference: Sample | None = None
        if reference is not None:
            self.pooled = self._pool()
            self.reference = self._pool()
            for part in _frames(reference):
                _into(self.reference, part)
        self.broken: list[tuple[Rule, Ints]] = []
        self.types = pd.DataFrame()
        self.usable: set[str] | None = None
        self.structured = True
        self.rows = 0
        self.sites: list[Ints] = []
        self.checks = {
            name: (parse_expression(check.expression), [0, 0])
            for name, check in cohort.checks.items()
        }

    def _pool(self) -> Sample:
        return Sample(self.tally.columns, per_site=_DRIFT_STAYS, in_all=_DRIFT_STAYS)

    def add(self, part: pd.DataFrame) -> None:
        """Judge the rows of one part and remember its stays."""
        if len(part) == 0:
            return
        types = column_types(part, self.cohort)
        good = types[(types.column_present == 0) & (types.column_type == 0)]
        usable = set(good.loc[good.column_known == 0, "column"])
        if self.usable is None or not usable >= self.usable:
            self.types, self.usable = types, usable & (self.usable or usable)
        self.rows += len(part)
        self.structured = self.structured and set(_KEYS) <= usable
        if not self.structured:
            return
        part = part.reset_index(drop=True)
        layout = Layout.of(part)
        stays = self.book.add(part, layout, usable)
        sites = self.tally.add(part, layout, usable)
        self.sites.append(sites)
        hashes = self.book.hashes[stays]
        self.sample.add(part, layout, hashes, sites)
        if self.pooled is not None:
            self.pooled.add(part, layout, hashes, np.zeros_like(sites))
        rows = judged_rows(part, self.cohort, layout, usable)
        for judged in self.judge.judge(self.row_rules, rows):
            self._count(judged, stays[layout.number])
        for expression, counted in self.checks.values():
            if expression.columns <= usable:
                truth = expression.numpy({name: part[name] for name in expression.columns})
                counted[0] += int((truth == 0).sum())
                counted[1] += int((~np.isnan(truth)).sum())

    def _count(self, judged: Judged, stay_of: Ints) -> None:
        count = self.counts[judged.rule.key]
        count.checked += judged.checked
        count.could_judge &= judged.could_judge
        if len(judged.rows):
            stays = np.unique(stay_of[judged.rows])
            count.rows += len(judged.rows)
            count.stays += len(stays)
            if judged.rule.severity == "error":
                self.broken.append((judged.rule, stays))

    def verdict(self, max_quarantine_share: float) -> Verdict:
        """What is to be said once the table has streamed by."""
        stay_results = self._judge_stays()
        quarantine = self._quarantine()
        patients = len(np.unique(self.book.patients))
        stays = len(self.book)
        aside = quarantine["stay_id"].nunique(dropna=False)
        share = aside / max(stays, 1)
        results = [
            *self._judge_columns(),
            *(count.result() for count in self.counts.values()),
            *stay_results,
            *self._judge_sites(),
        ]
        cohort = pd.DataFrame(
            {
                "stays": [len(self.book) if self.structured else self.rows],
                "quarantine_excess": [max(share - max_quarantine_share, 0.0)],
                "column": [None],
                "detail": [
                    f"; {aside} of {stays} stays, at most {max_quarantine_share:.1%} allowed"
                    if stays
                    else "; the table has 0 rows"
                ],
            }
        )
        results += self._judge_summary(list(cohort_rules()), cohort)
        return Verdict(
            cohort=self.cohort.name,
            results=tuple(results),
            rules=(*self._summary_rules(), *self.row_rules, *self.stay_rules, *cohort_rules()),
            quarantine=quarantine,
            patients=patients,
            stays=stays,
            rows=self.rows,
            max_quarantine_share=max_quarantine_share,
        )

    def _summary_rules(self) -> list[Rule]:
        has_reference = self.reference is not None
        return [*column_rules(self.cohort, has_reference=has_reference), *site_rules()]

    def _judge_stays(self) -> list[RuleResult]:
        frame = self.book.judged_stays()
        results = []
        for judged in self.judge.judge(self.stay_rules, frame):
            failed = len(judged.rows)
            count = Count(judged.rule, judged.checked, failed, failed, judged.could_judge)
            results.append(count.result())
            if failed:
                self.broken.append((judged.rule, judged.rows))
        return results

    def _judge_columns(self) -> list[RuleResult]:
        rules = list(column_rules(self.cohort, has_reference=self.reference is not None))
        results = self._judge_summary(rules, self.types)
        if self.structured and self.usable is not None:
            counted = {name: (bad, known) for name, (_, (bad, known)) in self.checks.items()}
            usable = self.usable
            summary = column_summary(self.cohort, self.tally, usable, counted)
            results += self._judge_summary(rules, summary)
            if self.pooled is not None and self.reference is not None:
                drift = drift_summary(self.cohort, self.pooled, self.reference, usable)
                results += self._judge_summary(rules, drift)
        return results

    def _judge_sites(self) -> list[RuleResult]:
        if not self.structured or self.usable is None:
            return []
        sites = np.concatenate(self.sites)
        pairs = np.unique(np.column_stack([self.book.patients, sites.astype(np.uint64)]), axis=0)
        people = np.bincount(pairs[:, 1].astype(np.int64), minlength=len(self.tally.sites))
        summary = site_summary(self.cohort, self.tally, self.sample, self.usable, people)
        return self._judge_summary(list(site_rules()), summary)

    def _judge_summary(self, rules: list[Rule], frame: pd.DataFrame) -> list[RuleResult]:
        measures = frame.drop(columns=["column", "site", "detail"], errors="ignore")
        return [
            result
            for judged in self.judge.judge(rules, measures)
            for result in summary_results(
                judged.rule, frame, judged.rows.tolist(), judged.could_judge
            )
        ]

    def _quarantine(self) -> pd.DataFrame:
        order = {rule.key: place for place, rule in enumerate(self.row_rules + self.stay_rules)}
        rule_of: list[npt.NDArray[np.int64]] = []
        stay_of: list[Ints] = []
        for rule, stays in self.broken:
            rule_of.append(np.full(len(stays), order[rule.key]))
            stay_of.append(stays)
        stay = np.concatenate([np.zeros(0, np.int64), *stay_of])
        place = np.concatenate([np.zeros(0, np.int64), *rule_of])
        sequence = np.lexsort((place, stay))
        names = np.array(list(order), object)
        return pd.DataFrame(
            {
                "stay_id": self.book.ids(stay[sequence]),
                "rule": pd.Series(names[place[sequence]], dtype="str"),
            }
        )


def _into(sample: Sample, part: pd.DataFrame) -> None:
    """Add a reference cohort's part to its sample."""
    part = part.reset_index(drop=True)
    layout = Layout.of(part)
    hashes = text_hashes(part["stay_id"].iloc[layout.first])
    sample.add(part, layout, hashes, np.zeros(layout.stays, np.int64))
