"""A page for one stay: its course, what was given, what is recommended, where it deferred.

Called by the command line, which writes it under private/ alone: it shows a single patient.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from ogsrl.evaluation.quantities import VALUE
from ogsrl.figures.query import stay_course
from ogsrl.figures.style import save_svg
from ogsrl.query.answer import DEFER, column_of
from ogsrl.query.model import Model
from ogsrl.query.request import STEP


def stay_page(model: Model, rows: pd.DataFrame, answers: pd.DataFrame, name: str) -> str:
    """HTML that needs nothing from the network.

    Args:
        model: Who was asked.
        rows: Of one stay, as they were sent.
        answers: To these rows, in their order.
        name: Of the stay.
    """
    order = np.argsort(rows[STEP].to_numpy())
    rows, answers = rows.iloc[order], answers.iloc[order].reset_index(drop=True)
    cohort = model.cohort
    hours = [float(step) * cohort.time_step_hours for step in rows[STEP]]
    doses = {
        name: {
            "label": f"{action.label} [{action.unit}]",
            "given": _floats(rows[name]),
            "recommended": _floats(answers[f"dose_{name}"]),
        }
        for name, action in cohort.actions.items()
    }
    charted = {
        name: {"label": f"{column.label} [{column.unit}]", "values": _floats(rows[name])}
        for name, column in cohort.observations.items()
        if name in cohort.guardian.columns
    }
    deferred = [verdict == DEFER for verdict in answers["verdict"]]
    picture = io.StringIO()
    save_svg(stay_course(hours, doses, charted, deferred), picture)
    svg = picture.getvalue()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ogsrl.query"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("stay.html.j2").render(
        stay=name,
        cohort=cohort,
        about=model.about,
        picture=Markup(svg[svg.index("<svg") :]),
        steps=[_step(model, hour, rows.iloc[i], answers.iloc[i]) for i, hour in enumerate(hours)],
        expected=_labels(model),
        value=model.predictions is not None and VALUE in model.predictions.names,
        deferred=sum(deferred),
    )


def _labels(model: Model) -> list[str]:
    """What is predicted, in words."""
    predictions = model.predictions
    if predictions is None:
        return []
    labels = {f"cost:{name}": one.label for name, one in model.cohort.constraints.items()}
    words = {"mortality": "Dies", "value": "Value"}
    return [words.get(name) or labels[name] for name in predictions.names]


def _step(model: Model, hour: float, row: Any, answer: Any) -> dict[str, Any]:
    """One line of the table."""
    actions = model.cohort.actions
    names = () if model.predictions is None else model.predictions.names
    return {
        "hour": f"{hour:g}",
        "doses": [
            (_dose(row[name]), _dose(answer[f"dose_{name}"]), action.unit)
            for name, action in actions.items()
        ],
        "verdict": answer["verdict"],
        "reason": answer["reason"],
        "expected": [
            tuple(
                _interval(q, [answer[f"{prefix}{column_of(q)}{end}"] for end in ("", "_lo", "_hi")])
                for prefix in ("", "clinician_")
            )
            for q in names
        ],
        "similar": answer["n_similar"],
    }


def _floats(column: pd.Series) -> list[float]:
    return [math.nan if pd.isna(x) else float(x) for x in column]


def _dose(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{float(value):g}"


def _interval(quantity: str, told: Sequence[Any]) -> str:
    """A share in percent, a value in the units of its rewards.

    >>> _interval("cost:hypoxia", [0.12, 0.1, 0.15]), _interval("value", [-3.2, -4, -2])
    ('12.0% (10.0% to 15.0%)', '-3.2 (-4 to -2)')
    """
    if any(pd.isna(one) for one in told):
        return "not known"
    write = _plain if quantity == VALUE else "{:.1%}".format
    value, low, high = (write(float(one)) for one in told)
    return f"{value} ({low} to {high})"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
