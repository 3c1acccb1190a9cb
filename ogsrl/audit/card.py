"""The model card as one typed object: what a reviewer reads, and what is rendered.

Filled by `ogsrl.audit.filled`, rendered by `ogsrl.audit.rendered`. It holds aggregates alone. Parts
and names of CHAI's Applied Model Card come first; what a policy of doses needs beyond it follows.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ogsrl.audit.gate import GateVerdict, Verdict

#: What is shown where the cohort file says nothing.
NOT_STATED = "not stated"


class Part(BaseModel):
    """A part of the card; closed to fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Number(Part):
    """A number, never without its interval where it has one; None: not told."""

    estimate: float | None
    lo: float | None = None
    hi: float | None = None
    level: float | None = None


class FirstPage(Part):
    """What a clinician reads in five minutes."""

    verdict: Verdict
    headline: str
    recommends: str
    for_whom: str
    not_for: str = NOT_STATED
    how_sure: str
    refuses: str
    failed: tuple[str, ...]
    undecided: tuple[str, ...]
    not_asked: tuple[str, ...] = ()
    looks_worse_for: tuple[str, ...]
    loosened: tuple[str, ...]


class BasicInfo(Part):
    """CHAI: basic information."""

    model_name: str
    model_developer: str
    developer_contact: str


class ReleaseInfo(Part):
    """CHAI: release."""

    release_stage: str
    release_version: str
    global_availability: str
    regulatory_approval: str


class Uses(Part):
    """CHAI: uses and directions."""

    intended_use_and_workflow: str
    primary_intended_users: str
    how_to_use: str
    targeted_patient_population: str
    cautioned_out_of_scope_settings: str


class Warnings(Part):
    """CHAI: warnings."""

    known_risks_and_limitations: tuple[str, ...]
    known_biases_or_ethical_considerations: str
    clinical_risk_level: str


class SystemFacts(Part):
    """CHAI: trust ingredients, the system."""

    outcomes_and_outputs: str
    model_type: str
    foundation_models: str
    input_data_source: str
    output_and_input_data_types: str
    development_data_characterization: str
    bias_mitigation_approaches: str
    ongoing_maintenance: str
    security: str


class Transparency(Part):
    """CHAI: trust ingredients, who stands behind it."""

    funding_source: str
    third_party_information: str
    stakeholders_consulted: str


class KeyMetric(Part):
    """CHAI: one key metric; results are gates."""

    metric_goal: str
    results: tuple[str, ...]
    interpretation: str
    test_type: str
    testing_data_description: str
    validation_process_and_justification: str


class KeyMetrics(Part):
    """CHAI: key metrics."""

    usefulness_usability_efficacy: KeyMetric
    fairness_equity: KeyMetric
    safety_reliability: KeyMetric


class Resources(Part):
    """CHAI: resources."""

    clinical_trial: str
    peer_reviewed_publications: str
    patient_consent_or_disclosure: str


class Dose(Part):
    """One dose, in clinical units."""

    name: str
    label: str
    unit: str
    least: float
    largest: float
    min_dose: float
    increment: float | None
    max_change: float | None
    levels: tuple[str, ...]


class Treatment(Part):
    """What is decided, when, and what for."""

    decision_times: str
    horizon: str
    doses: tuple[Dose, ...]
    conversion: str
    reward: tuple[str, ...]
    discount: float
    costs: tuple[str, ...]
    hazards: tuple[str, ...]
    deaths: str
    censoring: str
    co_interventions: str


class Region(Part):
    """The guardian, and what it does not promise."""

    kind: str
    status: str
    looks_at: tuple[str, ...]
    promise: str
    no_promise: str
    false_alarms: Number | None
    steps_deferred: Number | None
    stays_deferred: Number | None


class Result(Part):
    """One quantity of one policy on test patients."""

    policy: str
    quantity: str
    own: Number
    gain: Number | None
    word: str | None
    truth: float | None
    held: bool | None = Field(None, description="Whether the interval holds the truth.")
    gain_truth: float | None = None
    gain_held: bool | None = None


class EstimatorLine(Part):
    """What one estimator said of the policy's primary quantity, and how often it is right."""

    estimator: str
    own: Number
    votes: bool
    effective: float | None
    diagnosis: str
    measured_coverage: float | None = Field(
        description="Of its intervals over simulated cohorts, by the coverage benchmark."
    )


class GroupLine(Part):
    """Advantage in one subgroup."""

    label: str
    group: str
    patients: int | None
    effective: float | None
    advantage: Number


class GateLine(Part):
    """One gate."""

    name: str
    title: str
    why: str
    verdict: GateVerdict
    said: str
    measured: float | None = Field(description="What is compared with the limit.")
    estimate: float | None = None
    lo: float | None = None
    hi: float | None = None
    relation: str
    limit: float
    default_limit: float
    loosened: bool


class Data(Part):
    """What it was learned from and measured on."""

    source: str
    attrition: tuple[str, ...]
    parts: dict[str, dict[str, int]]
    table_sha256: str
    test_set_uses: int


class Changes(Part):
    """What may change, and how it is taken back."""

    change_plan: str
    rollback: str


class Card(Part):
    """The model card."""

    format: int = 1
    first_page: FirstPage
    basic_info: BasicInfo
    release_info: ReleaseInfo
    model_summary: str
    keywords: tuple[str, ...]
    uses_and_directions: Uses
    warnings: Warnings
    system_facts: SystemFacts
    transparency: Transparency
    key_metrics: KeyMetrics
    resources: Resources
    treatment: Treatment
    guardian: Region
    results: tuple[Result, ...]
    estimators: tuple[EstimatorLine, ...]
    subgroups: tuple[GroupLine, ...]
    sensitivity: str
    external_validation: str
    data: Data
    changes: Changes
    gates: tuple[GateLine, ...]
    bibliography: tuple[str, ...]
