"""Mistakes in doses, source, reward, constraints, hazards, protocol, guardian and subgroups."""

from tests.spec.edit import BASE, Edit

PROTOCOL = """protocol:
  label: Fluid, then oxygen
  reference: a made-up rule
  doses:
    fluid:
      - {when: map < 65 and lactate > 2, dose: 500}
      - {when: map < 65, change: 250}
      - {when: map > 90, change: -250}
      - {change: 0}
    oxygen:
      - {when: age > 70, dose: 2}
      - {dose: 1}
"""


def protocol_with(
    rule: str, old: str, new: str, path: str, words: str, following: tuple[str, ...] = ()
) -> Edit:
    """A protocol with a mistake, in a file that has none."""
    assert PROTOCOL.count(old) == 1
    wrong = PROTOCOL.replace(old, new) + "guardian:\n"
    return Edit(rule, "guardian:\n", wrong, f"protocol.{path}", words, following)


EDITS = {
    # doses
    "no bounds": Edit("bounds_missing", "    bounds: [0, 2000]\n", "", "actions.fluid", "`bounds:"),
    "bounds that fall": Edit(
        "range_order", "[0, 2000]", "[2000, 0]", "actions.fluid.bounds", "does not rise"
    ),
    "a negative dose": Edit(
        "dose_negative", "[0, 2000]", "[-10, 2000]", "actions.fluid.bounds", "below 0"
    ),
    "no dose outside the bounds": Edit(
        "zero_not_allowed", "[0, 2000]", "[10, 2000]", "actions.fluid.zero_inflated", "start at 10"
    ),
    "a least dose above the largest": Edit(
        "min_dose_above", "min_dose: 50", "min_dose: 2050", "actions.fluid.min_dose", "above"
    ),
    "an increment above the range": Edit(
        "increment_above",
        "increment: 50",
        "increment: 5000",
        "actions.fluid.increment",
        "range of 2000",
        following=("change_below_increment",),
    ),
    "a least dose off the grid": Edit(
        "min_dose_off_grid", "min_dose: 50", "min_dose: 70", "actions.fluid.min_dose", "multiple"
    ),
    "a change below the increment": Edit(
        "change_below_increment",
        "max_change: 500",
        "max_change: 20",
        "actions.fluid.max_change",
        "never",
    ),
    "a change below the least dose": Edit(
        "change_below_min", "min_dose: 50", "min_dose: 550", "actions.fluid.max_change", "started"
    ),
    "an ordinal dose with bounds": Edit(
        "ordinal_with_grid",
        "levels: [none, low, high]",
        "levels: [none, low, high]\n    bounds: [0, 2]",
        "actions.oxygen.bounds",
        "levels alone",
    ),
    "an ordinal dose without levels": Edit(
        "levels_missing", "    levels: [none, low, high]\n", "", "actions.oxygen.levels", "found 0"
    ),
    "a continuous dose with levels": Edit(
        "levels_not_for", "increment: 50", "levels: [low, high]", "actions.fluid.levels", "ordinal"
    ),
    # source
    "a table without a path": Edit("path_missing", "  path: demo.csv\n", "", "source", "`path:`"),
    "a simulator with a path": Edit(
        "simulator_with_table", "kind: table", "kind: simulator", "source.path", "remove it"
    ),
    "an unknown name of ours": Edit(
        "source_column", "    map: MeanBP", "    mapp: MeanBP", "source.columns.mapp", "mean `map`"
    ),
    "names turned round": Edit(
        "source_column",
        "    map: MeanBP",
        "    MeanBP: map",
        "source.columns.MeanBP",
        "`our name: their name`",
    ),
    "a foreign column with two meanings": Edit(
        "source_twice",
        "    map: MeanBP",
        "    map: SpO2",
        "source.columns.map",
        "as `spo2` already",
    ),
    "a foreign column that is read anyway": Edit(
        "source_twice", "    map: MeanBP", "    map: lactate", "source.columns.map", "own name"
    ),
    "an empty foreign name": Edit(
        "source_empty", "    map: MeanBP", "    map: ''", "source.columns.map", "empty"
    ),
    "another cohort chosen": Edit(
        "override_cohort", "  seed: 3", "  cohort: sepsis", "overrides.cohort", "remove it"
    ),
    # outcome and reward
    "two names for death": Edit(
        "outcome_column",
        "    spo2: SpO2\n",
        "    spo2: SpO2\n    died: mort90\n",
        "outcome.death",
        "reads `mort90`; keep one",
    ),
    "no words on censoring": Edit(
        "outcome_empty", "censoring: transfer", "censoring: ''", "outcome.censoring", "in words"
    ),
    "an empty reward": Edit(
        "reward_empty",
        BASE[BASE.index("  terminal:") : BASE.index("  shaping:")],
        "",
        "reward",
        "`terminal`, `step` or both",
    ),
    "a reward at the end without an outcome": Edit(
        "terminal_without_outcome",
        BASE[BASE.index("outcome:") : BASE.index("reward:")],
        "",
        "reward.terminal",
        "`outcome:`",
    ),
    "death rewarded": Edit(
        "terminal_order", "death: -1", "death: 1", "reward.terminal.death", "must be the least"
    ),
    "a reward of an unknown column": Edit(
        "expression_column", "-0.01 * lactate", "-0.01 * lactat", "reward.step", "mean `lactate`"
    ),
    "a reward of a dose": Edit(
        "expression_dose", "-0.01 * lactate", "-0.01 * fluid", "reward.step", "remove fluid"
    ),
    "a constant shaping": Edit(
        "expression_constant", "map / 100", "1 / 100", "reward.shaping", "names no column"
    ),
    # constraints and hazards
    "an expression that cannot be read": Edit(
        "expression",
        "spo2 < 92",
        "spo2 = 92",
        "constraints.hypoxia.expression",
        "at character 6: `=` is not part of an expression",
    ),
    "a constraint on an unknown column": Edit(
        "expression_column",
        "spo2 < 92",
        "spo3 < 92",
        "constraints.hypoxia.expression",
        "mean `spo2`",
    ),
    "a constraint that is a number": Edit(
        "expression_number", "spo2 < 92", "spo2 - 92", "constraints.hypoxia.expression", "compare"
    ),
    "a constraint on a dose": Edit(
        "expression_dose",
        "spo2 < 92",
        "spo2 < 92 and fluid > 0",
        "constraints.hypoxia.expression",
        "no dose is known",
    ),
    "a constant constraint": Edit(
        "expression_constant", "spo2 < 92", "1 < 2", "constraints.hypoxia.expression", "no column"
    ),
    "a constraint that nothing can change": Edit(
        "constraint_static",
        "spo2 < 92",
        "age > 80",
        "constraints.hypoxia.expression",
        "no dose could help",
    ),
    "a constraint in another unit": Edit(
        "number_outside",
        "spo2 < 92",
        "spo2 < 0.92",
        "constraints.hypoxia.expression",
        "is the unit right?",
    ),
    "a number first, in another unit": Edit(
        "number_outside",
        "spo2 < 92",
        "0.92 > spo2",
        "constraints.hypoxia.expression",
        "`spo2 < 0.92` is always the same",
    ),
    "no limit": Edit(
        "limit_empty",
        "{relative: 0.9, margin: 0}",
        "{margin: 0}",
        "constraints.hypoxia.limit",
        "`relative`, `absolute`",
    ),
    "a margin to nothing": Edit(
        "margin_alone",
        "{absolute: 0.05}",
        "{absolute: 0.05, margin: 0.1}",
        "constraints.oliguria.limit.margin",
        "`relative` is missing",
    ),
    "a limit below 0": Edit(
        "limit_negative",
        "{relative: 0.9, margin: 0}",
        "{relative: 0.9, margin: -1}",
        "constraints.hypoxia.limit.margin",
        "below 0",
    ),
    "a limit of everything": Edit(
        "margin_large",
        "{relative: 0.9, margin: 0}",
        "{relative: 0.9, margin: 5}",
        "constraints.hypoxia.limit.margin",
        "at most 1",
    ),
    "a limit in percent": Edit(
        "out_of_range",
        "{absolute: 0.05}",
        "{absolute: 5}",
        "constraints.oliguria.limit.absolute",
        "at most 1",
    ),
    "a hazard without a dose": Edit(
        "hazard_without_dose",
        "map < 55 and fluid == 0",
        "map < 55",
        "hazards.dry.expression",
        "must name a dose",
    ),
    "a hazard on an unknown column": Edit(
        "expression_column",
        "map < 55 and fluid == 0",
        "mapp < 55 and fluid == 0",
        "hazards.dry.expression",
        "mean `map`",
    ),
    "a hazard beyond the bounds": Edit(
        "number_outside",
        "map < 55 and fluid == 0",
        "map < 55 and fluid > 2000",
        "hazards.dry.expression",
        "always the same",
    ),
    # protocol
    "a protocol of an unknown dose": protocol_with(
        *("protocol_dose", "    fluid:", "    fluids:", "doses.fluids", "mean `fluid`"),
        following=("protocol_absent",),
    ),
    "a protocol that forgets a dose": protocol_with(
        "protocol_absent",
        PROTOCOL[PROTOCOL.index("    oxygen") :],
        "",
        "doses",
        "nothing is said of oxygen",
    ),
    "a line with a dose and a change": protocol_with(
        *("protocol_line", "change: 250}", "change: 250, dose: 250}", "doses.fluid[1]"),
        "one of the two",
    ),
    "a protocol that says nothing of some": protocol_with(
        *("protocol_open", "- {dose: 1}", "- {when: age > 50, dose: 1}", "doses.oxygen[1].when"),
        "if no line holds",
    ),
    "a line that never counts": protocol_with(
        *("protocol_dead", "{when: map > 90, ", "{", "doses.fluid[2]"), "never count"
    ),
    "a protocol beyond the bounds": protocol_with(
        *("protocol_bounds", "dose: 500}", "dose: 50000}", "doses.fluid[0].dose"),
        "not inside the bounds",
    ),
    "a protocol between two levels": protocol_with(
        *("protocol_order", "- {dose: 1}", "- {dose: 0.6}", "doses.oxygen[1].dose"),
        "not a whole level",
    ),
    "a protocol below the smallest dose": protocol_with(
        *("protocol_order", "dose: 500}", "dose: 10}", "doses.fluid[0].dose", "it would be 0"),
    ),
    "a protocol's change between two orders": protocol_with(
        *("protocol_order", "change: 250}", "change: 33.3}", "doses.fluid[1].change", "multiple")
    ),
    "a protocol's change beyond everything": protocol_with(
        *("protocol_bounds", "change: -250}", "change: -1e6}", "doses.fluid[2].change", "bound")
    ),
    "a dose without a line": Edit(
        "protocol_empty",
        "guardian:\n",
        PROTOCOL.partition("    fluid:")[0] + "    fluid: []\n    oxygen: [{dose: 0}]\nguardian:\n",
        "protocol.doses.fluid",
        "at least one line",
    ),
    "a protocol on an unknown column": protocol_with(
        *("expression_column", "age > 70", "aeg > 70", "doses.oxygen[0].when", "mean `age`")
    ),
    "a protocol that asks for the dose it gives": protocol_with(
        *("expression_dose", "map > 90", "fluid > 90", "doses.fluid[2].when", "chooses the dose")
    ),
    # guardian and subgroups
    "an unknown column of the guardian": Edit(
        "guardian_column",
        "[age, spo2, map]",
        "[age, spo2, mapp]",
        "guardian.columns[2]",
        "mean `map`",
    ),
    "a column of the guardian twice": Edit(
        "guardian_twice", "[age, spo2, map]", "[age, spo2, age]", "guardian.columns[2]", "twice"
    ),
    "a dose in the guardian": Edit(
        "guardian_dose",
        "[age, spo2, map]",
        "[age, spo2, fluid]",
        "guardian.columns[2]",
        "come on top",
    ),
    "an empty guardian": Edit(
        "guardian_empty", "[age, spo2, map]", "[]", "guardian.columns", "at least one"
    ),
    "too many columns for the guardian": Edit(
        "guardian_many",
        "[age, spo2, map]",
        f"[{', '.join(['age'] * 17)}]",
        "guardian.columns",
        "17",
        following=("guardian_twice",),
    ),
    "a subgroup of an unknown column": Edit(
        "subgroup_column", "column: age", "column: aeg", "subgroups.age.column", "mean `age`"
    ),
    "a subgroup of a dose": Edit(
        "subgroup_column", "column: age", "column: fluid", "subgroups.age.column", "is a dose"
    ),
    "cuts that do not rise": Edit(
        "cuts_order", "[50, 65, 80]", "[50, 80, 65]", "subgroups.age.cuts", "must rise"
    ),
    "cuts in another unit": Edit(
        "cuts_outside",
        "[50, 65, 80]",
        "[50, 65, 20000]",
        "subgroups.age.cuts",
        "20000 is not inside",
    ),
    "cuts of a binary": Edit(
        "cuts_not_for",
        "column: female",
        "column: female\n    cuts: [0.5]",
        "subgroups.sex.cuts",
        "each value is a group",
    ),
    "no cuts of a number": Edit(
        "cuts_missing", "    cuts: [50, 65, 80]\n", "", "subgroups.age", "needs `cuts`"
    ),
}
