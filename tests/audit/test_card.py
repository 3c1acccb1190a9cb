"""The card says what the audit found, on its first page, and nothing that nobody told."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ogsrl.audit.audit import GATES, audit
from ogsrl.audit.card import NOT_STATED, Card
from ogsrl.audit.config import AuditParams
from ogsrl.audit.evidence import Evidence
from ogsrl.audit.filled import filled
from ogsrl.audit.rendered import SIGNS, html, markdown
from ogsrl.evaluation.config import EvaluateParams
from tests.audit.told import changed, clean, group

SVG = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


def card(evidence: Evidence, params: AuditParams | None = None) -> Card:
    return filled(evidence, audit(evidence, params or AuditParams()))


def failing() -> Evidence:
    return changed(**{"selected.measures.deferred_steps.hi": 0.4})


def test_it_survives_json_and_says_what_the_cohort_file_does_not() -> None:
    made = card(clean())
    assert Card.model_validate_json(made.model_dump_json()) == made
    assert made.transparency.funding_source == NOT_STATED
    assert made.external_validation.startswith("none")


def test_each_gate_is_shown_with_its_limit_measure_and_interval() -> None:
    made = card(clean(), AuditParams.model_validate({"stays_deferred": {"limit": 0.6}}))
    told = next(one for one in made.gates if one.name == "steps_deferred")
    assert (told.limit, told.measured, told.estimate) == (0.1, 0.043, 0.04)
    assert (told.lo, told.hi) == (0.038, 0.043)
    assert "| at most 0.1 | 0.043 | 0.04 (0.038 to 0.043) |" in markdown(made)
    page = html(made, {})
    assert '<td>at most 0.1</td><td class="number">0.043</td><td>0.04 (0.038 to 0.043)</td>' in page
    assert "at most 0.6, loosened from 0.5" in page
    assert "at most 0.6, loosened from 0.5" in markdown(made)


def test_what_was_not_asked_is_grey_counted_apart_and_on_the_first_page() -> None:
    made = card(clean())
    (line,) = made.first_page.not_asked
    assert "no longer at Gamma 1.1" in line
    assert f"{len(GATES) - 1} of {len(GATES) - 1} gates passed; not asked: confounding" in (
        made.first_page.headline
    )
    page = html(made, {})
    assert page.count('<tr class="not-asked">') == 1
    assert "What was not asked" in page
    assert "| \u2013 not asked |" in markdown(made)


def test_all_that_the_card_holds_is_in_both_pages() -> None:
    made = card(clean())
    for text in (html(made, {}), markdown(made)):
        for said in (made.model_summary, *made.keywords, *made.bibliography):
            assert said in text
        for _, metric in made.key_metrics:
            assert metric.metric_goal in text
            assert metric.interpretation in text
    assert "Key metrics" in html(made, {})


def test_the_summary_says_no_more_than_was_done() -> None:
    assert card(clean()).model_summary.endswith(
        "held inside what clinicians have done, and measured on patients never seen."
    )
    few = replace(clean(), evaluation={"status": "too_few_patients"}, estimates=[])
    assert "not measured on any patient" in card(few).model_summary
    nobody = card(replace(clean(), selection={"chosen": None}))
    assert nobody.model_summary.startswith("No policy")
    assert "measured" not in nobody.model_summary


def test_how_few_patients_were_left_out_is_in_no_form_of_the_card() -> None:
    before = clean()
    one_less = {"step": "kept by the contract", "patients": 19_999, "stays": 21_009}
    lines = [*before.dataset["attrition"], one_less]
    made = card(replace(before, dataset={**before.dataset, "attrition": lines}))
    for text in (html(made, {}), markdown(made), made.model_dump_json()):
        assert "20,000" not in text
        assert "fewer than 10 left out" in text


def test_the_default_cohort_states_conversion_changes_rollback_and_co_interventions() -> None:
    made = card(clean())
    told = (made.treatment.conversion, made.treatment.co_interventions)
    assert NOT_STATED not in (*told, made.changes.change_plan, made.changes.rollback)
    assert "ogsrl rollback sepsis" in made.changes.rollback


def test_passed_and_failed_look_different_at_a_glance() -> None:
    seen = {}
    unsure = {"selected.mortality.gain.word": "cannot tell", "selected.mortality.gain.hi": 0.01}
    for evidence in (clean(), changed(**unsure), failing()):
        made = card(evidence)
        verdict = made.first_page.verdict
        page = html(made, {})
        banner = re.search(r'<section class="banner (\w+)".*?</section>', page, re.S)
        assert banner is not None
        assert banner[1] == verdict
        assert SIGNS[verdict] in banner[0]
        assert f"**{verdict}**" in markdown(made)
        seen[verdict] = banner[0]
    assert set(seen) == {"passed", "undecided", "failed"}


def test_what_failed_and_who_looks_worse_off_are_on_the_first_page() -> None:
    page = card(failing()).first_page
    assert any("steps are left" in line for line in page.failed)
    looks = card(changed(**group(1, "80 and above", -0.025, adjusted_hi=0.01))).first_page
    assert looks.looks_worse_for == ("Age: 80 and above",)
    assert looks.verdict == "passed"


def test_a_loosened_limit_is_on_the_first_page() -> None:
    loose = AuditParams.model_validate({"steps_deferred": {"limit": 0.9}})
    made = card(clean(), loose)
    assert made.first_page.loosened == ("Few steps are left to the clinicians: 0.9 instead of 0.1",)
    assert "0.9 instead of 0.1" in html(made, {})


def test_intervals_made_narrower_than_by_default_are_on_the_first_page() -> None:
    surer = EvaluateParams.model_validate(
        {"confidence": 0.8, "inflation": {"cost_gain": 1.0}, "estimators": ["fqe"]}
    ).surer
    made = card(changed(**{f"surer_than_default.{n}": one for n, one in enumerate(surer)}))
    assert made.first_page.loosened == (
        "evaluate.confidence: 0.8 instead of 0.95",
        "evaluate.inflation.cost_gain: 1 instead of 2.99",
        "evaluate.estimators: without pdis, pdis_clipped, wis, cwpdis, dr, wdr, magic, rollouts",
    )
    assert "confidence: 0.8 instead of 0.95" in html(made, {})
    assert EvaluateParams().surer == []


def test_nobody_put_forward_has_a_card_too() -> None:
    few = replace(
        clean(), selection={"chosen": None}, evaluation={"status": "too_few_patients"}, estimates=[]
    )
    made = card(few)
    assert made.first_page.verdict == "failed"
    assert made.first_page.recommends.startswith("Nothing")
    assert made.results == ()
    assert "too few" in html(made, {})
    assert "too few" in markdown(made)


def test_the_page_needs_no_network_and_runs_no_script() -> None:
    page = html(card(clean()), {"evaluate_doses": SVG})
    assert "<svg" in page
    assert "<?xml" not in page
    assert not re.search(r"<script|<link|@import|url\(|src=", page)
    for address in re.findall(r'(?:href|xmlns)="([^"]*)"', page):
        assert address.startswith("#") or address.startswith("http://www.w3.org/")


def test_text_of_a_cohort_file_is_text() -> None:
    cohort = clean().cohort
    texts = cohort.card.model_copy(update={"contact": "<script>alert(1)</script>"})
    evil = replace(clean(), cohort=cohort.model_copy(update={"card": texts}))
    assert "<script>" not in html(card(evil), {})
    assert "&lt;script&gt;" in html(card(evil), {})


@pytest.mark.parametrize("word", ["None", "nan", "inf", "undefined"])
def test_no_hole_shows(word: str) -> None:
    made = card(clean())
    for text in (html(made, {}), markdown(made)):
        assert not re.search(rf"\b{word}\b", text)
