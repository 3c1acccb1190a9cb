"""Mistakes to plant in demo.yaml, each with the rule, key and words that must report it."""

from pathlib import Path
from typing import NamedTuple

BASE = (Path(__file__).parent / "demo.yaml").read_text(encoding="utf-8")


class Edit(NamedTuple):
    """One planted mistake: the rule that finds it, what is edited, and what must be said."""

    rule: str
    old: str
    new: str
    path: str
    words: str
    following: tuple[str, ...] = ()  # rules that the same edit breaks too


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
    # how the file is written
    "a key twice": Edit(
        "duplicate_key", "version: 1\n", "version: 1\nversion: 2\n", "version", "first in line 2"
    ),
    "a key that is a number": Edit(
        "key_not_text", "  seed: 3\n", "  seed: 3\n  7: 1\n", "overrides", "`7` is not a text"
    ),
    "yes for true": Edit(
        "yaml_boolean",
        "zero_inflated: true # fluid",
        "zero_inflated: yes # fluid",
        "actions.fluid.zero_inflated",
        "write true",
    ),
    "no as a level": Edit(
        "yaml_boolean", "[sinus, af]", "[no, af]", "observations.rhythm.levels[0]", "quote the text"
    ),
    "octal": Edit(
        "yaml_number", "max_steps: 18", "max_steps: 018", "max_steps", "write plain digits"
    ),
    "sexagesimal": Edit(
        "yaml_number", "max_steps: 18", "max_steps: 1:30", "max_steps", "write plain digits"
    ),
    "infinity": Edit(
        "not_finite", "max_change: 500", "max_change: .inf", "actions.fluid.max_change", "finite"
    ),
    "not a number": Edit(
        "not_finite", "normal: 98", "normal: .nan", "observations.spo2.normal", "finite"
    ),
    "a tag": Edit(
        "tag", "path: demo.csv", "path: !!python/name:os.system x", "source.path", "not allowed"
    ),
    "nothing after the colon": Edit(
        "nothing_written", "  seed: 3", "  seed: 3\ndescription:", "description", "nothing"
    ),
    # keys and types
    "an unknown key": Edit(
        "unknown_key", "harm: low # spo2", "hram: low", "observations.spo2.hram", "mean `harm`"
    ),
    "an unknown section": Edit(
        "unknown_key", "hazards:\n", "hazzards:\n", "hazzards", "mean `hazards`"
    ),
    "a missing key": Edit(
        "missing_key", "discount: 0.99\n", "", "", "`discount` is missing: e.g. 0.99"
    ),
    "a missing unit": Edit(
        "missing_key", "    unit: years\n", "", "static.age", "`unit` is missing"
    ),
    "text for a number": Edit(
        "number_needed", "discount: 0.99", "discount: high", "discount", "found the text"
    ),
    "a decimal comma": Edit(
        "number_needed", "discount: 0.99", "discount: 0,99", "discount", "decimals with a point"
    ),
    "a number in quotes": Edit(
        "quoted_number", "time_step_hours: 4", "time_step_hours: '4'", "time_step_hours", "quotes"
    ),
    "a truth value for a number": Edit(
        "number_needed", "min_dose: 50", "min_dose: true", "actions.fluid.min_dose", "found true"
    ),
    "a number for text": Edit(
        "text_needed", 'unit: "1" # female', "unit: 1", "static.female.unit", "put it in quotes"
    ),
    "a fraction for a whole number": Edit(
        "whole_number_needed", "version: 1", "version: 1.5", "version", "whole number"
    ),
    "text for a truth value": Edit(
        "truth_needed",
        "zero_inflated: true # fluid",
        "zero_inflated: often",
        "actions.fluid.zero_inflated",
        "true or false",
    ),
    "text for a list": Edit(
        "list_needed", "levels: [none, low, high]", "levels: none", "actions.oxygen.levels", "list"
    ),
    "text for a section": Edit(
        "section_needed", "overrides:\n  seed: 3", "overrides: none", "overrides", "keys and values"
    ),
    "one number for a range": Edit(
        "pair_needed", "[18, 110]", "[18]", "static.age.plausible", "found 1"
    ),
    "three numbers for a range": Edit(
        "pair_needed", "[18, 110]", "[18, 65, 110]", "static.age.plausible", "found 3"
    ),
    "an unknown value": Edit(
        "unknown_value",
        "transform: log",
        "transform: logg",
        "observations.lactate.transform",
        "`log`",
    ),
    "an unknown statistic": Edit(
        "unknown_value", "statistic: sum", "statistic: total", "actions.fluid.statistic", "sum"
    ),
    "an unknown source": Edit(
        "unknown_value", "kind: table", "kind: tabel", "source.kind", "`table`"
    ),
    "a discount above 1": Edit("out_of_range", "0.99", "1.5", "discount", "at most 1"),
    "no step at all": Edit(
        "out_of_range", "max_steps: 18", "max_steps: 0", "max_steps", "at least 1"
    ),
    "a time step of 0": Edit(
        "out_of_range", "time_step_hours: 4", "time_step_hours: 0", "time_step_hours", "above 0"
    ),
    "a share above 1": Edit(
        "out_of_range",
        "max_missing: 0.9",
        "max_missing: 90",
        "observations.lactate.max_missing",
        "1",
    ),
    "an empty section": Edit(
        "section_empty",
        BASE[BASE.index("actions:") : BASE.index("outcome:")],
        "actions: {}\n",
        "actions",
        "at least one",
        following=("cumulative_unknown", "expression_column"),
    ),
    # names
    "a name unlike the file's": Edit(
        "name_not_file", "name: demo", "name: glucose", "name", "a file called demo"
    ),
    "a name with capitals": Edit(
        "name_pattern", "name: demo", "name: Demo-1", "name", "lower-case"
    ),
    "a reserved column": Edit(
        "reserved_name",
        "observations:\n",
        "observations:\n  hours: {unit: h, plausible: [0, 99]}\n",
        "observations.hours",
        "own column",
    ),
    "a column with a space": Edit(
        "bad_name",
        "observations:\n",
        "observations:\n  Heart rate: {unit: /min, plausible: [20, 250]}\n",
        "observations.Heart rate",
        "`heart_rate`",
    ),
    "a column with a very long name": Edit(
        "bad_name",
        "observations:\n",
        f"observations:\n  {'x' * 70}: {{unit: m, plausible: [0, 9]}}\n",
        "observations." + "x" * 70,
        "70 characters",
    ),
    "a constraint that cannot name a column": Edit(
        "bad_name", "  hypoxia:\n", "  low-oxygen:\n", "constraints.low-oxygen", "`low_oxygen`"
    ),
    "a column called and": Edit(
        "grammar_word",
        "observations:\n",
        "observations:\n  and: {unit: m, plausible: [0, 9]}\n",
        "observations.and",
        "word of expressions",
    ),
    "a column that looks like a cost": Edit(
        "cost_prefix",
        "observations:\n",
        "observations:\n  cost_x: {unit: m, plausible: [0, 9]}\n",
        "observations.cost_x",
        "kept for constraints",
    ),
    "a column with two roles": Edit(
        "same_name",
        "observations:\n",
        "observations:\n  age: {unit: years, plausible: [0, 120]}\n",
        "observations.age",
        "stands in static too",
    ),
    # columns
    "an empty unit": Edit(
        "unit_empty", 'unit: "%"', 'unit: " "', "observations.spo2.unit", '"1" for'
    ),
    "a range that falls": Edit(
        "range_order", "[40, 100]", "[100, 40]", "observations.spo2.plausible", "[lowest, highest]"
    ),
    "no range": Edit(
        "plausible_missing", "    plausible: [18, 110]\n", "", "static.age", "`plausible:"
    ),
    "a range for a binary": Edit(
        "plausible_not_for",
        "kind: binary # female",
        "kind: binary\n    plausible: [0, 1]",
        "static.female.plausible",
        "has no range",
    ),
    "a logarithm of 0": Edit(
        "transform_range",
        "[0.2, 30]",
        "[0, 30]",
        "observations.lactate.transform",
        "above 0, found 0",
    ),
    "a root of a negative number": Edit(
        "transform_range", "[0, 4000]", "[-5, 4000]", "observations.urine.transform", "at least 0"
    ),
    "a transformed binary": Edit(
        "transform_not_for",
        "kind: binary # female",
        "kind: binary\n    transform: sqrt",
        "static.female.transform",
        "is not transformed",
    ),
    "a normal value in another unit": Edit(
        "normal_outside", "normal: 98", "normal: 0.98", "observations.spo2.normal", "unit right?"
    ),
    "a normal value of a binary": Edit(
        "normal_outside",
        "kind: binary # female",
        "kind: binary\n    normal: 0.4",
        "static.female.normal",
        "0 to 1",
    ),
    "no normal value to fill with": Edit(
        "normal_missing",
        "missing: median # map",
        "missing: normal",
        "observations.map.missing",
        "normal",
    ),
    "a share of gaps where there are none": Edit(
        "never_with_share",
        "missing: never # age",
        "missing: never\n    max_missing: 0.2",
        "static.age.max_missing",
        "found 0.2; write 0",
    ),
    "the median of codes": Edit(
        "median_not_for",
        "missing: carry # rhythm",
        "missing: median",
        "observations.rhythm.missing",
        "codes",
    ),
    "the mean of codes": Edit(
        "statistic_not_for",
        "missing: carry # rhythm",
        "statistic: mean",
        "observations.rhythm.statistic",
        "mean of codes",
    ),
    "a categorical without levels": Edit(
        "levels_missing", "    levels: [sinus, af]\n", "", "observations.rhythm.levels", "found 0"
    ),
    "one level": Edit(
        "levels_missing", "[sinus, af]", "[sinus]", "observations.rhythm.levels", "found 1"
    ),
    "a level twice": Edit(
        "levels_duplicate", "[sinus, af]", "[sinus, af, af]", "observations.rhythm.levels", ": af"
    ),
    "a level without a name": Edit(
        "level_empty", "[sinus, af]", "[sinus, '']", "observations.rhythm.levels", "no name"
    ),
    "levels of a number": Edit(
        "levels_not_for",
        "harm: low # spo2",
        "levels: [low, high]",
        "observations.spo2.levels",
        "categorical",
    ),
    "the sum of an unknown dose": Edit(
        "cumulative_unknown",
        "cumulative_of: fluid",
        "cumulative_of: fluids",
        "observations.fluid_total.cumulative_of",
        "mean `fluid`",
    ),
    "the sum of levels": Edit(
        "cumulative_ordinal",
        "cumulative_of: fluid",
        "cumulative_of: oxygen",
        "observations.fluid_total.cumulative_of",
        "do not add up",
    ),
    "two sums of one dose": Edit(
        "cumulative_twice",
        "observations:\n",
        "observations:\n"
        "  all_fluid: {unit: mL, plausible: [0, 9], missing: never, cumulative_of: fluid}\n",
        "observations.fluid_total.cumulative_of",
        "`all_fluid` is the sum",
    ),
    "a sum with gaps": Edit(
        "cumulative_missing",
        "missing: never # total",
        "missing: carry",
        "observations.fluid_total.missing",
        "always known",
    ),
    "a sum not yet known": Edit(
        "cumulative_unknown_yet",
        "missing: never # total",
        "missing: never\n    known_before_dose: false",
        "observations.fluid_total.known_before_dose",
        "known before",
    ),
    "a sum that cannot be 0": Edit(
        "cumulative_range",
        "[0, 40000]",
        "[5, 40000]",
        "observations.fluid_total.plausible",
        "starts at 0",
    ),
    "a binary sum": Edit(
        "cumulative_kind",
        "    plausible: [0, 40000]\n",
        "    kind: binary\n",
        "observations.fluid_total.kind",
        "is numeric",
    ),
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
BROKEN_FORM = {
    "syntax": ("name: demo\nversion: [1", "not YAML"),
    "tab": ("name: demo\nstatic:\n\tage: 1\n", "indent with spaces"),
    "character": ("name: \x00demo\n", "UTF-8"),
    "documents": (BASE + "---\nname: other\n", "one file, one cohort"),
    "empty": ("# nothing yet\n", "is empty"),
    "not_a_mapping": ("- name: demo\n", "keys and values"),
    "anchor": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "no anchors"),
    "too_deep": ("a: " + "[" * 5000, "nested deeper"),
    "too_large": ("#" * 1_000_001, "characters"),
}
