"""Mistakes in how a file is written, in keys and types, names, and columns."""

from tests.spec.edit import BASE, Edit

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
}
