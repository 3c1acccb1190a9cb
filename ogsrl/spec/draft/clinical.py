"""Common clinical columns and doses: their names, units, ranges, and what is unsafe.

Used by drafts alone. Ranges are those of charts of living patients, wide on purpose; a person
reads every one of them before it counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ogsrl.spec.model import Harm, Interval, Statistic, Transform


@dataclass(frozen=True)
class Scale:
    """A unit in which a column is charted, with what it can be in that unit."""

    unit: str
    plausible: Interval
    normal: float | None = None
    unsafe: float | None = None
    """Below this is unsafe."""
    target: Interval | None = None


@dataclass(frozen=True)
class Known:
    """A column that is known by its name."""

    label: str
    names: tuple[str, ...]
    scales: tuple[Scale, ...]
    harm: Harm = "none"
    transform: Transform = "identity"
    statistic: Statistic = "last"


@dataclass(frozen=True)
class KnownDose:
    """A dose that is known by its name."""

    label: str
    names: tuple[str, ...]
    unit: str
    statistic: Statistic = "sum"


def _known(  # one row of the table below
    label: str,
    names: str,
    *scales: Scale,
    harm: Harm = "none",
    transform: Transform = "identity",
    statistic: Statistic = "last",
) -> Known:
    return Known(label, tuple(names.split()), scales, harm, transform, statistic)


COLUMNS = (
    _known("Age", "age", Scale("years", (0, 120)), Scale("days", (0, 44000))),
    _known("Weight", "weight wt body_weight", Scale("kg", (2, 350)), Scale("lb", (4, 770))),
    _known("Height", "height", Scale("cm", (40, 250)), Scale("m", (0.4, 2.5))),
    _known("Body mass index", "bmi", Scale("kg/m2", (8, 100), 23)),
    _known(
        "Heart rate", "hr heart_rate heartrate pulse", Scale("/min", (15, 280), 80), harm="both"
    ),
    _known(
        "Systolic pressure",
        "sbp sysbp sys_bp systolic systolic_bp systolic_blood_pressure",
        Scale("mmHg", (25, 300), 120),
        harm="low",
    ),
    _known(
        "Diastolic pressure",
        "dbp diabp dia_bp diastolic diastolic_bp diastolic_blood_pressure",
        Scale("mmHg", (10, 200), 70),
        harm="low",
    ),
    _known(
        "Mean arterial pressure",
        "map mbp meanbp mean_bp mean_arterial_pressure mean_blood_pressure",
        Scale("mmHg", (10, 220), 85, unsafe=65, target=(65, 110)),
        harm="low",
    ),
    _known(
        "Respiratory rate",
        "rr resp_rate resprate respiratory_rate",
        Scale("/min", (2, 80), 16),
        harm="both",
    ),
    _known(
        "Oxygen saturation",
        "spo2 sao2 o2sat o2_sat sat oxygen_saturation",
        Scale("%", (30, 100), 98, unsafe=92, target=(92, 100)),
        Scale("fraction", (0.3, 1), 0.98, unsafe=0.92, target=(0.92, 1)),
        harm="low",
    ),
    _known(
        "Temperature",
        "temp temperature body_temp body_temperature",
        Scale("C", (27, 44), 37),
        Scale("F", (80, 112), 98.6),
        harm="both",
    ),
    _known(
        "Inspired oxygen",
        "fio2",
        Scale("fraction", (0.2, 1), 0.21),
        Scale("%", (20, 100), 21),
        harm="high",
    ),
    _known("Glasgow coma scale", "gcs glasgow", Scale("points", (3, 15), 15), harm="low"),
    _known(
        "Lactate",
        "lactate lac arterial_lactate",
        Scale("mmol/L", (0.1, 40), 1),
        Scale("mg/dL", (1, 360), 9),
        harm="high",
        transform="log",
    ),
    _known(
        "Glucose",
        "glucose bg gluc blood_glucose blood_sugar cgm sgv",
        Scale("mg/dL", (10, 1500), 100, unsafe=70, target=(70, 180)),
        Scale("mmol/L", (0.5, 85), 5.5, unsafe=3.9, target=(3.9, 10)),
        harm="both",
        transform="log",
    ),
    _known("HbA1c", "hba1c a1c", Scale("%", (3, 20), 5.4), Scale("mmol/mol", (10, 200), 36)),
    _known(
        "Ketones",
        "ketones ketone bhb",
        Scale("mmol/L", (0, 20), 0.2),
        harm="high",
        transform="sqrt",
    ),
    _known(
        "Creatinine",
        "creatinine creat cr scr",
        Scale("mg/dL", (0.05, 30), 0.9),
        Scale("umol/L", (5, 2700), 80),
        harm="high",
        transform="log",
    ),
    _known(
        "Urea",
        "bun urea urea_nitrogen",
        Scale("mg/dL", (1, 300), 14),
        Scale("mmol/L", (0.3, 110), 5),
        harm="high",
        transform="log",
    ),
    _known(
        "Bilirubin",
        "bilirubin bili total_bili bilirubin_total",
        Scale("mg/dL", (0.05, 80), 0.7),
        Scale("umol/L", (0.8, 1400), 12),
        harm="high",
        transform="log",
    ),
    _known(
        "Platelets",
        "platelets plt platelets_count platelet_count",
        Scale("10^9/L", (1, 2500), 230),
        harm="low",
        transform="log",
    ),
    _known(
        "White cells",
        "wbc wcc wbc_count leukocytes white_cells",
        Scale("10^9/L", (0.05, 500), 8),
        harm="both",
        transform="log",
    ),
    _known(
        "Haemoglobin",
        "hb hgb hemoglobin haemoglobin",
        Scale("g/dL", (2, 25), 14),
        Scale("g/L", (20, 250), 140),
        harm="low",
    ),
    _known("Sodium", "sodium na", Scale("mmol/L", (90, 200), 140), harm="both"),
    _known("Potassium", "potassium k", Scale("mmol/L", (1, 12), 4.2), harm="both"),
    _known("Chloride", "chloride cl", Scale("mmol/L", (60, 160), 103), harm="both"),
    _known("Bicarbonate", "bicarbonate hco3 bicarb", Scale("mmol/L", (1, 60), 24), harm="both"),
    _known(
        "Calcium",
        "calcium ca",
        Scale("mg/dL", (2, 20), 9.2),
        Scale("mmol/L", (0.5, 5), 2.3),
        harm="both",
    ),
    _known(
        "Magnesium",
        "magnesium mg",
        Scale("mg/dL", (0.3, 12), 2),
        Scale("mmol/L", (0.1, 5), 0.85),
        harm="both",
    ),
    _known(
        "Albumin", "albumin alb", Scale("g/dL", (0.5, 7), 4), Scale("g/L", (5, 70), 40), harm="low"
    ),
    _known("Arterial pH", "ph arterial_ph", Scale("1", (6.5, 7.9), 7.4), harm="both"),
    _known(
        "Arterial oxygen pressure",
        "pao2 po2",
        Scale("mmHg", (15, 750), 95),
        Scale("kPa", (2, 100), 12.7),
        harm="low",
        transform="log",
    ),
    _known(
        "Arterial carbon dioxide pressure",
        "paco2 pco2",
        Scale("mmHg", (5, 220), 40),
        Scale("kPa", (0.7, 29), 5.3),
        harm="both",
    ),
    _known(
        "PaO2/FiO2",
        "pf_ratio pao2_fio2 p_f_ratio",
        Scale("mmHg", (20, 800), 450),
        harm="low",
        transform="log",
    ),
    _known("INR", "inr", Scale("1", (0.5, 25), 1), harm="high", transform="log"),
    _known("Partial thromboplastin time", "ptt aptt", Scale("s", (10, 300), 30), transform="log"),
    _known("C-reactive protein", "crp", Scale("mg/L", (0, 800), 3), harm="high", transform="sqrt"),
    _known("SOFA score", "sofa", Scale("points", (0, 24), 0), harm="high"),
    _known("SIRS score", "sirs", Scale("points", (0, 4), 0), harm="high"),
    _known("Sedation (RASS)", "rass", Scale("points", (-5, 4), 0), harm="both"),
    _known("Pain score", "pain pain_score nrs", Scale("points", (0, 10), 0), harm="high"),
    _known("Central venous pressure", "cvp", Scale("mmHg", (-10, 60), 6), harm="both"),
    _known("Intracranial pressure", "icp", Scale("mmHg", (-10, 120), 10), harm="high"),
    _known("PEEP", "peep", Scale("cmH2O", (0, 40), 5)),
    _known("End-tidal carbon dioxide", "etco2", Scale("mmHg", (2, 150), 38), harm="both"),
    _known(
        "Urine",
        "urine urine_output uo urine_ml output_4hourly",
        Scale("mL", (0, 6000)),
        harm="low",
        transform="sqrt",
        statistic="sum",
    ),
    _known(
        "Carbohydrates",
        "carbs carb carbohydrates cho",
        Scale("g", (0, 500)),
        transform="sqrt",
        statistic="sum",
    ),
)

DOSES = (
    KnownDose("Insulin", ("insulin", "bolus_insulin", "basal"), "U"),
    KnownDose(
        "Intravenous fluid",
        ("iv_fluid", "iv_fluids", "fluid", "fluids", "crystalloid", "input_4hourly", "iv_input"),
        "mL",
    ),
    KnownDose(
        "Vasopressor",
        (
            "vasopressor",
            "vasopressors",
            "vaso",
            "max_dose_vaso",
            "norepinephrine",
            "noradrenaline",
            "norepi",
            "levophed",
            "pressor",
        ),
        "ug/kg/min",
        "max",
    ),
    KnownDose("Heparin", ("heparin",), "U"),
    KnownDose("Propofol", ("propofol",), "mg"),
    KnownDose("Morphine", ("morphine",), "mg"),
    KnownDose("Fentanyl", ("fentanyl",), "ug"),
    KnownDose("Midazolam", ("midazolam",), "mg"),
    KnownDose("Furosemide", ("furosemide", "frusemide", "lasix", "diuretic"), "mg"),
    KnownDose("Dobutamine", ("dobutamine",), "ug/kg/min", "max"),
    KnownDose("Hydrocortisone", ("hydrocortisone", "steroid", "steroids"), "mg"),
    KnownDose("Levodopa", ("levodopa",), "mg"),
    KnownDose("Warfarin", ("warfarin",), "mg"),
    KnownDose("Epoetin", ("epo", "epoetin", "esa"), "U"),
    KnownDose("Dose", ("dose",), "1"),
)

# What a name ends with -> unit; the longest that fits counts.
SUFFIXES = {
    "mcg_kg_min": "ug/kg/min",
    "ug_kg_min": "ug/kg/min",
    "mg_kg_h": "mg/kg/h",
    "ml_kg_h": "mL/kg/h",
    "mmol_mol": "mmol/mol",
    "umol_l": "umol/L",
    "mmol_l": "mmol/L",
    "mmoll": "mmol/L",
    "meq_l": "mmol/L",
    "mg_dl": "mg/dL",
    "mgdl": "mg/dL",
    "g_dl": "g/dL",
    "g_l": "g/L",
    "mg_l": "mg/L",
    "u_h": "U/h",
    "ml_h": "mL/h",
    "mg_h": "mg/h",
    "kg_m2": "kg/m2",
    "mmhg": "mmHg",
    "kpa": "kPa",
    "cmh2o": "cmH2O",
    "units": "U",
    "unit": "U",
    "iu": "U",
    "u": "U",
    "percent": "%",
    "pct": "%",
    "fraction": "fraction",
    "frac": "fraction",
    "bpm": "/min",
    "per_min": "/min",
    "celsius": "C",
    "fahrenheit": "F",
    "degc": "C",
    "degf": "F",
    "c": "C",
    "f": "F",
    "years": "years",
    "yrs": "years",
    "y": "years",
    "days": "days",
    "lbs": "lb",
    "lb": "lb",
    "kg": "kg",
    "cm": "cm",
    "mg": "mg",
    "mcg": "ug",
    "ug": "ug",
    "g": "g",
    "ml": "mL",
    "points": "points",
    "score": "points",
    "s": "s",
}
_SHORT = 3


def slug(name: str) -> str:
    """A foreign name as a name of ours.

    >>> slug("O2 Sat (%)"), slug("o:HR"), slug("meanBP mmHg")
    ('o2_sat', 'hr', 'meanbp_mmhg')
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return re.sub(r"^[oma]_(?=\w{2})", "", plain) if ":" in name else plain


def split_unit(name: str) -> tuple[str, str | None]:
    """A name without its unit, and the unit.

    >>> split_unit("glucose_mmol_l"), split_unit("insulin_units"), split_unit("sofa")
    (('glucose', 'mmol/L'), ('insulin', 'U'), ('sofa', None))
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith("_" + suffix):
            return name.removesuffix("_" + suffix), SUFFIXES[suffix]
    return name, None


def _named(name: str, names: tuple[str, ...]) -> bool:
    bare = split_unit(name)[0]
    return any(
        known in (bare, name)
        or (len(known) > _SHORT and (bare.startswith(known + "_") or bare.endswith("_" + known)))
        for known in names
    )


def find_column(name: str) -> Known | None:
    """The clinical column that a name of ours means."""
    return next((known for known in COLUMNS if _named(name, known.names)), None)


def find_dose(name: str) -> KnownDose | None:
    """The dose that a name of ours means."""
    return next((known for known in DOSES if _named(name, known.names)), None)
