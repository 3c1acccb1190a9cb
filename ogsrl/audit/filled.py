"""The card, filled from the evidence and the audit.

Called by the stage audit. Every number comes from a report; what no report and no cohort file says
is `not stated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ogsrl.audit.attrition import attrition
from ogsrl.audit.audit import Audit
from ogsrl.audit.card import (
    NOT_STATED,
    BasicInfo,
    Card,
    Changes,
    Data,
    Dose,
    EstimatorLine,
    GateLine,
    GroupLine,
    KeyMetric,
    KeyMetrics,
    Number,
    Region,
    ReleaseInfo,
    Resources,
    Result,
    SystemFacts,
    Transparency,
    Treatment,
    Uses,
    Warnings,
)
from ogsrl.audit.evidence import Evidence
from ogsrl.audit.first_page import first_page
from ogsrl.spec.expressions import parse_expression
from ogsrl.spec.words import expression_words, label, limit_words, reward_words

NO_PROMISE = (
    "Nothing bounds how often an unsupported dose is let pass; it is measured where the truth is "
    "known, on simulated patients. The promise is of patients like these, treated by the same "
    "clinicians."
)
UNRECORDED = (
    "It was learned from what was recorded: what clinicians saw and nobody wrote down is not in it."
)
BIBLIOGRAPHY = (
    "CHAI, Applied Model Card, v0.2",
    "OGSRL: offline guarded safe reinforcement learning for medical treatment",
)


def filled(evidence: Evidence, audit: Audit) -> Card:
    """The card of whoever was put forward, or of nobody."""
    texts = evidence.cohort.card
    population = texts.population or _or(evidence.cohort.description)
    return Card(
        first_page=first_page(evidence, audit, population, _subgroups(evidence)),
        basic_info=BasicInfo(
            model_name=evidence.cohort.name,
            model_developer=_or(texts.developer),
            developer_contact=_or(texts.contact),
        ),
        release_info=ReleaseInfo(
            release_stage=_or(texts.stage),
            release_version=f"cohort file version {evidence.cohort.version}; {_who(evidence)}",
            global_availability=_or(texts.availability),
            regulatory_approval=_or(texts.regulation),
        ),
        model_summary=_summary(evidence),
        keywords=("offline reinforcement learning", "treatment policy", evidence.cohort.name),
        uses_and_directions=Uses(
            intended_use_and_workflow=_or(texts.intended_use),
            primary_intended_users=_or(texts.users),
            how_to_use=_or(texts.directions),
            targeted_patient_population=population,
            cautioned_out_of_scope_settings=_or(texts.out_of_scope),
        ),
        warnings=_warnings(evidence, audit),
        system_facts=_system(evidence),
        transparency=Transparency(
            funding_source=_or(texts.funding),
            third_party_information=_or(texts.third_parties),
            stakeholders_consulted=_or(texts.stakeholders),
        ),
        key_metrics=_key_metrics(evidence, audit),
        resources=Resources(
            clinical_trial=_or(texts.trials),
            peer_reviewed_publications=_or(texts.publications),
            patient_consent_or_disclosure=_or(texts.consent),
        ),
        treatment=_treatment(evidence),
        guardian=_region(evidence),
        results=tuple(_results(evidence)),
        estimators=tuple(_estimators(evidence)),
        subgroups=tuple(_subgroups(evidence)),
        sensitivity=audit.said("confounding"),
        external_validation=(
            "none when this card was made: measured on patients of the same source alone; what "
            "`ogsrl evaluate` found later is with the version in the registry: tags "
            "ogsrl.external.*"
        ),
        data=_data(evidence),
        changes=Changes(change_plan=_or(texts.change_plan), rollback=_or(texts.rollback)),
        gates=tuple(GateLine.model_validate(_gate(one)) for one in audit.plain()["gates"]),
        bibliography=BIBLIOGRAPHY,
    )


def _or(text: str) -> str:
    return text or NOT_STATED


def _who(evidence: Evidence) -> str:
    chosen = evidence.selection.get("chosen")
    if chosen is None:
        return "no policy"
    return f"{chosen['algorithm']}, seed {chosen['seed']}, {chosen['checkpoint']}"


def _gate(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name in GateLine.model_fields}


def _summary(evidence: Evidence) -> str:
    doses = ", ".join(label(evidence.cohort, name) for name in evidence.cohort.actions)
    if not evidence.acts:
        return f"No policy of doses ({doses}): none that was learned may act, and all is deferred."
    measured = "measured on patients never seen"
    if not evidence.measured:
        measured = "not measured on any patient: there were too few"
    held = "held inside what clinicians have done"
    if evidence.guardian["status"] != "ready":
        held = "with a guardian that is not ready and refuses everything"
    return (
        f"A policy that recommends doses ({doses}) or defers to the clinician, learned from logged "
        f"stays, {held}, and {measured}."
    )


def _warnings(evidence: Evidence, audit: Audit) -> Warnings:
    texts = evidence.cohort.card
    risks = [f"{one.gate.title}: {one.said}" for one in audit.gates if one.verdict == "failed"]
    risks += [NO_PROMISE, UNRECORDED]
    risks += [texts.risks] if texts.risks else []
    risks += evidence.ingest["source"].get("caveats", [])  # what a source knows it does not tell
    return Warnings(
        known_risks_and_limitations=tuple(risks),
        known_biases_or_ethical_considerations=_or(texts.ethics),
        clinical_risk_level=_or(texts.risk_level),
    )


def _system(evidence: Evidence) -> SystemFacts:
    cohort, texts = evidence.cohort, evidence.cohort.card
    inputs = ", ".join(label(cohort, name) for name in cohort.states)
    return SystemFacts(
        outcomes_and_outputs="a dose in clinical units, or `defer` with the rule and the reason",
        model_type=f"{_who(evidence)}; guardian: {evidence.guardian['kind']}",
        foundation_models="none",
        input_data_source=_source(evidence),
        output_and_input_data_types=f"one row a step; {inputs}; doses as given so far",
        development_data_characterization=_parts(evidence),
        bias_mitigation_approaches=_or(texts.bias_mitigation),
        ongoing_maintenance=_or(texts.maintenance),
        security=_or(texts.security),
    )


def _source(evidence: Evidence) -> str:
    source = evidence.ingest["source"]
    simulated = source["kind"] in ("simulator", "icu_sepsis")
    return f"{source['kind']}" + (": no real patient" if simulated else "")


def _parts(evidence: Evidence) -> str:
    parts = evidence.dataset["parts"]
    each = (f"{name} {n['patients']:,} patients ({n['rows']:,} steps)" for name, n in parts.items())
    return "split by patient: " + ", ".join(each)


def _key_metrics(evidence: Evidence, audit: Audit) -> KeyMetrics:
    tested = _parts(evidence)

    def metric(goal: str, interpretation: str, *names: str) -> KeyMetric:
        lines = {one.gate.name: f"{one.verdict}: {one.said}" for one in audit.gates}
        return KeyMetric(
            metric_goal=goal,
            results=tuple(lines[name] for name in names),
            interpretation=interpretation,
            test_type="retrospective, off-policy, on held-out patients",
            testing_data_description=tested,
            validation_process_and_justification=(
                "a panel of estimators; fitted values of a patient come from fits that never saw "
                "them, fed the other test patients and the calibration patients; intervals are as "
                "wide as simulated cohorts of known truth asked for"
            ),
        )

    return KeyMetrics(
        usefulness_usability_efficacy=metric(
            "fewer deaths than under the clinicians, or more value",
            "a policy that cannot be told from clinicians is not recommended",
            *("better", "detectable", "cloning", "steps_deferred", "stays_deferred"),
        ),
        fairness_equity=metric(
            "no group of patients worse off",
            "groups of few patients cannot show harm: see their numbers",
            "subgroups",
        ),
        safety_reliability=metric(
            "physiological limits kept, no hazard, no jump",
            "limits are bounded on average over patients, not for each",
            *("constraints", "hazards", "dose_jumps", "calibration", "false_alarms", "seeds"),
        ),
    )


def _treatment(evidence: Evidence) -> Treatment:
    cohort = evidence.cohort
    hours, steps = cohort.time_step_hours, cohort.max_steps
    outcome = cohort.outcome
    return Treatment(
        decision_times=f"every {hours:g} hours",
        horizon=f"at most {steps} decisions ({hours * steps:g} hours)",
        doses=tuple(
            Dose(
                name=name,
                label=label(cohort, name),
                unit=dose.unit,
                least=dose.range[0],
                largest=dose.range[1],
                min_dose=dose.min_dose,
                increment=dose.increment,
                max_change=dose.max_change,
                levels=dose.levels,
            )
            for name, dose in cohort.actions.items()
        ),
        conversion=_or(cohort.card.conversion),
        reward=tuple(reward_words(cohort)),
        discount=cohort.discount,
        costs=tuple(
            f"{one.label or name}: {expression_words(cohort, parse_expression(one.expression))}, "
            f"{limit_words(one.limit, one.kind)}{_of_deaths(evidence, name)}"
            for name, one in cohort.constraints.items()
        ),
        hazards=tuple(one.label or name for name, one in cohort.hazards.items()),
        deaths="none in this cohort" if outcome is None else f"counted {outcome.horizon}",
        censoring=NOT_STATED if outcome is None else outcome.censoring,
        co_interventions=_or(cohort.card.co_interventions),
    )


def _of_deaths(evidence: Evidence, name: str) -> str:
    """That the dead break a constraint to the end, and how much that was under clinicians."""
    logged = evidence.dataset.get("constraints", {}).get(name, {})
    alive, dead = (logged.get(part, {}).get("estimate") for part in ("before_death", "death"))
    told = "; steps lost to death count as broken"
    if alive is None or dead is None:
        return told
    return f"{told} (of clinicians' steps {alive:.1%} broken while alive, {dead:.1%} lost)"


def _region(evidence: Evidence) -> Region:
    report = evidence.guardian
    alarms = (report.get("false_alarm") or {}).get("steps")
    alpha = report.get("alpha")
    promise = "none: it refuses everything"
    if report["status"] == "ready":
        promise = "nothing of how much it refuses"
    if report["status"] == "ready" and alpha is not None:
        promise = f"on average at most {alpha:.0%} of a new patient's steps are refused"
    return Region(
        kind=report["kind"],
        status=report["status"],
        looks_at=tuple(label(evidence.cohort, name) for name in evidence.cohort.guardian.columns),
        promise=promise,
        no_promise=NO_PROMISE,
        false_alarms=_number(alarms),
        steps_deferred=_told(evidence, "selected.measures.deferred_steps."),
        stays_deferred=_told(evidence, "selected.measures.deferred_stays."),
    )


def _number(told: Mapping[str, Any] | None) -> Number | None:
    if not told:
        return None
    return Number(**{name: told.get(name) for name in ("estimate", "lo", "hi", "level")})


def _told(evidence: Evidence, prefix: str) -> Number | None:
    return _number(evidence.under(prefix))


def _results(evidence: Evidence) -> Iterator[Result]:
    """Of the panel: clinicians, who was put forward, and everybody measured beside it."""
    for row in evidence.estimates:
        if row["estimator"] != "panel":
            continue
        policy, quantity = row["policy"], row["quantity"]
        gain = evidence.under(f"{policy}.{quantity}.gain.")
        yield Result(
            policy=policy,
            quantity=quantity,
            own=_row(row),
            gain=_number(gain),
            word=gain.get("word"),
            truth=row["truth"],
            held=evidence.evaluation.get(f"{policy}.{quantity}.covered"),
            gain_truth=gain.get("truth"),
            gain_held=gain.get("covered"),
        )


def _row(row: Mapping[str, Any]) -> Number:
    return Number(estimate=row["estimate"], lo=row["lo"], hi=row["hi"], level=row["level"])


def _estimators(evidence: Evidence) -> Iterator[EstimatorLine]:
    for row in evidence.estimates:
        if (row["policy"], row["quantity"]) != ("selected", evidence.decisive):
            continue
        name = row["estimator"]
        yield EstimatorLine(
            estimator=name,
            own=_row(row),
            votes=row["diagnosis"].startswith("votes") or name == "panel",
            effective=row["ess"],
            diagnosis=row["diagnosis"],
            measured_coverage=evidence.coverage.get(f"coverage_{name}"),
        )


def _subgroups(evidence: Evidence) -> Iterator[GroupLine]:
    for told in evidence.groups():
        one = {name: told[name] for name in ("label", "group", "patients", "effective")}
        yield GroupLine(**one, advantage=_number(told) or Number(estimate=None))


def _data(evidence: Evidence) -> Data:
    return Data(
        source=_source(evidence),
        attrition=tuple(attrition(evidence.dataset["attrition"])),
        parts={
            name: {key: int(count) for key, count in one.items()}
            for name, one in evidence.dataset["parts"].items()
        },
        table_sha256=evidence.ingest["table"]["sha256"],
        test_set_uses=evidence.uses,
    )
